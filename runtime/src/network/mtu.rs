//! How large packets may be on the modules' network: as large as on the way out of the device,
//! so that nothing has to be told to send less, or gets lost where nobody is told.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteType};

use super::link::{self, Bridge};
use super::netlink::Netlink;
use super::record::Record;
use super::{Network, State};

/// Bytes of a packet that the modules' network can be set to: what every host takes by IPv4,
/// up to what a bridge can have.
pub const MTU: RangeInclusive<u32> = 576..=65535;

/// Of Ethernet, and of a bridge that was not told.
const USUAL: u32 = 1500;

impl Network {
    /// Gives the bridge and all that is on it the MTU that they shall have by now: that of the
    /// configuration, or else of the default route's link, or else the one they have.
    pub(super) fn adopt_mtu(
        &self,
        netlink: &mut Netlink,
        state: &State,
        bridge: Bridge,
    ) -> io::Result<Bridge> {
        let mtu = match self.config.mtu {
            Some(mtu) => Some(mtu),
            None => uplink(netlink)?,
        };
        let mtu = mtu.map_or(bridge.mtu, |mtu| mtu.clamp(*MTU.start(), *MTU.end()));
        if mtu == bridge.mtu {
            return Ok(bridge);
        }
        let records = state.records.values();
        for record in records.filter(|record| record.attachment.address.is_some()) {
            if let Err(error) = set_of_module(netlink, record, mtu) {
                let container = &record.attachment.id;
                tracing::warn!(%container, %error, mtu, "cannot set the MTU of a module's link");
            }
        }
        match set(netlink, bridge.index, mtu) {
            // Before Linux 4.16 a bridge has the smallest of its ports and cannot be told more.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            other => other?,
        }
        Ok(Bridge { mtu, ..bridge })
    }
}

/// The MTU of a link.
pub(super) fn of(link: &LinkMessage) -> u32 {
    let mtu = link
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
    mtu.unwrap_or(USUAL)
}

/// The MTU of the link that the default route leads to; of several routes the one that the
/// kernel takes.
fn uplink(netlink: &mut Netlink) -> io::Result<Option<u32>> {
    let routes = link::list_routes(netlink)?;
    let Some((_, index)) = routes.iter().filter_map(default_route).min() else {
        return Ok(None);
    };
    let mut query = LinkMessage::default();
    query.header.index = index;
    let link = link::ask(netlink, query)?;
    let leads_out = |link: &LinkMessage| !link.header.flags.contains(LinkFlags::Loopback);
    Ok(link.filter(leads_out).map(|link| of(&link)))
}

/// Metric and link of a default route.
fn default_route(message: &RouteNetlinkMessage) -> Option<(u32, u32)> {
    let RouteNetlinkMessage::NewRoute(route) = message else {
        return None;
    };
    let header = &route.header;
    let is_default = header.destination_prefix_length == 0
        && header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast;
    let (mut metric, mut index) = (0, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(link) => index = Some(*link),
            RouteAttribute::MultiPath(hops) => {
                index = index.or(hops.first().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    index.filter(|_| is_default).map(|index| (metric, index))
}

/// Both ends of a module's link; no error where there is none.
fn set_of_module(netlink: &mut Netlink, record: &Record, mtu: u32) -> io::Result<()> {
    let attachment = &record.attachment;
    set_named(netlink, &link::veth_name(&attachment.id), mtu)?;
    let netns = match File::open(&attachment.netns) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    set_named(&mut Netlink::route_in(netns.as_fd())?, link::INSIDE, mtu)
}

fn set_named(netlink: &mut Netlink, name: &str, mtu: u32) -> io::Result<()> {
    match link::find(netlink, name)? {
        Some(link) => set(netlink, link.header.index, mtu),
        None => Ok(()),
    }
}

fn set(netlink: &mut Netlink, index: u32, mtu: u32) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.attributes.push(LinkAttribute::Mtu(mtu));
    netlink
        .request(RouteNetlinkMessage::SetLink(link), 0)
        .map(drop)
}
