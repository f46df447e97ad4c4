//! The rules of the modules' network in the tables of legacy ip_tables, which all programs
//! share: for kernels without nf_tables. No program is called for it.
//!
//! Ours are chains of our own in `nat` and `filter`, named after the bridge, and one jump
//! to each. Everything else in the tables stays as it is, its counters too. A table that
//! says what it should is not written.

mod blob;
mod kernel;
mod rule;

use std::fs;
use std::io;
use std::net::Ipv4Addr;

use self::blob::{Entry, Table};
use self::kernel::{Kernel, lock};
use self::rule::{ACCEPT, DROP, EXTENSIONS, Rule, TRANSLATIONS};
pub(crate) use self::rule::{State, connection_states};
use super::ruleset::{Publication, Ruleset};

const PREROUTING: usize = 0;
const INPUT: usize = 1;
const FORWARD: usize = 2;
const OUTPUT: usize = 3;
const POSTROUTING: usize = 4;

/// Parts of our chains' names.
const PUBLISHED: &str = "PUB";
const OUTBOUND: &str = "OUT";
const GUARD: &str = "IN";
const FORWARDING: &str = "FWD";

/// Tables that exist in the caller's network namespace.
const TABLES: &str = "/proc/self/net/ip_tables_names";

/// A chain of ours: its table, its part of the name, and the hooks it is reached from.
const CHAINS: [(&str, &str, &[usize]); 4] = [
    ("nat", PUBLISHED, &[PREROUTING, OUTPUT]),
    ("nat", OUTBOUND, &[POSTROUTING]),
    ("filter", GUARD, &[INPUT]),
    ("filter", FORWARDING, &[FORWARD]),
];

/// Whether the kernel has the tables and every extension that our rules are made of. Makes
/// the tables exist, empty; changes none.
///
/// # Errors
/// The kernel's, with what is missing.
pub(crate) fn probe() -> io::Result<()> {
    let lacks =
        |what: &str, error: &io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    let kernel = Kernel::open()?;
    for table in ["nat", "filter"] {
        kernel
            .load(table)
            .map_err(|error| lacks(&format!("table {table}"), &error))?;
    }
    for (is_match, name, revision) in EXTENSIONS {
        kernel
            .knows(is_match, name, revision)
            .map_err(|error| lacks(name, &error))?;
    }
    Ok(())
}

/// Makes our chains say `ruleset`; `false` if they did.
///
/// # Errors
/// The kernel's, or `TimedOut` for the lock. One table is changed or is not; a repetition
/// does the rest.
pub(crate) fn apply(ruleset: &Ruleset<'_>) -> io::Result<bool> {
    let kernel = Kernel::open()?;
    let known = |revision: &u8| kernel.knows(false, "DNAT", *revision).is_ok();
    let translation = TRANSLATIONS.into_iter().find(known).unwrap_or_default();
    edit_tables(&["nat", "filter"], |name, table| {
        for (_, part, hooks) in CHAINS.iter().filter(|(in_table, ..)| *in_table == name) {
            let rules = rules(part, ruleset, translation);
            set_chain(table, part, hooks, ruleset.bridge, rules);
        }
    })
}

/// Lets the modules' packets through the firewall of others, where there is one of legacy
/// ip_tables, and removes all else of ours: for where another engine publishes the ports.
///
/// # Errors
/// As [`apply`].
pub(crate) fn accept(bridge: &str) -> io::Result<bool> {
    edit_tables(&existing(), |name, table| {
        clear(name, table, bridge, |part| part != FORWARDING);
        if name == "filter" {
            set_chain(table, FORWARDING, &[FORWARD], bridge, forwarding(bridge));
        }
    })
}

/// Removes our chains from the tables that there are; `false` if there were none.
///
/// # Errors
/// As [`apply`].
pub(crate) fn remove(bridge: &str) -> io::Result<bool> {
    edit_tables(&existing(), |name, table| {
        clear(name, table, bridge, |_| true);
    })
}

/// Those of the tables that there are. Asking for one would make it.
fn existing() -> Vec<&'static str> {
    let names = fs::read_to_string(TABLES).unwrap_or_default();
    let exists = |table: &&str| names.lines().any(|line| line == *table);
    ["nat", "filter"].into_iter().filter(exists).collect()
}

fn clear(name: &str, table: &mut Table, bridge: &str, which: fn(&str) -> bool) {
    for (in_table, part, _) in CHAINS {
        if in_table == name && which(part) {
            table.remove_chain(&chain_name(part, bridge));
        }
    }
}

fn edit_tables(names: &[&'static str], edit: impl Fn(&str, &mut Table)) -> io::Result<bool> {
    if names.is_empty() {
        return Ok(false);
    }
    let _lock = lock()?;
    let kernel = Kernel::open()?;
    let mut changed = false;
    for name in names {
        let loaded = kernel.load(name)?;
        let mut table = loaded.table.clone();
        edit(name, &mut table);
        if table != loaded.table {
            kernel.replace(&loaded, &table)?;
            changed = true;
        }
    }
    Ok(changed)
}

fn set_chain(table: &mut Table, part: &str, hooks: &[usize], bridge: &str, rules: Vec<Entry>) {
    let chain = chain_name(part, bridge);
    table.set_chain(&chain, rules);
    for hook in hooks {
        let all = match part {
            PUBLISHED => Rule::new().destination_is_local(),
            _ => Rule::new(),
        };
        table.jump_at(*hook, all.jump(&chain));
    }
}

fn rules(part: &str, ruleset: &Ruleset<'_>, translation: u8) -> Vec<Entry> {
    match part {
        PUBLISHED => {
            let published = ruleset.publications.iter();
            published.map(|p| translate(p, translation)).collect()
        }
        OUTBOUND => masquerades(ruleset),
        GUARD => guard(ruleset.bridge),
        _ => forwarding(ruleset.bridge),
    }
}

fn translate(publication: &Publication<'_>, revision: u8) -> Entry {
    let mut rule = Rule::new();
    if let Some(host_ip) = publication.host_ip {
        rule = rule.destination_in(host_ip, 32);
    }
    rule.destination_port(publication.protocol, publication.host_port)
        .translate_destination(revision, (publication.address, publication.container_port))
}

/// As in `nft`: what leaves with the host's address instead of its own.
fn masquerades(ruleset: &Ruleset<'_>) -> Vec<Entry> {
    let (bridge, subnet) = (ruleset.bridge, ruleset.subnet);
    let (network, prefix) = (subnet.network(), subnet.prefix());
    let from_modules = || Rule::new().source_in(network, prefix);
    vec![
        from_modules().leaves_not_by(bridge).masquerade(),
        Rule::new()
            .source_in(Ipv4Addr::LOCALHOST, 8)
            .leaves_by(bridge)
            .masquerade(),
        from_modules()
            .destination_in(network, prefix)
            .in_state(&[State::Translated])
            .masquerade(),
    ]
}

/// `route_localnet` on the bridge would let modules reach the host's own loopback. Answers
/// to the host's connections by a published port come from there as well, and are neither
/// new nor astray.
fn guard(bridge: &str) -> Vec<Entry> {
    vec![
        Rule::new()
            .arrives_at(bridge)
            .destination_in(Ipv4Addr::LOCALHOST, 8)
            .in_state(&[State::New, State::Invalid])
            .verdict(DROP),
    ]
}

/// Modules reach each other and the outside, and the outside what is published, whatever
/// the policy of the host's firewall.
fn forwarding(bridge: &str) -> Vec<Entry> {
    vec![
        Rule::new().arrives_at(bridge).verdict(ACCEPT),
        Rule::new()
            .leaves_by(bridge)
            .in_state(&State::KNOWN)
            .verdict(ACCEPT),
    ]
}

/// At most 26 bytes of the 28 that `iptables` allows: a bridge's name has 15.
fn chain_name(part: &str, bridge: &str) -> String {
    format!("KOBUNE-{part}-{bridge}")
}
