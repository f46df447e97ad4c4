//! The firewall table of the modules' network, spoken to nf_tables over netlink.
//!
//! The table is always replaced as a whole: one batch creates it (so that deleting cannot
//! fail), deletes it and builds it anew, and the kernel commits all of that or nothing.

pub(crate) mod encode;

use std::io;
use std::net::Ipv4Addr;

use self::encode::{Batch, Expressions, Hook, Verdict};
use super::ipam::Ipv4Subnet;
use super::netlink::Netlink;
use crate::{ContainerId, Protocol};

/// Destination-NAT chains run at this priority by convention (`dstnat`).
const PRIORITY_DSTNAT: i32 = -100;
/// Source-NAT chains (`srcnat`).
const PRIORITY_SRCNAT: i32 = 100;
/// Before connection tracking (`raw`), where an address is still the one on the wire.
const PRIORITY_RAW: i32 = -300;

/// All that the table says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ruleset<'a> {
    pub(crate) table: &'a str,
    pub(crate) bridge: &'a str,
    pub(crate) subnet: Ipv4Subnet,
    pub(crate) publications: Vec<Publication<'a>>,
}

/// One published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Publication<'a> {
    pub(crate) owner: &'a ContainerId,
    pub(crate) protocol: Protocol,
    /// Any where absent.
    pub(crate) host_ip: Option<Ipv4Addr>,
    pub(crate) host_port: u16,
    pub(crate) address: Ipv4Addr,
    pub(crate) container_port: u16,
}

/// Puts `ruleset` in place of the table as it was.
pub(crate) fn replace(ruleset: &Ruleset<'_>) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.add_table(ruleset.table);
    batch.delete_table(ruleset.table);
    build(&mut batch, ruleset);
    commit(batch)
}

/// Removes the table; no error if there is none.
pub(crate) fn remove(table: &str) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.add_table(table);
    batch.delete_table(table);
    commit(batch)
}

/// Whether the kernel takes every kind of chain and rule we need: builds and deletes an
/// example in one batch, so nothing is ever in force.
///
/// # Errors
/// The kernel's, where it refuses.
pub(crate) fn probe(table: &str, subnet: Ipv4Subnet) -> io::Result<()> {
    let owner = ContainerId::try_from("probe").expect("invariant: a valid id");
    let publication = |protocol| Publication {
        owner: &owner,
        protocol,
        host_ip: Some(Ipv4Addr::LOCALHOST),
        host_port: 1,
        address: subnet.gateway(),
        container_port: 1,
    };
    let mut batch = Batch::new();
    let ruleset = Ruleset {
        table,
        bridge: "lo",
        subnet,
        publications: [Protocol::Tcp, Protocol::Udp].map(publication).to_vec(),
    };
    build(&mut batch, &ruleset);
    batch.delete_table(table);
    commit(batch)
}

fn commit(batch: Batch) -> io::Result<()> {
    let (bytes, last) = batch.finish();
    Netlink::netfilter()?.batch(&bytes, last)
}

fn build(batch: &mut Batch, ruleset: &Ruleset<'_>) {
    let Ruleset {
        table,
        bridge,
        subnet,
        ..
    } = *ruleset;
    batch.add_table(table);
    batch.add_chain(table, "guard", Some(Hook::filter_prerouting(PRIORITY_RAW)));
    batch.add_chain(table, "publish", None);
    batch.add_chain(
        table,
        "prerouting",
        Some(Hook::nat_prerouting(PRIORITY_DSTNAT)),
    );
    batch.add_chain(table, "output", Some(Hook::nat_output(PRIORITY_DSTNAT)));
    batch.add_chain(
        table,
        "postrouting",
        Some(Hook::nat_postrouting(PRIORITY_SRCNAT)),
    );
    let mut rule = |chain, expressions, comment| batch.add_rule(table, chain, expressions, comment);

    // `route_localnet` on the bridge would let modules reach the host's own loopback.
    let loopback = Expressions::default()
        .arrives_at(bridge)
        .destination_in(Ipv4Addr::LOCALHOST, 8);
    rule("guard", loopback.verdict(Verdict::Drop), "host loopback");

    for publication in &ruleset.publications {
        rule(
            "publish",
            translate(publication),
            publication.owner.as_str(),
        );
    }
    for chain in ["prerouting", "output"] {
        let local = Expressions::default().destination_is_local();
        rule(
            chain,
            local.verdict(Verdict::Jump("publish")),
            "published ports",
        );
    }

    let (network, prefix) = (subnet.network(), subnet.prefix());
    let from_modules = || Expressions::default().source_in(network, prefix);
    rule(
        "postrouting",
        from_modules().leaves_not_by(bridge).masquerade(),
        "outbound",
    );
    let from_loopback = Expressions::default()
        .source_in(Ipv4Addr::LOCALHOST, 8)
        .leaves_by(bridge);
    rule(
        "postrouting",
        from_loopback.masquerade(),
        "from host loopback",
    );
    // Without this the answer of a module on the same bridge would bypass the host and
    // come from an address that nobody asked.
    let between = from_modules()
        .destination_in(network, prefix)
        .was_translated();
    rule(
        "postrouting",
        between.masquerade(),
        "module to module by published port",
    );
}

fn translate(publication: &Publication<'_>) -> Expressions {
    let mut rule = Expressions::default();
    if let Some(host_ip) = publication.host_ip {
        rule = rule.destination_in(host_ip, 32);
    }
    rule.destination_port(publication.protocol, publication.host_port)
        .translate_destination(publication.address, publication.container_port)
}
