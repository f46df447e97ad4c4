//! The nf_tables wire format: attributes, expressions and messages of a batch.
//!
//! Numbers are those of `linux/netfilter/nf_tables.h`. Attribute numbers in netlink byte
//! order are big endian, message headers native. Knows nothing of what rules are for.

use std::net::Ipv4Addr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP};

use crate::Protocol;
use crate::network::netlink::netfilter_message;

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_GETRULE: u16 = 7;

const RULE_TABLE: u16 = 1;

/// Number of the message that [`list_rules`] makes.
pub(crate) const LIST_SEQUENCE: u32 = 1;

const NLA_F_NESTED: u16 = 0x8000;

const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_IPV4: u8 = 2;

const HOOK_PREROUTING: u32 = 0;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
const POLICY_ACCEPT: u32 = 1;

const REG_VERDICT: u32 = 0;
const REG_1: u32 = 1;
const REG_2: u32 = 2;

const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;

const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;

const PAYLOAD_NETWORK_HEADER: u32 = 1;
const PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const IPV4_SOURCE: u32 = 12;
const IPV4_DESTINATION: u32 = 16;
const PORT_DESTINATION: u32 = 2;

const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_FLAG_DADDR: u32 = 2;
const RTN_LOCAL: u32 = 2;

const CT_STATUS: u32 = 2;
const IPS_DST_NAT: u32 = 1 << 5;

const NAT_DNAT: u32 = 1;

/// Bytes of an interface name in the kernel, its terminating zero included.
const IFNAMSIZ: usize = 16;

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

/// Where a base chain is attached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook {
    kind: &'static str,
    number: u32,
    priority: i32,
}

/// What becomes of a packet that a rule matched.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    /// Lost without an answer.
    Drop,
    /// Goes on in another chain, and comes back.
    Jump(&'static str),
}

/// The expressions of one rule, in the order the kernel evaluates them.
#[derive(Debug, Default)]
pub(crate) struct Expressions(Vec<u8>);

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
        let body = [
            text(1, table),
            text(2, chain),
            nested(4, &rule.0),
            attribute(7, &user_data(comment)),
        ];
        self.message(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &body.concat());
        self.rules += 1;
    }

    fn marker(&mut self, kind: u16) {
        self.append((kind, 0), (NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES), &[]);
    }

    fn message(&mut self, kind: u16, flags: u16, body: &[u8]) {
        let kind = NFNL_SUBSYS_NFTABLES << 8 | kind;
        self.append((kind, flags), (NFPROTO_IPV4, 0), body);
    }

    fn append(&mut self, kind: (u16, u16), header: (u8, u16), body: &[u8]) {
        self.sequence += 1;
        self.latest = self.bytes.len();
        self.bytes
            .extend(netfilter_message(kind, self.sequence, header, body));
    }
}

/// Asks for the rules of `table`; kernels before 4.10 answer with those of all tables.
pub(crate) fn list_rules(table: &str) -> Vec<u8> {
    let kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE;
    let body = text(RULE_TABLE, table);
    netfilter_message((kind, NLM_F_DUMP), LIST_SEQUENCE, (NFPROTO_IPV4, 0), &body)
}

/// Whether an answer to [`list_rules`] is a rule of `table`: the kernel puts the table's
/// name first, after the header that all netfilter messages have.
pub(crate) fn is_rule_of(answer: &[u8], table: &str) -> bool {
    let name = text(RULE_TABLE, table);
    answer.get(4..).is_some_and(|rest| rest.starts_with(&name))
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

impl Expressions {
    pub(crate) fn arrives_at(self, interface: &str) -> Self {
        self.meta(META_IIFNAME)
            .compare(CMP_EQ, &interface_name(interface))
    }

    pub(crate) fn leaves_by(self, interface: &str) -> Self {
        self.meta(META_OIFNAME)
            .compare(CMP_EQ, &interface_name(interface))
    }

    pub(crate) fn leaves_not_by(self, interface: &str) -> Self {
        self.meta(META_OIFNAME)
            .compare(CMP_NEQ, &interface_name(interface))
    }

    pub(crate) fn source_in(self, network: Ipv4Addr, prefix: u8) -> Self {
        self.address_in(IPV4_SOURCE, network, prefix)
    }

    pub(crate) fn destination_in(self, network: Ipv4Addr, prefix: u8) -> Self {
        self.address_in(IPV4_DESTINATION, network, prefix)
    }

    /// The destination is an address of the host.
    pub(crate) fn destination_is_local(self) -> Self {
        let fib = [
            number(1, REG_1),
            number(2, FIB_RESULT_ADDRTYPE),
            number(3, FIB_FLAG_DADDR),
        ];
        self.push("fib", &fib.concat())
            .compare(CMP_EQ, &RTN_LOCAL.to_ne_bytes())
    }

    pub(crate) fn destination_port(self, protocol: Protocol, port: u16) -> Self {
        let protocol = match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        self.meta(META_L4PROTO)
            .compare(CMP_EQ, &[protocol])
            .payload(PAYLOAD_TRANSPORT_HEADER, PORT_DESTINATION, 2)
            .compare(CMP_EQ, &port.to_be_bytes())
    }

    /// The connection's destination was rewritten.
    pub(crate) fn was_translated(self) -> Self {
        self.push("ct", &[number(1, REG_1), number(2, CT_STATUS)].concat())
            .mask(&IPS_DST_NAT.to_ne_bytes())
            .compare(CMP_NEQ, &[0; 4])
    }

    pub(crate) fn translate_destination(self, address: Ipv4Addr, port: u16) -> Self {
        let nat = [
            number(1, NAT_DNAT),
            number(2, u32::from(NFPROTO_IPV4)),
            number(3, REG_1),
            number(5, REG_2),
        ];
        self.immediate(REG_1, &attribute(1, &address.octets()))
            .immediate(REG_2, &attribute(1, &port.to_be_bytes()))
            .push("nat", &nat.concat())
    }

    pub(crate) fn masquerade(self) -> Self {
        self.push("masq", &[])
    }

    pub(crate) fn verdict(self, verdict: Verdict) -> Self {
        const NF_DROP: i32 = 0;
        const NFT_JUMP: i32 = -3;
        let code = |code: i32| attribute(1, &code.to_be_bytes());
        let body = match verdict {
            Verdict::Drop => code(NF_DROP),
            Verdict::Jump(chain) => [code(NFT_JUMP), text(2, chain)].concat(),
        };
        self.immediate(REG_VERDICT, &nested(2, &body))
    }

    fn address_in(self, offset: u32, network: Ipv4Addr, prefix: u8) -> Self {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let network = u32::from(network) & mask;
        self.payload(PAYLOAD_NETWORK_HEADER, offset, 4)
            .mask(&mask.to_be_bytes())
            .compare(CMP_EQ, &network.to_be_bytes())
    }

    fn meta(self, key: u32) -> Self {
        self.push("meta", &[number(1, REG_1), number(2, key)].concat())
    }

    fn payload(self, base: u32, offset: u32, length: u32) -> Self {
        let body = [
            number(1, REG_1),
            number(2, base),
            number(3, offset),
            number(4, length),
        ];
        self.push("payload", &body.concat())
    }

    fn mask(self, mask: &[u8; 4]) -> Self {
        let body = [
            number(1, REG_1),
            number(2, REG_1),
            number(3, 4),
            nested(4, &attribute(1, mask)),
            nested(5, &attribute(1, &[0; 4])),
        ];
        self.push("bitwise", &body.concat())
    }

    fn compare(self, operator: u32, value: &[u8]) -> Self {
        let body = [
            number(1, REG_1),
            number(2, operator),
            nested(3, &attribute(1, value)),
        ];
        self.push("cmp", &body.concat())
    }

    fn immediate(self, register: u32, data: &[u8]) -> Self {
        self.push(
            "immediate",
            &[number(1, register), nested(2, data)].concat(),
        )
    }

    fn push(mut self, name: &str, data: &[u8]) -> Self {
        self.0
            .extend(nested(1, &[text(1, name), nested(2, data)].concat()));
        self
    }
}

fn interface_name(name: &str) -> [u8; IFNAMSIZ] {
    let mut bytes = [0; IFNAMSIZ];
    let length = name.len().min(IFNAMSIZ - 1);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

/// A rule's comment in the form the `nft` program keeps it: type 0, length, text, zero.
fn user_data(comment: &str) -> Vec<u8> {
    let mut text = comment.as_bytes()[..comment.len().min(MAX_COMMENT - 1)].to_vec();
    text.push(0);
    let length = u8::try_from(text.len()).expect("invariant: at most MAX_COMMENT");
    [&[0, length], &text[..]].concat()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("invariant: a rule is below 64 KiB");
    let mut bytes = Vec::with_capacity(usize::from(length).next_multiple_of(4));
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn nested(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, value)
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn text(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

#[cfg(all(test, target_endian = "little"))]
mod tests;
