//! The nf_tables wire format: the messages of a batch, and questions.
//!
//! Numbers are those of `linux/netfilter/nf_tables.h`. Knows nothing of what rules are for.

use std::fmt;

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP};

use super::expressions::{Expressions, MATCH, REVISION};
use crate::network::netlink::attributes::{attribute, nested, number, text};
use crate::network::netlink::netfilter_message;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_SUBSYS_NFT_COMPAT: u16 = 11;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_GETRULE: u16 = 7;
const NFT_MSG_DELRULE: u16 = 8;
const NFNL_MSG_COMPAT_GET: u16 = 0;

pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_HANDLE: u16 = 3;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_USERDATA: u16 = 7;

/// Kind of a comment in what the `nft` program keeps with a rule.
pub(super) const COMMENT: u8 = 0;

const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;
pub(super) const NFPROTO_IPV4: u8 = 2;

const HOOK_PREROUTING: u32 = 0;
pub(super) const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
const POLICY_ACCEPT: u32 = 1;

/// Longest comment: its length, with the terminating zero, is one byte.
const MAX_COMMENT: usize = 128;

/// The messages of one transaction.
#[derive(Debug)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    sequence: u32,
    /// Where the latest message starts.
    latest: usize,
    rules: usize,
}

/// Which packets the chains of a table see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4's.
    Ip,
    /// IPv4's and IPv6's.
    Inet,
}

/// Of what to list all that there are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Listed<'a> {
    Tables,
    Chains,
    /// Those of a table; kernels before 4.10 answer with those of all tables.
    Rules(Family, &'a str),
}

/// Where a base chain is attached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook {
    kind: &'static str,
    number: u32,
    priority: i32,
}

impl Batch {
    pub(crate) fn new() -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            sequence: 0,
            latest: 0,
            rules: 0,
        };
        batch.marker(NFNL_MSG_BATCH_BEGIN);
        batch
    }

    /// How many rules it adds.
    pub(crate) fn rules(&self) -> usize {
        self.rules
    }

    /// The encoded batch, and the number of its last message, which alone asks for an
    /// acknowledgement: one for each would not fit the receive buffer.
    pub(crate) fn finish(mut self) -> (Vec<u8>, u32) {
        let last = self.sequence;
        let place = self.latest + 6;
        let flags = u16::from_ne_bytes([self.bytes[place], self.bytes[place + 1]]) | NLM_F_ACK;
        self.bytes[place..place + 2].copy_from_slice(&flags.to_ne_bytes());
        self.marker(NFNL_MSG_BATCH_END);
        (self.bytes, last)
    }

    pub(crate) fn add_table(&mut self, name: &str) {
        self.message(NFT_MSG_NEWTABLE, NLM_F_CREATE, &text(1, name));
    }

    /// Deletes a table with all that is in it.
    pub(crate) fn delete_table(&mut self, name: &str) {
        self.message(NFT_MSG_DELTABLE, 0, &text(1, name));
    }

    /// Adds a chain, attached to a hook with the policy accept or reached by jumps only.
    pub(crate) fn add_chain(&mut self, table: &str, name: &str, hook: Option<Hook>) {
        let mut body = [text(1, table), text(3, name)].concat();
        if let Some(hook) = hook {
            let place = [
                number(1, hook.number),
                attribute(2, &hook.priority.to_be_bytes()),
            ];
            body.extend(nested(4, &place.concat()));
            body.extend(number(5, POLICY_ACCEPT));
            body.extend(text(7, hook.kind));
        }
        self.message(NFT_MSG_NEWCHAIN, NLM_F_CREATE, &body);
    }

    /// Appends a rule. The comment, cut to 127 bytes, is for whoever lists the table.
    pub(crate) fn add_rule(&mut self, table: &str, chain: &str, rule: &Expressions, comment: &str) {
        let body = rule_body((table, chain), rule, comment);
        self.message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &body);
        self.rules += 1;
    }

    /// Puts a rule before all others of a chain, with a comment as [`Self::add_rule`] does.
    pub(crate) fn insert_rule(
        &mut self,
        (family, table, chain): (Family, &str, &str),
        rule: &Expressions,
        comment: &str,
    ) {
        let body = rule_body((table, chain), rule, comment);
        self.message_of(family, NFT_MSG_NEWRULE, NLM_F_CREATE, &body);
    }

    /// Deletes the rule that the kernel calls `handle`.
    pub(crate) fn delete_rule(
        &mut self,
        (family, table, chain): (Family, &str, &str),
        handle: u64,
    ) {
        let body = [
            text(RULE_TABLE, table),
            text(RULE_CHAIN, chain),
            attribute(RULE_HANDLE, &handle.to_be_bytes()),
        ];
        self.message_of(family, NFT_MSG_DELRULE, 0, &body.concat());
    }

    fn marker(&mut self, kind: u16) {
        self.append((kind, 0), (NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES), &[]);
    }

    fn message(&mut self, kind: u16, flags: u16, body: &[u8]) {
        self.message_of(Family::Ip, kind, flags, body);
    }

    fn message_of(&mut self, family: Family, kind: u16, flags: u16, body: &[u8]) {
        let kind = NFNL_SUBSYS_NFTABLES << 8 | kind;
        self.append((kind, flags), (family.number(), 0), body);
    }

    fn append(&mut self, kind: (u16, u16), header: (u8, u16), body: &[u8]) {
        self.sequence += 1;
        self.latest = self.bytes.len();
        self.bytes
            .extend(netfilter_message(kind, self.sequence, header, body));
    }
}

/// Asks for all of a kind.
pub(crate) fn list(listed: Listed<'_>, sequence: u32) -> Vec<u8> {
    let (kind, family, body) = match listed {
        Listed::Tables => (NFT_MSG_GETTABLE, NFPROTO_UNSPEC, Vec::new()),
        Listed::Chains => (NFT_MSG_GETCHAIN, NFPROTO_UNSPEC, Vec::new()),
        Listed::Rules(family, table) => (NFT_MSG_GETRULE, family.number(), text(RULE_TABLE, table)),
    };
    let kind = NFNL_SUBSYS_NFTABLES << 8 | kind;
    netfilter_message((kind, NLM_F_DUMP), sequence, (family, 0), &body)
}

/// Asks whether rules may use a match of ip_tables; an error is the answer no.
pub(crate) fn knows_match((name, revision): (&str, u32), sequence: u32) -> Vec<u8> {
    const MATCH_NOT_TARGET: u32 = 0;
    let kind = NFNL_SUBSYS_NFT_COMPAT << 8 | NFNL_MSG_COMPAT_GET;
    let body = [
        text(MATCH, name),
        number(REVISION, revision),
        number(3, MATCH_NOT_TARGET),
    ];
    let header = (NFPROTO_IPV4, 0);
    netfilter_message((kind, NLM_F_ACK), sequence, header, &body.concat())
}

impl Family {
    /// The one the kernel has this number for; `None` where our rules are of no use.
    pub(super) fn of(number: u8) -> Option<Self> {
        let families = [Self::Ip, Self::Inet];
        families
            .into_iter()
            .find(|family| family.number() == number)
    }

    fn number(self) -> u8 {
        match self {
            Self::Ip => NFPROTO_IPV4,
            Self::Inet => NFPROTO_INET,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ip => "ip",
            Self::Inet => "inet",
        })
    }
}

impl Hook {
    pub(crate) const fn filter_prerouting(priority: i32) -> Self {
        Self {
            kind: "filter",
            number: HOOK_PREROUTING,
            priority,
        }
    }

    pub(crate) const fn nat_prerouting(priority: i32) -> Self {
        Self {
            kind: "nat",
            number: HOOK_PREROUTING,
            priority,
        }
    }

    pub(crate) const fn nat_output(priority: i32) -> Self {
        Self {
            kind: "nat",
            number: HOOK_OUTPUT,
            priority,
        }
    }

    pub(crate) const fn nat_postrouting(priority: i32) -> Self {
        Self {
            kind: "nat",
            number: HOOK_POSTROUTING,
            priority,
        }
    }
}

fn rule_body((table, chain): (&str, &str), rule: &Expressions, comment: &str) -> Vec<u8> {
    let body = [
        text(RULE_TABLE, table),
        text(RULE_CHAIN, chain),
        nested(RULE_EXPRESSIONS, rule.encoded()),
        attribute(RULE_USERDATA, &user_data(comment)),
    ];
    body.concat()
}

/// A rule's comment in the form the `nft` program keeps it: kind, length, text, zero.
fn user_data(comment: &str) -> Vec<u8> {
    let mut text = comment.as_bytes()[..comment.len().min(MAX_COMMENT - 1)].to_vec();
    text.push(0);
    let length = u8::try_from(text.len()).expect("invariant: at most MAX_COMMENT");
    [&[COMMENT, length], &text[..]].concat()
}

#[cfg(all(test, target_endian = "little"))]
mod tests;
