//! The modules' way through firewalls that are tables of others.
//!
//! No table can overrule what another drops. So where a chain at the forward hook lets nothing
//! through that it does not know, rules of ours come before its own, told apart by their
//! comment. Rules of others are never changed, and ours go when they are not needed.

use std::fmt;
use std::io::{self, ErrorKind};

use super::encode::{Batch, Family, HOOK_FORWARD, knows_match};
use super::expressions::{Expressions, Verdict};
use super::listing::{Chain, End, Rule, Table, tables_at};
use crate::network::iptables::{State, connection_states};
use crate::network::netlink::Netlink;

/// The match of ip_tables on connections, and its revision.
const CONNTRACK: (&str, u32) = ("conntrack", 3);

/// Where `iptables` keeps its forward chains if it is a front end of nf_tables. It reads no
/// table in which it finds what it would not write itself.
const IPTABLES_CHAIN: &str = "FORWARD";
const IPTABLES_TABLES: [&str; 3] = ["filter", "mangle", "security"];

/// How often somebody else may change the rules while ours are being changed.
const ATTEMPTS: usize = 5;

/// The modules' network, for which a way is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passage<'a> {
    /// Our own table; its name marks our rules in those of others.
    pub(crate) table: &'a str,
    pub(crate) bridge: &'a str,
}

/// A chain of a firewall that lets modules neither reach beyond the device nor be reached, and
/// that only the program can change that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedFirewall {
    family: Family,
    table: String,
    chain: String,
}

impl fmt::Display for ClosedFirewall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            family,
            table,
            chain,
        } = self;
        write!(f, "chain {chain} of table {family} {table}")
    }
}

/// The tables of others that forwarded packets come to.
#[derive(Debug)]
struct Seen {
    tables: Vec<Table>,
    /// The kernel knows the match, where that matters.
    knows_conntrack: bool,
}

/// What is to be done about the tables of others.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    edits: Vec<Edit>,
    closed: Vec<ClosedFirewall>,
}

/// A change of one chain.
#[derive(Debug, PartialEq, Eq)]
struct Edit {
    family: Family,
    table: String,
    chain: String,
    /// Handles of rules to remove.
    remove: Vec<u64>,
    /// How ours are to be written, where they shall be there.
    insert: Option<Dialect>,
}

/// Whose expressions ask for the state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    NfTables,
    IpTables,
}

impl Passage<'_> {
    /// Has every chain of others let the modules' packets through; whether that changed
    /// anything, and the chains it cannot change. Repeatable.
    ///
    /// # Errors
    /// The kernel's; each table was tried.
    pub(crate) fn open(self) -> io::Result<(bool, Vec<ClosedFirewall>)> {
        self.settle(|seen| self.plan(seen))
    }

    /// Takes back what [`Self::open`] did; whether there was anything.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn close(self) -> io::Result<bool> {
        let (changed, _) = self.settle(|seen| self.plan_end(seen))?;
        Ok(changed)
    }

    /// The chains that [`Self::open`] could not change; changes nothing.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn closed(self) -> io::Result<Vec<ClosedFirewall>> {
        Ok(self.plan(&self.look()?).closed)
    }

    fn settle(self, plan: impl Fn(&Seen) -> Plan) -> io::Result<(bool, Vec<ClosedFirewall>)> {
        let mut changed = false;
        for _ in 0..ATTEMPTS {
            let Plan { edits, closed } = plan(&self.look()?);
            if edits.is_empty() {
                return Ok((changed, closed));
            }
            let done: Vec<_> = edits.iter().map(|edit| self.commit(edit)).collect();
            changed |= done.iter().any(Result::is_ok);
            // What somebody else removed meanwhile may want another change, or none.
            let failed = done.into_iter().filter_map(Result::err);
            match failed.max_by_key(|error| error.kind() != ErrorKind::NotFound) {
                Some(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                Some(_) => {}
                None => return Ok((changed, closed)),
            }
        }
        Err(io::Error::from(ErrorKind::ResourceBusy))
    }

    fn look(self) -> io::Result<Seen> {
        let tables = match tables_at(HOOK_FORWARD, self.table) {
            Err(error) if is_absent(&error) => Vec::new(),
            other => other?,
        };
        let asks = forward_chains(&tables).any(|(table, chain)| is_of_iptables(table, chain));
        let knows = || Netlink::netfilter()?.exchange(&knows_match(CONNTRACK, 1), 1);
        Ok(Seen {
            knows_conntrack: asks && knows().is_ok(),
            tables,
        })
    }

    /// What is to be done for the modules to be let through. Pure.
    fn plan(self, seen: &Seen) -> Plan {
        let mut plan = Plan::default();
        for (table, chain) in forward_chains(&seen.tables) {
            let ours: Vec<_> = chain.rules.iter().filter(|r| self.is_ours(r)).collect();
            let refuses = refuses(table, chain);
            let wanted = refuses.then(|| seen.dialect(table, chain));
            if self.is_done(&ours, table.family, wanted) {
                continue;
            }
            if !table.owned {
                plan.edits.push(Edit::of(table, chain, &ours, wanted));
            } else if refuses && !self.is_told_of_bridge(table, chain) {
                plan.closed.push(ClosedFirewall {
                    family: table.family,
                    table: table.name.clone(),
                    chain: chain.name.clone(),
                });
            }
        }
        plan
    }

    /// What is to be done for nothing of ours to be there. Pure.
    fn plan_end(self, seen: &Seen) -> Plan {
        let mut plan = Plan::default();
        for (table, chain) in forward_chains(&seen.tables) {
            let ours: Vec<_> = chain.rules.iter().filter(|r| self.is_ours(r)).collect();
            if !ours.is_empty() {
                plan.edits.push(Edit::of(table, chain, &ours, None));
            }
        }
        plan
    }

    /// Modules reach each other and the outside, and the outside what is published, whatever
    /// the rest of the chain says. In the order in which they shall be there; the comment
    /// says which rule it is, so rules of other content need other comments.
    fn rules(self, family: Family, dialect: Dialect) -> Vec<(Expressions, String)> {
        let any = || match family {
            Family::Ip => Expressions::default(),
            Family::Inet => Expressions::default().of_ipv4(),
        };
        let back = || any().leaves_by(self.bridge);
        let mut rules = vec![(any().arrives_at(self.bridge), "from modules")];
        match dialect {
            Dialect::NfTables => rules.extend([
                (back().belongs_to_connection(), "answers to modules"),
                (back().was_translated(), "published ports"),
            ]),
            Dialect::IpTables => rules.push((
                back().extension(CONNTRACK, &connection_states(&State::KNOWN)),
                "answers and published ports",
            )),
        }
        let finish = |(rule, comment): (Expressions, &str)| {
            let comment = format!("{}: {comment}", self.table);
            (rule.verdict(Verdict::Accept), comment)
        };
        rules.into_iter().map(finish).collect()
    }

    /// Whether those of ours that are there are those that shall be.
    fn is_done(self, ours: &[&Rule], family: Family, wanted: Option<Dialect>) -> bool {
        let ours = ours.iter().map(|rule| rule.comment.as_deref());
        let wanted = wanted.map(|dialect| self.rules(family, dialect));
        let wanted = wanted.iter().flatten();
        ours.eq(wanted.map(|(_, comment)| Some(comment.as_str())))
    }

    fn is_ours(self, rule: &Rule) -> bool {
        let comment = rule.comment.as_deref();
        let rest = comment.and_then(|comment| comment.strip_prefix(self.table));
        rest.is_some_and(|rest| rest.starts_with(": "))
    }

    /// Whether its own program has told the chain something about the bridge.
    fn is_told_of_bridge(self, table: &Table, chain: &Chain) -> bool {
        let rules = table.reached(chain, |_| true);
        let mut operands = rules.iter().flat_map(|rule| &rule.operands);
        operands.any(|operand| {
            let name = operand.strip_prefix(self.bridge.as_bytes());
            name.is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
        })
    }

    fn commit(self, edit: &Edit) -> io::Result<()> {
        let place = (edit.family, edit.table.as_str(), edit.chain.as_str());
        let mut batch = Batch::new();
        for handle in &edit.remove {
            batch.delete_rule(place, *handle);
        }
        if let Some(dialect) = edit.insert {
            // Each before those that are there already.
            for (rule, comment) in self.rules(edit.family, dialect).iter().rev() {
                batch.insert_rule(place, rule, comment);
            }
        }
        let (bytes, last) = batch.finish();
        Netlink::netfilter()?.batch(&bytes, last)
    }
}

impl Seen {
    fn dialect(&self, table: &Table, chain: &Chain) -> Dialect {
        match self.knows_conntrack && is_of_iptables(table, chain) {
            true => Dialect::IpTables,
            false => Dialect::NfTables,
        }
    }
}

impl Edit {
    fn of(table: &Table, chain: &Chain, remove: &[&Rule], insert: Option<Dialect>) -> Self {
        Self {
            family: table.family,
            table: table.name.clone(),
            chain: chain.name.clone(),
            remove: remove.iter().map(|rule| rule.handle).collect(),
            insert,
        }
    }
}

fn forward_chains(tables: &[Table]) -> impl Iterator<Item = (&Table, &Chain)> {
    let chains = |table| Table::base_chains(table, HOOK_FORWARD).map(move |chain| (table, chain));
    tables.iter().flat_map(chains)
}

/// Whether a chain lets nothing through that no rule speaks of: by its policy, or by a rule for
/// all that is left.
fn refuses(table: &Table, chain: &Chain) -> bool {
    let all = table.reached(chain, |rule| !rule.conditional);
    chain.base.is_some_and(|base| base.drops) || all.iter().any(|rule| rule.end == End::Refuses)
}

fn is_of_iptables(table: &Table, chain: &Chain) -> bool {
    table.family == Family::Ip
        && chain.name == IPTABLES_CHAIN
        && IPTABLES_TABLES.contains(&table.name.as_str())
}

/// Whether a kernel without nf_tables says so, or one that lets us change none.
fn is_absent(error: &io::Error) -> bool {
    let absent = [
        libc::EPERM,
        libc::EINVAL,
        libc::EOPNOTSUPP,
        libc::EPROTONOSUPPORT,
        libc::ENOENT,
    ];
    error
        .raw_os_error()
        .is_some_and(|code| absent.contains(&code))
}

#[cfg(test)]
mod tests;
