//! Which ports of the host a module gets.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind as bind_socket, getsockname,
    setsockopt, socket, sockopt,
};
use serde::{Deserialize, Serialize};

use super::error::NetworkError;
use crate::{ContainerId, PortBinding, Protocol};

/// How often a free port is looked for before giving up: each try can only lose against
/// a port that a module has by rules, unseen by the kernel's choice.
const TRIES: usize = 64;

/// A port of the host that leads to a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedPort {
    /// Port the module listens on.
    pub container_port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// Address of the host; all IPv4 addresses where absent.
    pub host_ip: Option<IpAddr>,
    /// Port of the host, chosen where the binding left it open.
    pub host_port: u16,
}

impl fmt::Display for PublishedPort {
    /// As `docker ps` shows it: `0.0.0.0:8080->80/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = self.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let address = SocketAddr::new(ip, self.host_port);
        write!(f, "{address}->{}/{}", self.container_port, self.protocol)
    }
}

/// Resolved ports; each is bound, and so held against other processes, until dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) ports: Vec<PublishedPort>,
    pub(crate) sockets: Vec<OwnedFd>,
}

impl PublishedPort {
    /// Where the host listens, or would.
    pub(crate) fn listen(&self) -> SocketAddr {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        SocketAddr::new(self.host_ip.unwrap_or(any), self.host_port)
    }

    fn conflicts(&self, other: &Self) -> bool {
        let (a, b) = (self.listen(), other.listen());
        let both = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
        self.protocol == other.protocol
            && a.port() == b.port()
            && a.is_ipv4() == b.is_ipv4()
            && both
    }
}

/// Decides the host port of each binding of `id`, given the ports that others have.
///
/// # Errors
/// [`NetworkError::PortTaken`], [`NetworkError::PortInUse`] or [`NetworkError::Port`].
pub(crate) fn reserve(
    id: &ContainerId,
    bindings: &[PortBinding],
    others: &[(&ContainerId, PublishedPort)],
) -> Result<Reservation, NetworkError> {
    let mut taken = others.to_vec();
    let mut reservation = Reservation {
        ports: Vec::new(),
        sockets: Vec::new(),
    };
    for (i, binding) in bindings.iter().enumerate() {
        if bindings[..i].contains(binding) && binding.host_port.is_some() {
            continue;
        }
        let (port, socket) = reserve_one(binding, &taken)?;
        taken.push((id, port));
        reservation.ports.push(port);
        reservation.sockets.push(socket);
    }
    Ok(reservation)
}

fn reserve_one(
    binding: &PortBinding,
    taken: &[(&ContainerId, PublishedPort)],
) -> Result<(PublishedPort, OwnedFd), NetworkError> {
    let wanted = binding.host_port.unwrap_or(0);
    let protocol = binding.protocol;
    let mut losers = Vec::new();
    for _ in 0..TRIES {
        let mut port = PublishedPort {
            container_port: binding.container_port,
            protocol,
            host_ip: binding
                .host_ip
                .filter(|ip| *ip != IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            host_port: wanted,
        };
        let owner = |port: &PublishedPort| taken.iter().find(|(_, other)| other.conflicts(port));
        if wanted != 0
            && let Some((owner, _)) = owner(&port)
        {
            let owner = (*owner).clone();
            return Err(NetworkError::PortTaken {
                port: wanted,
                protocol,
                owner,
            });
        }
        let socket = bind(protocol, port.listen()).map_err(|source| bind_error(&port, source))?;
        port.host_port = local_port(&socket).map_err(|source| bind_error(&port, source))?;
        if owner(&port).is_none() {
            return Ok((port, socket));
        }
        // Kept, or the kernel may choose it again.
        losers.push(socket);
    }
    Err(NetworkError::PortInUse {
        port: wanted,
        protocol,
    })
}

/// A failed attempt to bind a port as what the operator is told.
pub(crate) fn bind_error(port: &PublishedPort, source: io::Error) -> NetworkError {
    let (protocol, port) = (port.protocol, port.host_port);
    if source.kind() == io::ErrorKind::AddrInUse {
        NetworkError::PortInUse { port, protocol }
    } else {
        NetworkError::Port {
            port,
            protocol,
            source,
        }
    }
}

/// A bound, non-blocking socket. IPv6 sockets take no IPv4: both may be published alone.
pub(crate) fn bind(protocol: Protocol, address: SocketAddr) -> io::Result<OwnedFd> {
    let (family, kind) = match (address, protocol) {
        (SocketAddr::V4(_), Protocol::Tcp) => (AddressFamily::Inet, SockType::Stream),
        (SocketAddr::V4(_), Protocol::Udp) => (AddressFamily::Inet, SockType::Datagram),
        (SocketAddr::V6(_), Protocol::Tcp) => (AddressFamily::Inet6, SockType::Stream),
        (SocketAddr::V6(_), Protocol::Udp) => (AddressFamily::Inet6, SockType::Datagram),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, kind, flags, None)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of an earlier listener that linger in TIME_WAIT are no conflict; on
        // UDP the option would share the port.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    bind_socket(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(fd)
}

fn local_port(socket: &OwnedFd) -> io::Result<u16> {
    let name: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let v4 = name
        .as_sockaddr_in()
        .map(nix::sys::socket::SockaddrIn::port);
    let v6 = name
        .as_sockaddr_in6()
        .map(nix::sys::socket::SockaddrIn6::port);
    v4.or(v6)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(host_port: Option<u16>, host_ip: Option<&str>) -> PortBinding {
        PortBinding {
            container_port: 80,
            protocol: Protocol::Udp,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port,
        }
    }

    #[test]
    fn an_open_host_port_is_chosen_and_held() {
        let id = ContainerId::try_from("a").unwrap();
        let two = [
            binding(None, Some("127.0.0.1")),
            binding(None, Some("127.0.0.1")),
        ];
        let held = reserve(&id, &two, &[]).unwrap();
        let [a, b] = held.ports[..] else {
            panic!("{held:?}")
        };
        assert_ne!(a.host_port, b.host_port);
        let again = [binding(Some(a.host_port), Some("127.0.0.1"))];
        let error = reserve(&id, &again, &[]).unwrap_err();
        assert!(matches!(error, NetworkError::PortInUse { port, .. } if port == a.host_port));
        drop(held);
        let held = reserve(&id, &[again[0], again[0]], &[]).unwrap();
        assert_eq!(held.ports.len(), 1, "the same binding twice is one");
    }

    #[test]
    fn modules_conflict_on_the_same_address_or_all() {
        let port = |ip: Option<&str>| PublishedPort {
            container_port: 1,
            protocol: Protocol::Tcp,
            host_ip: ip.map(|ip| ip.parse().unwrap()),
            host_port: 80,
        };
        for (a, b, conflict) in [
            (None, None, true),
            (None, Some("127.0.0.1"), true),
            (Some("127.0.0.1"), Some("127.0.0.1"), true),
            (Some("127.0.0.1"), Some("127.0.0.2"), false),
            (None, Some("::"), false),
            (Some("::1"), Some("::"), true),
        ] {
            assert_eq!(port(a).conflicts(&port(b)), conflict, "{a:?} {b:?}");
        }
        let udp = PublishedPort {
            protocol: Protocol::Udp,
            ..port(None)
        };
        assert!(!port(None).conflicts(&udp));
    }
}
