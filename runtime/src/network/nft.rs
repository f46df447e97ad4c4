//! The firewall table of the modules' network, spoken to nf_tables over netlink.
//!
//! The table is always replaced as a whole: one batch creates it (so that deleting cannot
//! fail), deletes it and builds it anew, and the kernel commits all of that or nothing.
//! Each commit waits for the kernel's readers, so none is made that changes nothing.

mod encode;
mod expressions;
mod listing;
mod passage;
mod watch;

use std::io;
use std::net::Ipv4Addr;

use self::encode::{Batch, Hook};
use self::expressions::{Expressions, Verdict};
pub use self::passage::ClosedFirewall;
pub(crate) use self::passage::Passage;
pub use self::watch::FirewallWatch;
use super::ipam::Ipv4Subnet;
use super::netlink::Netlink;
use super::ruleset::{Publication, Ruleset};
use crate::{ContainerId, Protocol};

/// Destination-NAT chains run at this priority by convention (`dstnat`).
const PRIORITY_DSTNAT: i32 = -100;
/// Source-NAT chains (`srcnat`).
const PRIORITY_SRCNAT: i32 = 100;
/// Before connection tracking (`raw`), where an address is still the one on the wire.
const PRIORITY_RAW: i32 = -300;

/// A transaction not yet made; equal ones lead to the same table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Transaction {
    bytes: Vec<u8>,
    last: u32,
    /// Rules of the table once it is made.
    rules: usize,
}

impl Transaction {
    /// Puts `ruleset` in place of the table as it was.
    pub(crate) fn replace(ruleset: &Ruleset<'_>) -> Self {
        let mut batch = Batch::new();
        batch.add_table(ruleset.table);
        batch.delete_table(ruleset.table);
        build(&mut batch, ruleset);
        batch.into()
    }

    /// Removes the table; no error if there is none.
    pub(crate) fn remove(table: &str) -> Self {
        let mut batch = Batch::new();
        batch.add_table(table);
        batch.delete_table(table);
        batch.into()
    }

    /// Makes it: all or nothing. Waits for the kernel to let go of the rules as they
    /// were, which takes some 10 ms.
    pub(crate) fn commit(&self) -> io::Result<()> {
        Netlink::netfilter()?.batch(&self.bytes, self.last)
    }

    /// Whether as many rules are in force as this transaction made: what a flush of all
    /// tables, or of ours, changes. Fast.
    pub(crate) fn holds(&self, table: &str) -> io::Result<bool> {
        Ok(listing::count_rules(table)? == self.rules)
    }
}

impl From<Batch> for Transaction {
    fn from(batch: Batch) -> Self {
        let rules = batch.rules();
        let (bytes, last) = batch.finish();
        Self { bytes, last, rules }
    }
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
    Transaction::from(batch).commit()
}

fn build(batch: &mut Batch, ruleset: &Ruleset<'_>) {
    let table = ruleset.table;
    batch.add_table(table);
    for (chain, hook) in [
        ("guard", Some(Hook::filter_prerouting(PRIORITY_RAW))),
        ("publish", None),
        ("prerouting", Some(Hook::nat_prerouting(PRIORITY_DSTNAT))),
        ("output", Some(Hook::nat_output(PRIORITY_DSTNAT))),
        ("postrouting", Some(Hook::nat_postrouting(PRIORITY_SRCNAT))),
    ] {
        batch.add_chain(table, chain, hook);
    }
    let any = Expressions::default;
    // `route_localnet` on the bridge would let modules reach the host's own loopback.
    let to_loopback = any()
        .arrives_at(ruleset.bridge)
        .destination_in(Ipv4Addr::LOCALHOST, 8);
    let dropped = to_loopback.verdict(Verdict::Drop);
    batch.add_rule(table, "guard", &dropped, "host loopback");
    for publication in &ruleset.publications {
        let owner = publication.owner.as_str();
        batch.add_rule(table, "publish", &translate(publication), owner);
    }
    for chain in ["prerouting", "output"] {
        let local = any().destination_is_local();
        let jump = local.verdict(Verdict::Jump("publish"));
        batch.add_rule(table, chain, &jump, "published ports");
    }
    for (rule, comment) in masquerades(ruleset.bridge, ruleset.subnet) {
        batch.add_rule(table, "postrouting", &rule.masquerade(), comment);
    }
}

/// Which packets leave with the host's address instead of their own.
fn masquerades(bridge: &str, subnet: Ipv4Subnet) -> [(Expressions, &'static str); 3] {
    let (network, prefix) = (subnet.network(), subnet.prefix());
    let from_modules = || Expressions::default().source_in(network, prefix);
    let from_loopback = Expressions::default().source_in(Ipv4Addr::LOCALHOST, 8);
    // Without the last a module on the same bridge would answer past the host, from an
    // address that nobody asked.
    let between = from_modules().destination_in(network, prefix);
    [
        (from_modules().leaves_not_by(bridge), "outbound"),
        (from_loopback.leaves_by(bridge), "from host loopback"),
        (
            between.was_translated(),
            "module to module by published port",
        ),
    ]
}

fn translate(publication: &Publication<'_>) -> Expressions {
    let mut rule = Expressions::default();
    if let Some(host_ip) = publication.host_ip {
        rule = rule.destination_in(host_ip, 32);
    }
    rule.destination_port(publication.protocol, publication.host_port)
        .translate_destination(publication.address, publication.container_port)
}
