//! Bridge, veth pairs, addresses and routes over rtnetlink.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::ipam::{Ipv4Subnet, Route};
use super::mtu;
use super::netlink::Netlink;
use crate::ContainerId;

/// What every host side of a veth pair of ours starts with.
const VETH_PREFIX: &str = "kb";

/// The interface inside a module, as Docker names it.
pub(super) const INSIDE: &str = "eth0";

/// Index of the loopback interface in every namespace.
const LOOPBACK: u32 = 1;

const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;

/// The bridge on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bridge {
    /// Of its interface.
    pub(super) index: u32,
    /// Largest packet in bytes, as its ports have it too.
    pub(super) mtu: u32,
}

/// What is joined to the bridge.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Port<'a> {
    pub(crate) id: &'a ContainerId,
    pub(crate) netns: &'a File,
    pub(crate) address: Ipv4Addr,
}

/// Looks the bridge up, and its subnet, where it has an address.
///
/// # Errors
/// `AlreadyExists` if an interface of that name is something else than a bridge.
pub(crate) fn find_bridge(
    netlink: &mut Netlink,
    name: &str,
) -> io::Result<Option<(Bridge, Option<Ipv4Subnet>)>> {
    let Some(link) = find(netlink, name)? else {
        return Ok(None);
    };
    if !is_bridge(&link) {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists));
    }
    let bridge = bridge_of(&link);
    let mut query = AddressMessage::default();
    query.header.family = AddressFamily::Inet;
    let addresses = netlink.dump(RouteNetlinkMessage::GetAddress(query))?;
    let subnet = addresses
        .iter()
        .find_map(|message| subnet_of(message, bridge.index));
    Ok(Some((bridge, subnet)))
}

/// Makes the bridge `name` with the gateway address of `subnet`; it is still down.
pub(crate) fn create_bridge(
    netlink: &mut Netlink,
    name: &str,
    subnet: Ipv4Subnet,
) -> io::Result<Bridge> {
    let mut link = named(name, &[LinkInfo::Kind(InfoKind::Bridge)]);
    // A bridge without an address of its own takes on that of its ports, and changes it
    // with every module.
    link.attributes
        .push(LinkAttribute::Address(mac(subnet.gateway())));
    netlink.request(RouteNetlinkMessage::NewLink(link), CREATE)?;
    let created = find(netlink, name)?.ok_or(io::ErrorKind::NotFound)?;
    let bridge = bridge_of(&created);
    add_address(netlink, bridge.index, subnet.gateway(), subnet.prefix())?;
    Ok(bridge)
}

/// Turns the bridge called `name` and routing on, if they are not. The bridge speaks no IPv6: a
/// module may send what it wants, also advertisements of a router that the host would follow.
pub(crate) fn activate(netlink: &mut Netlink, bridge: Bridge, name: &str) -> io::Result<()> {
    match enable(&format!("net/ipv6/conf/{name}/disable_ipv6")) {
        // A kernel without IPv6.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        disabled => disabled?,
    }
    set_up(netlink, bridge.index)?;
    enable("net/ipv4/ip_forward")
}

/// Lets the host's own 127.0.0.1 be rewritten to a module's address behind the bridge.
pub(crate) fn route_localnet(bridge: &str) -> io::Result<()> {
    enable(&format!("net/ipv4/conf/{bridge}/route_localnet"))
}

/// Joins a namespace to the bridge by a veth pair, with the port's address inside.
pub(crate) fn connect(
    netlink: &mut Netlink,
    bridge: Bridge,
    subnet: Ipv4Subnet,
    port: Port<'_>,
) -> io::Result<()> {
    let Port { id, netns, address } = port;
    let outside = veth_name(id);
    let mut peer = named(INSIDE, &[]);
    peer.attributes.push(LinkAttribute::Mtu(bridge.mtu));
    peer.attributes.push(LinkAttribute::Address(mac(address)));
    peer.attributes
        .push(LinkAttribute::NetNsFd(netns.as_raw_fd()));
    let data = InfoData::Veth(InfoVeth::Peer(peer));
    let mut pair = named(
        &outside,
        &[LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)],
    );
    pair.attributes.push(LinkAttribute::Mtu(bridge.mtu));
    pair.attributes
        .push(LinkAttribute::Controller(bridge.index));
    netlink.request(RouteNetlinkMessage::NewLink(pair), CREATE)?;
    join(netlink, bridge, &outside)?;

    let mut inner = Netlink::route_in(netns.as_fd())?;
    let eth0 = find(&mut inner, INSIDE)?
        .ok_or(io::ErrorKind::NotFound)?
        .header
        .index;
    add_address(&mut inner, eth0, address, subnet.prefix())?;
    set_up(&mut inner, eth0)?;
    add_default_route(&mut inner, subnet.gateway())
}

/// Makes the interface `name` a port of the bridge, up; repeatable.
pub(crate) fn join(netlink: &mut Netlink, bridge: Bridge, name: &str) -> io::Result<()> {
    let found = find(netlink, name)?.ok_or(io::ErrorKind::NotFound)?;
    let index = found.header.index;
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes
        .push(LinkAttribute::Controller(bridge.index));
    netlink.request(RouteNetlinkMessage::SetLink(link), 0)?;
    hairpin(netlink, index)?;
    set_up(netlink, index)
}

/// Turns the loopback interface of `netns` on.
pub(crate) fn loopback_up(netns: &File) -> io::Result<()> {
    set_up(&mut Netlink::route_in(netns.as_fd())?, LOOPBACK)
}

/// Removes the interface `name`, and with it the other half of a pair; no error if it is
/// not there.
pub(crate) fn remove(netlink: &mut Netlink, name: &str) -> io::Result<()> {
    let Some(link) = find(netlink, name)? else {
        return Ok(());
    };
    let mut message = LinkMessage::default();
    message.header.index = link.header.index;
    match netlink.request(RouteNetlinkMessage::DelLink(message), 0) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other.map(drop),
    }
}

/// Whether there is an interface `name`.
pub(crate) fn exists(netlink: &mut Netlink, name: &str) -> io::Result<bool> {
    Ok(find(netlink, name)?.is_some())
}

/// Names of the interfaces that are ports of `bridge`.
pub(crate) fn ports(netlink: &mut Netlink, bridge: Bridge) -> io::Result<Vec<String>> {
    let links = netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    Ok(links
        .iter()
        .filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(&link.attributes),
            _ => None,
        })
        .filter(|attributes| attributes.contains(&LinkAttribute::Controller(bridge.index)))
        .filter_map(|attributes| {
            attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            })
        })
        .collect())
}

/// Destinations of all IPv4 routes, local ones too.
pub(crate) fn routes(netlink: &mut Netlink) -> io::Result<Vec<Route>> {
    Ok(list_routes(netlink)?
        .iter()
        .filter_map(destination)
        .collect())
}

/// All IPv4 routes.
pub(super) fn list_routes(netlink: &mut Netlink) -> io::Result<Vec<RouteNetlinkMessage>> {
    let mut query = RouteMessage::default();
    query.header.address_family = AddressFamily::Inet;
    netlink.dump(RouteNetlinkMessage::GetRoute(query))
}

/// Name of the host side of a module's veth pair: 12 bytes of the 15 a name may have.
///
/// The number is FNV-1a of the id, because names must be found again by a later agent.
pub(crate) fn veth_name(id: &ContainerId) -> String {
    let hash = id
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!("{VETH_PREFIX}{:010x}", hash >> 24)
}

/// Whether a name is one that [`veth_name`] makes.
pub(crate) fn is_veth_name(name: &str) -> bool {
    let number = name.strip_prefix(VETH_PREFIX);
    number.is_some_and(|hex| hex.len() == 10 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A locally administered hardware address that goes with an IPv4 address: a module that
/// gets its address again is the same neighbour as before.
fn mac(address: Ipv4Addr) -> Vec<u8> {
    [&[0x02, 0x6b], &address.octets()[..]].concat()
}

pub(super) fn find(netlink: &mut Netlink, name: &str) -> io::Result<Option<LinkMessage>> {
    ask(netlink, named(name, &[]))
}

/// The interface that `query` names, if there is one.
pub(super) fn ask(netlink: &mut Netlink, query: LinkMessage) -> io::Result<Option<LinkMessage>> {
    match netlink.request(RouteNetlinkMessage::GetLink(query), 0) {
        Ok(found) => Ok(found.into_iter().find_map(|message| match message {
            RouteNetlinkMessage::NewLink(link) => Some(link),
            _ => None,
        })),
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

fn named(name: &str, info: &[LinkInfo]) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    if !info.is_empty() {
        link.attributes.push(LinkAttribute::LinkInfo(info.to_vec()));
    }
    link
}

fn bridge_of(link: &LinkMessage) -> Bridge {
    Bridge {
        index: link.header.index,
        mtu: mtu::of(link),
    }
}

fn is_bridge(link: &LinkMessage) -> bool {
    link.attributes.iter().any(|attribute| {
        matches!(attribute, LinkAttribute::LinkInfo(info)
            if info.contains(&LinkInfo::Kind(InfoKind::Bridge)))
    })
}

/// Lets the bridge send a packet back out of the port it came in by: the way of a module
/// to itself through its published port, where the kernel rewrites the address while it
/// still bridges (`br_netfilter`, depending on its version).
fn hairpin(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(
            true,
        )])),
    ]));
    netlink
        .request(RouteNetlinkMessage::NewLink(link), 0)
        .map(drop)
}

fn set_up(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    netlink
        .request(RouteNetlinkMessage::SetLink(link), 0)
        .map(drop)
}

fn add_address(netlink: &mut Netlink, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = index;
    message.header.prefix_len = prefix;
    let host_bits = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address)),
        AddressAttribute::Address(IpAddr::V4(address)),
        AddressAttribute::Broadcast(Ipv4Addr::from(u32::from(address) | host_bits)),
    ];
    netlink
        .request(RouteNetlinkMessage::NewAddress(message), CREATE)
        .map(drop)
}

fn add_default_route(netlink: &mut Netlink, gateway: Ipv4Addr) -> io::Result<()> {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Static;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    route
        .attributes
        .push(RouteAttribute::Gateway(RouteAddress::Inet(gateway)));
    netlink
        .request(RouteNetlinkMessage::NewRoute(route), CREATE)
        .map(drop)
}

fn subnet_of(message: &RouteNetlinkMessage, index: u32) -> Option<Ipv4Subnet> {
    let RouteNetlinkMessage::NewAddress(message) = message else {
        return None;
    };
    if message.header.index != index {
        return None;
    }
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => {
                Ipv4Subnet::containing(*address, message.header.prefix_len).ok()
            }
            _ => None,
        })
}

fn destination(message: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(route) = message else {
        return None;
    };
    let prefix = route.header.destination_prefix_length;
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(network)) => Some((*network, prefix)),
            _ => None,
        })
}

/// Sets a boolean kernel parameter, unless it is set: `/proc/sys` may be read-only.
fn enable(parameter: &str) -> io::Result<()> {
    let path = format!("/proc/sys/{parameter}");
    if fs::read_to_string(&path)?.trim() == "1" {
        return Ok(());
    }
    fs::write(path, "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn veth_names_fit_and_never_change() {
        let name = |id: &str| veth_name(&ContainerId::try_from(id).unwrap());
        assert_eq!(name("led"), "kb127274191d");
        assert_ne!(name("led"), name("led2"));
        for id in ["led", &"x".repeat(64)] {
            assert!(
                name(id).len() <= 15 && is_veth_name(&name(id)),
                "{}",
                name(id)
            );
        }
        for foreign in ["kb", "kbd", "kbxyzxyzxyzx", "veth0123456789", "eth0"] {
            assert!(!is_veth_name(foreign), "{foreign}");
        }
    }
}
