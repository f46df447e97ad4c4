//! Blocking request and answer over a netlink socket; knows no family's messages but
//! rtnetlink's. It never waits longer than [`TIMEOUT`] for the kernel.

pub(crate) mod attributes;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, Parseable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

/// Seconds to wait for an answer. The kernel answers within the send, so running into
/// this is a fault; without it a lost answer would hang the agent.
const TIMEOUT: i64 = 10;

/// Bytes of send buffer: a batch is one datagram, and a rule takes about 500 bytes.
const SEND_BUFFER: usize = 4 << 20;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// A netlink socket; it stays in the network namespace it was opened in.
pub(crate) struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Opens a rtnetlink socket in the caller's network namespace.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(protocols::NETLINK_ROUTE)
    }

    /// Opens a netfilter socket in the caller's network namespace.
    pub(crate) fn netfilter() -> io::Result<Self> {
        let netlink = Self::open(protocols::NETLINK_NETFILTER)?;
        setsockopt(&netlink.socket, sockopt::SndBufForce, &SEND_BUFFER)?;
        Ok(netlink)
    }

    /// Opens a rtnetlink socket in the namespace `netns`, by way of a thread that ends:
    /// a thread of the agent itself must never change its namespace.
    pub(crate) fn route_in(netns: BorrowedFd<'_>) -> io::Result<Self> {
        thread::scope(|scope| {
            let open = thread::Builder::new().spawn_scoped(scope, || {
                setns(netns, CloneFlags::CLONE_NEWNET)?;
                Self::route()
            })?;
            open.join()
                .expect("invariant: opening a socket does not panic")
        })
    }

    fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        setsockopt(
            &socket.as_fd(),
            sockopt::ReceiveTimeout,
            &TimeVal::seconds(TIMEOUT),
        )?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Sends `message` and waits until the kernel has done it.
    ///
    /// Returns what it sent back before the acknowledgement.
    pub(crate) fn request(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.query(message, flags | NLM_F_ACK)
    }

    /// Lists every object of the kind of `message`. An object this version cannot decode
    /// is left out, for new kernels add attributes.
    pub(crate) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.query(message, NLM_F_DUMP)
    }

    /// Sends an encoded batch, of which only the message numbered `last` asks for an
    /// acknowledgement; an error of any other one is reported before that.
    ///
    /// # Errors
    /// The first error the kernel reports; then nothing of the batch took effect.
    pub(crate) fn batch(&mut self, batch: &[u8], last: u32) -> io::Result<()> {
        self.socket.send(batch, 0)?;
        self.receive(last).map(drop)
    }

    /// Sends one encoded message, numbered `sequence`, and returns the payloads of the
    /// answers up to its acknowledgement or the end of its dump.
    pub(crate) fn exchange(&mut self, message: &[u8], sequence: u32) -> io::Result<Vec<Vec<u8>>> {
        self.socket.send(message, 0)?;
        let answers = self.receive(sequence)?;
        Ok(answers.into_iter().map(|(_, payload)| payload).collect())
    }

    fn query(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence += 1;
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let answers = self.receive(self.sequence)?;
        let decode = |(header, payload): &(NetlinkHeader, Vec<u8>)| {
            RouteNetlinkMessage::deserialize(header, payload).ok()
        };
        Ok(answers.iter().filter_map(decode).collect())
    }

    /// Reads answers up to the acknowledgement of message `last` or the end of its dump.
    fn receive(&mut self, last: u32) -> io::Result<Vec<(NetlinkHeader, Vec<u8>)>> {
        let mut answers = Vec::new();
        loop {
            let datagram = match self.socket.recv_from_full() {
                Ok((datagram, _)) => datagram,
                // A socket with a timeout is not restarted after a signal.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            for (header, payload) in split(&datagram)? {
                let ends = header.sequence_number == last;
                match header.message_type {
                    NLMSG_ERROR => acknowledged(payload)?,
                    NLMSG_DONE => {}
                    _ => {
                        answers.push((header, payload.to_vec()));
                        continue;
                    }
                }
                if ends {
                    return Ok(answers);
                }
            }
        }
    }
}

/// Encodes a netfilter message of `(kind, flags)`; `(family, resource)` fill the header
/// that all of netfilter's have. The body is padded already.
pub(crate) fn netfilter_message(
    (kind, flags): (u16, u16),
    sequence: u32,
    (family, resource): (u8, u16),
    body: &[u8],
) -> Vec<u8> {
    let length = u32::try_from(HEADER + 4 + body.len()).expect("invariant: a message is small");
    let mut bytes = Vec::with_capacity(HEADER + 4 + body.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend([family, 0]);
    bytes.extend(resource.to_be_bytes());
    bytes.extend(body);
    bytes
}

/// The messages of one datagram, each as header and payload.
fn split(mut datagram: &[u8]) -> io::Result<Vec<(NetlinkHeader, &[u8])>> {
    let mut messages = Vec::new();
    while !datagram.is_empty() {
        let (header, length) = {
            let buffer = NetlinkBuffer::new_checked(&datagram).map_err(io::Error::other)?;
            let header = NetlinkHeader::parse(&buffer).map_err(io::Error::other)?;
            (header, buffer.length() as usize)
        };
        messages.push((header, &datagram[HEADER..length]));
        datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
    }
    Ok(messages)
}

/// Bytes of a netlink message header.
const HEADER: usize = 16;

/// The outcome that an error message carries: 0 or a negated error number.
fn acknowledged(payload: &[u8]) -> io::Result<()> {
    let code = payload.first_chunk().map(|code| i32::from_ne_bytes(*code));
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
    }
}
