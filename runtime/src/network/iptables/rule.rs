//! The ip_tables wire format of one rule: selector, matches, target.
//!
//! Structures are those of `linux/netfilter_ipv4/ip_tables.h` and of the extensions' own
//! headers. Numbers are native but for addresses and the ports of a translation. Knows
//! nothing of what rules are for.

use std::net::Ipv4Addr;

use super::blob::{Entry, Leads};
use crate::Protocol;

/// Bytes of `struct ipt_entry`, before the matches.
pub(super) const ENTRY: usize = 112;
/// Bytes of `struct xt_entry_match`, before the extension's own.
pub(super) const EXTENSION: usize = 32;
/// What the kernel aligns extensions to: a 64-bit number.
const ALIGNMENT: usize = 8;

/// Where things are in `struct ipt_entry`.
mod at {
    pub(super) const SOURCE: usize = 0;
    pub(super) const DESTINATION: usize = 4;
    pub(super) const SOURCE_MASK: usize = 8;
    pub(super) const DESTINATION_MASK: usize = 12;
    pub(super) const INPUT: usize = 16;
    pub(super) const OUTPUT: usize = 32;
    /// Masks lie behind both names.
    pub(super) const INTERFACE_MASK: usize = 32;
    pub(super) const PROTOCOL: usize = 80;
    pub(super) const INVERTED: usize = 83;
}

const INVERTED_OUTPUT: u8 = 0x02;

/// Verdicts of the standard target: minus the kernel's number, minus one.
pub(super) const DROP: i32 = -1;
pub(super) const ACCEPT: i32 = -2;
pub(super) const RETURN: i32 = -5;

/// Extensions that the rules here are made of: whether a match (or a target), name, and
/// revision.
pub(super) const EXTENSIONS: [(bool, &str, u8); 6] = [
    (true, "addrtype", 1),
    (true, "conntrack", 3),
    (true, "tcp", 0),
    (true, "udp", 0),
    (false, "DNAT", 0),
    (false, "MASQUERADE", 0),
];

/// Revisions of the DNAT target that can be written; the best is the first that the kernel
/// knows (since Linux 4.17, or always).
pub(super) const TRANSLATIONS: [u8; 2] = [2, 0];

/// States of a connection, as the conntrack extension numbers them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State {
    Invalid = 1,
    Established = 1 << 1,
    Related = 1 << 2,
    New = 1 << 3,
    /// Its destination was rewritten.
    Translated = 1 << 7,
}

impl State {
    /// Those of packets that modules are to get from beyond their bridge.
    pub(crate) const KNOWN: [Self; 3] = [Self::Established, Self::Related, Self::Translated];
}

/// A rule in the making: everything matches, until narrowed.
#[derive(Debug)]
pub(super) struct Rule(Vec<u8>);

impl Rule {
    pub(super) fn new() -> Self {
        Self(vec![0; ENTRY])
    }

    pub(super) fn source_in(self, network: Ipv4Addr, prefix: u8) -> Self {
        self.address_in(at::SOURCE, at::SOURCE_MASK, (network, prefix))
    }

    pub(super) fn destination_in(self, network: Ipv4Addr, prefix: u8) -> Self {
        self.address_in(at::DESTINATION, at::DESTINATION_MASK, (network, prefix))
    }

    pub(super) fn arrives_at(self, interface: &str) -> Self {
        self.interface(at::INPUT, interface)
    }

    pub(super) fn leaves_by(self, interface: &str) -> Self {
        self.interface(at::OUTPUT, interface)
    }

    pub(super) fn leaves_not_by(self, interface: &str) -> Self {
        self.leaves_by(interface)
            .put(at::INVERTED, &[INVERTED_OUTPUT])
    }

    /// The destination is an address of the host.
    pub(super) fn destination_is_local(self) -> Self {
        const LOCAL: u16 = 1 << 2;
        let any_source: u16 = 0;
        let flags: u32 = 0;
        let data = [
            &any_source.to_ne_bytes()[..],
            &LOCAL.to_ne_bytes(),
            &flags.to_ne_bytes(),
        ];
        self.extend(&extension("addrtype", 1, &data.concat()))
    }

    pub(super) fn destination_port(self, protocol: Protocol, port: u16) -> Self {
        let (number, name, rest): (u16, _, &[u8]) = match protocol {
            Protocol::Tcp => (6, "tcp", &[0; 4]),
            Protocol::Udp => (17, "udp", &[0; 2]),
        };
        let mut data: Vec<u8> = [0, u16::MAX, port, port]
            .iter()
            .flat_map(|port| port.to_ne_bytes())
            .collect();
        data.extend(rest);
        self.put(at::PROTOCOL, &number.to_ne_bytes())
            .extend(&extension(name, 0, &data))
    }

    /// The connection is in one of `states`.
    pub(super) fn in_state(self, states: &[State]) -> Self {
        self.extend(&extension("conntrack", 3, &connection_states(states)))
    }

    /// Ends the rule with a verdict that is no jump.
    pub(super) fn verdict(self, verdict: i32) -> Entry {
        self.finish(&extension("", 0, &verdict.to_ne_bytes()), Leads::Nowhere)
    }

    /// Ends the rule with a jump to a chain of the same table.
    pub(super) fn jump(self, chain: &str) -> Entry {
        let target = extension("", 0, &0_i32.to_ne_bytes());
        self.finish(&target, Leads::Chain(chain.to_owned()))
    }

    /// `revision` is of the DNAT target, one of [`TRANSLATIONS`]: a program that lists the
    /// rules may know only the one it would use itself.
    pub(super) fn translate_destination(self, revision: u8, to: (Ipv4Addr, u16)) -> Entry {
        const ADDRESS_AND_PORT: u32 = 1 | 2;
        let (address, port) = to;
        let data = match revision {
            2 => wide_range(ADDRESS_AND_PORT, address, port),
            _ => range(ADDRESS_AND_PORT, address, port),
        };
        self.finish(&extension("DNAT", revision, &data), Leads::Nowhere)
    }

    pub(super) fn masquerade(self) -> Entry {
        let target = extension("MASQUERADE", 0, &range(0, Ipv4Addr::UNSPECIFIED, 0));
        self.finish(&target, Leads::Nowhere)
    }

    /// The entry that begins a chain of the user's.
    pub(super) fn chain_header(name: &str) -> Entry {
        let mut label = [0; 30];
        let length = name.len().min(label.len() - 1);
        label[..length].copy_from_slice(&name.as_bytes()[..length]);
        Self::new().finish(&extension("ERROR", 0, &label), Leads::Nowhere)
    }

    fn finish(mut self, target: &[u8], leads: Leads) -> Entry {
        let place = self.0.len();
        self.0.extend(target);
        let sizes = [place, self.0.len()]
            .map(|size| u16::try_from(size).expect("invariant: rules of ours are small"));
        self.put(88, &sizes[0].to_ne_bytes())
            .put(90, &sizes[1].to_ne_bytes())
            .into_entry(leads)
    }

    fn into_entry(self, leads: Leads) -> Entry {
        Entry {
            bytes: self.0,
            leads,
            before: None,
        }
    }

    fn address_in(self, place: usize, mask_place: usize, of: (Ipv4Addr, u8)) -> Self {
        let (network, prefix) = of;
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let network = u32::from(network) & mask;
        self.put(place, &network.to_be_bytes())
            .put(mask_place, &mask.to_be_bytes())
    }

    fn interface(self, place: usize, name: &str) -> Self {
        let length = name.len().min(15);
        // The terminating zero is compared as well: not a prefix, but this name.
        let mask = vec![0xff; length + 1];
        self.put(place, &name.as_bytes()[..length])
            .put(place + at::INTERFACE_MASK, &mask)
    }

    fn put(mut self, place: usize, bytes: &[u8]) -> Self {
        self.0[place..place + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn extend(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
}

/// `struct xt_conntrack_mtinfo3` that asks for states alone.
pub(crate) fn connection_states(states: &[State]) -> [u8; 164] {
    const MATCH_STATE: u16 = 1;
    let mask = states.iter().fold(0, |mask, state| mask | *state as u16);
    let mut data = [0; 164];
    data[146..148].copy_from_slice(&MATCH_STATE.to_ne_bytes());
    data[150..152].copy_from_slice(&mask.to_ne_bytes());
    data
}

/// `struct nf_nat_ipv4_multi_range_compat` of one range.
fn range(flags: u32, address: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend(1_u32.to_ne_bytes());
    data.extend(flags.to_ne_bytes());
    data.extend([address.octets(), address.octets()].concat());
    data.extend([port.to_be_bytes(), port.to_be_bytes()].concat());
    data
}

/// `struct nf_nat_range2` of one address and port.
fn wide_range(flags: u32, address: Ipv4Addr, port: u16) -> Vec<u8> {
    let wide = [&address.octets()[..], &[0; 12]].concat();
    let port = port.to_be_bytes();
    let mut data = flags.to_ne_bytes().to_vec();
    for part in [&wide[..], &wide, &port, &port, &[0; 4]] {
        data.extend(part);
    }
    data
}

/// A match or target with its header; both have the same.
fn extension(name: &str, revision: u8, data: &[u8]) -> Vec<u8> {
    let size = (EXTENSION + data.len()).next_multiple_of(ALIGNMENT);
    let mut bytes = vec![0; size];
    let length = u16::try_from(size).expect("invariant: extensions are small");
    bytes[..2].copy_from_slice(&length.to_ne_bytes());
    bytes[2..2 + name.len()].copy_from_slice(name.as_bytes());
    bytes[31] = revision;
    bytes[EXTENSION..EXTENSION + data.len()].copy_from_slice(data);
    bytes
}
