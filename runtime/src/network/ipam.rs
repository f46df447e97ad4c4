//! Which subnet the bridge gets, and which address a module. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ContainerId;

/// An IPv4 network such as `172.18.0.0/16`, with room for a gateway and a module: the
/// prefix has 8 to 29 bits and the address no bit beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Subnet {
    network: Ipv4Addr,
    prefix: u8,
}

/// Text or numbers that are no [`Ipv4Subnet`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid subnet {0:?}: expected a network address and a prefix of 8 to 29, as 172.18.0.0/16"
)]
pub struct InvalidSubnet(pub String);

/// Routes shorter than this count as default routes: a VPN halves 0.0.0.0/0 in two.
const SHORTEST_ROUTE: u8 = 8;

impl Ipv4Subnet {
    /// The subnet `network/prefix`.
    ///
    /// # Errors
    /// [`InvalidSubnet`] if the prefix is out of 8..=29 or `network` has bits beyond it.
    pub fn new(network: Ipv4Addr, prefix: u8) -> Result<Self, InvalidSubnet> {
        let subnet = Self { network, prefix };
        let valid = (8..=29).contains(&prefix) && network & !subnet.mask() == Ipv4Addr::UNSPECIFIED;
        if valid {
            Ok(subnet)
        } else {
            Err(InvalidSubnet(subnet.to_string()))
        }
    }

    /// The subnet that an interface's `address/prefix` lies in.
    pub(crate) fn containing(address: Ipv4Addr, prefix: u8) -> Result<Self, InvalidSubnet> {
        Self::new(address & mask(prefix), prefix)
    }

    /// First address of the subnet, the network's own.
    #[must_use]
    pub fn network(&self) -> Ipv4Addr {
        self.network
    }

    /// Bits of the prefix.
    #[must_use]
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// The bridge's address: the first that a host may have.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + 1)
    }

    /// Last address.
    #[must_use]
    pub fn broadcast(&self) -> Ipv4Addr {
        self.network | !self.mask()
    }

    pub(crate) fn mask(&self) -> Ipv4Addr {
        mask(self.prefix)
    }

    fn contains(&self, address: Ipv4Addr) -> bool {
        address & self.mask() == self.network
    }

    /// Whether a route to `network/prefix` and this subnet share addresses. Default
    /// routes, and those shorter than 8 bits, never do.
    pub(crate) fn overlaps(&self, (network, prefix): Route) -> bool {
        let common = mask(self.prefix.min(prefix));
        prefix >= SHORTEST_ROUTE && self.network & common == network & common
    }
}

/// Destination of a route.
pub(crate) type Route = (Ipv4Addr, u8);

fn mask(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(
        u32::MAX
            .checked_shl(32 - u32::from(prefix.min(32)))
            .unwrap_or(0),
    )
}

/// The first of Docker's default networks that no route overlaps: 172.17.0.0/16 is left
/// to Docker itself, then 172.18.0.0/16 to 172.31.0.0/16, then 192.168.0.0/20 and on.
pub(crate) fn choose_subnet(routes: &[Route]) -> Option<Ipv4Subnet> {
    let large = (18..=31).map(|n| (Ipv4Addr::new(172, n, 0, 0), 16));
    let small = (0..=15).map(|n| (Ipv4Addr::new(192, 168, n * 16, 0), 20));
    large
        .chain(small)
        .map(|(network, prefix)| Ipv4Subnet { network, prefix })
        .find(|subnet| !routes.iter().any(|route| subnet.overlaps(*route)))
}

/// Addresses that were given out, current and past: a module finds its own again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Leases(BTreeMap<ContainerId, Ipv4Addr>);

impl Leases {
    /// Gives `id` an address of `subnet` that none of `used` is: `preferred`, else the one
    /// it had before, else the lowest that nobody had, else the lowest free one.
    ///
    /// `None` if all are in use.
    pub(crate) fn allocate(
        &mut self,
        subnet: Ipv4Subnet,
        id: &ContainerId,
        preferred: Option<Ipv4Addr>,
        used: &[Ipv4Addr],
    ) -> Option<Ipv4Addr> {
        self.0.retain(|_, address| subnet.contains(*address));
        let first = u32::from(subnet.gateway()) + 1;
        let range = first..u32::from(subnet.broadcast());
        let free =
            |address: &Ipv4Addr| range.contains(&u32::from(*address)) && !used.contains(address);
        let earlier = self.0.get(id).copied();
        let untouched = || {
            let past: Vec<_> = self.0.values().copied().collect();
            range
                .clone()
                .map(Ipv4Addr::from)
                .find(|a| free(a) && !past.contains(a))
        };
        let address = preferred
            .filter(free)
            .or(earlier.filter(free))
            .or_else(untouched)
            .or_else(|| range.clone().map(Ipv4Addr::from).find(free))?;
        self.0.retain(|_, past| *past != address);
        self.0.insert(id.clone(), address);
        Some(address)
    }
}

impl fmt::Display for Ipv4Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Ipv4Subnet {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSubnet(text.to_owned());
        let (network, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let network = network.parse().map_err(|_| invalid())?;
        Self::new(network, prefix.parse().map_err(|_| invalid())?)
    }
}

impl TryFrom<String> for Ipv4Subnet {
    type Error = InvalidSubnet;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Ipv4Subnet> for String {
    fn from(subnet: Ipv4Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Ipv4Subnet {
        text.parse().unwrap()
    }

    fn route(text: &str) -> Route {
        let (network, prefix) = text.split_once('/').unwrap();
        (network.parse().unwrap(), prefix.parse().unwrap())
    }

    fn id(text: &str) -> ContainerId {
        ContainerId::try_from(text).unwrap()
    }

    #[test]
    fn subnets_are_checked() {
        let good = subnet("10.1.2.0/29");
        assert_eq!(good.gateway(), Ipv4Addr::new(10, 1, 2, 1));
        assert_eq!(good.broadcast(), Ipv4Addr::new(10, 1, 2, 7));
        for bad in [
            "",
            "10.0.0.0",
            "10.0.0.1/24",
            "10.0.0.0/30",
            "10.0.0.0/7",
            "10.0.0.0/x",
            "::/16",
        ] {
            assert_eq!(
                bad.parse::<Ipv4Subnet>(),
                Err(InvalidSubnet(bad.to_owned())),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_route_within_or_around_overlaps() {
        let net = subnet("172.18.0.0/16");
        for (text, overlaps) in [
            ("0.0.0.0/0", false),
            ("128.0.0.0/1", false),
            ("172.16.0.0/12", true),
            ("172.18.0.0/16", true),
            ("172.18.9.0/24", true),
            ("172.18.0.1/32", true),
            ("172.19.0.0/16", false),
            ("10.0.0.0/8", false),
        ] {
            assert_eq!(net.overlaps(route(text)), overlaps, "{text}");
        }
    }

    #[test]
    fn the_subnet_is_the_first_without_a_route() {
        assert_eq!(choose_subnet(&[]), Some(subnet("172.18.0.0/16")));
        let taken = [route("172.18.4.0/24"), route("172.19.0.0/16")];
        assert_eq!(choose_subnet(&taken), Some(subnet("172.20.0.0/16")));
        let private = [route("172.16.0.0/12"), route("192.168.1.0/24")];
        assert_eq!(choose_subnet(&private), Some(subnet("192.168.16.0/20")));
        assert_eq!(
            choose_subnet(&[route("172.16.0.0/12"), route("192.168.0.0/16")]),
            None
        );
    }

    #[test]
    fn a_module_gets_its_address_again_unless_another_needs_it() {
        let net = subnet("10.0.0.0/29");
        let at = |n| Ipv4Addr::new(10, 0, 0, n);
        let mut leases = Leases::default();
        assert_eq!(leases.allocate(net, &id("a"), None, &[]), Some(at(2)));
        assert_eq!(
            leases.allocate(net, &id("b"), None, &[]),
            Some(at(3)),
            "a may return"
        );
        assert_eq!(leases.allocate(net, &id("a"), None, &[at(3)]), Some(at(2)));
        assert_eq!(
            leases.allocate(net, &id("c"), Some(at(6)), &[]),
            Some(at(6))
        );
        assert_eq!(
            leases.allocate(net, &id("d"), Some(at(7)), &[]),
            Some(at(4)),
            "broadcast"
        );
        assert_eq!(leases.allocate(net, &id("e"), None, &[]), Some(at(5)));
        let used = [at(3), at(4), at(5), at(6)];
        assert_eq!(
            leases.allocate(net, &id("f"), None, &used),
            Some(at(2)),
            "a is gone"
        );
        assert_eq!(
            leases.allocate(net, &id("a"), None, &[at(2), at(3), at(4), at(5), at(6)]),
            None
        );
    }
}
