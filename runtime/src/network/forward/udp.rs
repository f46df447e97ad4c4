//! Forwarded UDP: a listening socket, and one connected socket per client.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};

/// How long a client that neither sends nor is sent to is remembered.
pub(super) const IDLE: Duration = Duration::from_secs(30);

/// Largest datagram.
pub(super) const MAX_DATAGRAM: usize = 64 << 10;

/// Who sent a datagram, and to which address of the host: its answer must come from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) client: SocketAddr,
    local: Option<Ipv4Addr>,
}

/// A published port.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) socket: OwnedFd,
    target: SocketAddr,
}

/// The socket that speaks to the module for one client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: UdpSocket,
    pub(super) listener: usize,
    pub(super) flow: Flow,
    last_used: Instant,
}

impl Listener {
    pub(super) fn new(socket: OwnedFd, listen: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        if listen.is_ipv4() {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        Ok(Self { socket, target })
    }

    /// The next datagram: its length in `buffer` and its flow.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Flow)> {
        let mut slices = [IoSliceMut::new(buffer)];
        let mut space = nix::cmsg_space!(libc::in_pktinfo);
        let fd = self.socket.as_raw_fd();
        let message =
            recvmsg::<SockaddrStorage>(fd, &mut slices, Some(&mut space), MsgFlags::empty())?;
        let local = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(from_network(info.ipi_spec_dst)),
            _ => None,
        });
        let sender = message.address.as_ref().and_then(address);
        let client = sender.ok_or(io::ErrorKind::InvalidData)?;
        Ok((message.bytes, Flow { client, local }))
    }

    /// Sends a module's answer to the client of `flow`.
    pub(super) fn answer(&self, flow: Flow, datagram: &[u8]) -> io::Result<()> {
        let info = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: to_network(flow.local.unwrap_or(Ipv4Addr::UNSPECIFIED)),
            ipi_addr: to_network(Ipv4Addr::UNSPECIFIED),
        };
        let controls = [ControlMessage::Ipv4PacketInfo(&info)];
        let controls = if flow.local.is_some() {
            &controls[..]
        } else {
            &[]
        };
        let to = SockaddrStorage::from(flow.client);
        let data = [IoSlice::new(datagram)];
        sendmsg(
            self.socket.as_raw_fd(),
            &data,
            controls,
            MsgFlags::empty(),
            Some(&to),
        )?;
        Ok(())
    }

    /// A new socket to the module for the client of `flow`.
    pub(super) fn client(&self, listener: usize, flow: Flow, now: Instant) -> io::Result<Client> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(self.target)?;
        socket.set_nonblocking(true)?;
        Ok(Client {
            socket,
            listener,
            flow,
            last_used: now,
        })
    }
}

impl Client {
    /// Passes a datagram to the module. One that it does not take is lost, as UDP's are.
    pub(super) fn send(&mut self, datagram: &[u8], now: Instant) {
        self.last_used = now;
        let _ = self.socket.send(datagram);
    }

    /// The module's next datagram.
    pub(super) fn receive(&mut self, buffer: &mut [u8], now: Instant) -> io::Result<usize> {
        let length = self.socket.recv(buffer)?;
        self.last_used = now;
        Ok(length)
    }

    pub(super) fn is_idle(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_used) >= IDLE
    }
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage
        .as_sockaddr_in()
        .map(|a| SocketAddr::V4(SocketAddrV4::from(*a)));
    v4.or_else(|| {
        storage
            .as_sockaddr_in6()
            .map(|a| SocketAddr::V6(SocketAddrV6::from(*a)))
    })
}

fn from_network(address: libc::in_addr) -> Ipv4Addr {
    Ipv4Addr::from(address.s_addr.to_ne_bytes())
}

fn to_network(address: Ipv4Addr) -> libc::in_addr {
    libc::in_addr {
        s_addr: u32::from_ne_bytes(address.octets()),
    }
}
