//! What rules consist of: the kernel's virtual machine of nf_tables.
//!
//! Numbers are those of `linux/netfilter/nf_tables.h`. Knows nothing of what rules are for.

use std::net::Ipv4Addr;

use super::encode::NFPROTO_IPV4;
use crate::Protocol;
use crate::network::netlink::attributes::{attribute, nested, number, text};

pub(super) const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
pub(super) const NFT_JUMP: i32 = -3;
pub(super) const NFT_GOTO: i32 = -4;

pub(super) const REG_VERDICT: u32 = 0;
const REG_1: u32 = 1;
const REG_2: u32 = 2;

const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;

const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;

const PAYLOAD_NETWORK_HEADER: u32 = 1;
const PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const IPV4_SOURCE: u32 = 12;
const IPV4_DESTINATION: u32 = 16;
const PORT_DESTINATION: u32 = 2;

const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_FLAG_DADDR: u32 = 2;
const RTN_LOCAL: u32 = 2;

const CT_STATE: u32 = 0;
const CT_STATE_ESTABLISHED: u32 = 1 << 1;
const CT_STATE_RELATED: u32 = 1 << 2;
const CT_STATUS: u32 = 2;
const IPS_DST_NAT: u32 = 1 << 5;

const NAT_DNAT: u32 = 1;

/// Attributes of an extension of ip_tables.
pub(super) const MATCH: u16 = 1;
pub(super) const REVISION: u16 = 2;
const EXTENSION_DATA: u16 = 3;

/// Bytes of an interface name in the kernel, its terminating zero included.
const IFNAMSIZ: usize = 16;

/// What becomes of a packet that a rule matched.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    /// Lost without an answer.
    Drop,
    /// Seen no more by this chain and those that led to it; by other base chains it is.
    Accept,
    /// Goes on in another chain, and comes back.
    Jump(&'static str),
}

/// The expressions of one rule, in the order the kernel evaluates them.
#[derive(Debug, Default)]
pub(crate) struct Expressions(Vec<u8>);

impl Expressions {
    /// As the kernel takes them.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.0
    }

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

    /// The packet is one of IPv4, which in tables of both families not all are.
    pub(crate) fn of_ipv4(self) -> Self {
        self.meta(META_NFPROTO).compare(CMP_EQ, &[NFPROTO_IPV4])
    }

    /// An answer, or else something that belongs to a connection there is.
    pub(crate) fn belongs_to_connection(self) -> Self {
        let states = CT_STATE_ESTABLISHED | CT_STATE_RELATED;
        self.connection(CT_STATE, states)
    }

    /// The connection's destination was rewritten.
    pub(crate) fn was_translated(self) -> Self {
        self.connection(CT_STATUS, IPS_DST_NAT)
    }

    /// What a match of ip_tables with this name and revision says to `data`.
    pub(crate) fn extension(self, (name, revision): (&str, u32), data: &[u8]) -> Self {
        let body = [
            text(MATCH, name),
            number(REVISION, revision),
            attribute(EXTENSION_DATA, data),
        ];
        self.push("match", &body.concat())
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
        let code = |code: i32| attribute(1, &code.to_be_bytes());
        let body = match verdict {
            Verdict::Drop => code(NF_DROP),
            Verdict::Accept => code(NF_ACCEPT),
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

    /// One of `bits` is set in the connection's `key`.
    fn connection(self, key: u32, bits: u32) -> Self {
        self.push("ct", &[number(1, REG_1), number(2, key)].concat())
            .mask(&bits.to_ne_bytes())
            .compare(CMP_NEQ, &[0; 4])
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

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_its_name_and_nested_data() {
        let expression = Expressions::default().meta(META_L4PROTO).0;
        let data = [8, 0, 1, 0, 0, 0, 0, 1, 8, 0, 2, 0, 0, 0, 0, 16];
        let name = [9, 0, 1, 0, b'm', b'e', b't', b'a', 0, 0, 0, 0];
        let expected = [&[36, 0, 1, 0x80], &name[..], &[20, 0, 2, 0x80], &data].concat();
        assert_eq!(expression, expected);
    }

    #[test]
    fn names_of_interfaces_are_bounded() {
        assert_eq!(interface_name("br0")[..4], [b'b', b'r', b'0', 0]);
        assert_eq!(interface_name(&"x".repeat(40))[15], 0);
    }
}
