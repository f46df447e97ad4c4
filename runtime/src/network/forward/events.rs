//! The forwarder's epoll loop and its table of sockets.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{Backlog, listen};

use super::ForwardPort;
use super::tcp::{Connection, Progress};
use super::udp::{Client, Flow, Listener, MAX_DATAGRAM};
use crate::Protocol;
use crate::network::ports::bind;

/// Most connections and UDP clients at a time, where descriptors suffice.
const MAX_PEERS: rlim_t = 1024;
/// Descriptors of a connection: two sockets and two pipes.
const FDS_PER_PEER: rlim_t = 6;
/// Descriptors for everything else.
const FDS_RESERVED: rlim_t = 256;
/// How often idle UDP clients are looked for, and a paused listener tried again.
const TICK: Duration = Duration::from_secs(5);
/// Datagrams or connections taken from one socket before others get their turn.
const BURST: usize = 64;
/// The signal descriptor's token; all others are places in the table.
const SIGNAL: u64 = u64::MAX;

/// A forwarder with its ports bound.
pub(super) struct Forwarder {
    epoll: Epoll,
    terminated: SignalFd,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    flows: HashMap<(usize, Flow), usize>,
    /// Connections that had more to move when their turn ended.
    turns: BTreeSet<usize>,
    peers: rlim_t,
    max_peers: rlim_t,
    /// Listeners are not watched: there is no room for another connection.
    paused: bool,
    buffer: Vec<u8>,
}

enum Slot {
    TcpListener(TcpListener, SocketAddr),
    UdpListener(Listener),
    Connection(Box<Connection>),
    Client(Client),
}

impl Forwarder {
    /// A forwarder without ports. Blocks SIGTERM, to read it from a descriptor.
    pub(super) fn new() -> io::Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        signals.thread_block()?;
        let terminated = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&terminated, EpollEvent::new(EpollFlags::EPOLLIN, SIGNAL))?;
        Ok(Self {
            epoll,
            terminated,
            slots: Vec::new(),
            free: Vec::new(),
            flows: HashMap::new(),
            turns: BTreeSet::new(),
            peers: 0,
            max_peers: max_peers()?,
            paused: false,
            buffer: vec![0; MAX_DATAGRAM],
        })
    }

    /// Binds a port. What arrives waits in the kernel until [`Self::run`].
    pub(super) fn listen(&mut self, port: &ForwardPort, target: SocketAddr) -> io::Result<()> {
        let socket = bind(port.protocol, port.listen)?;
        let slot = match port.protocol {
            Protocol::Tcp => {
                listen(&socket, Backlog::MAXCONN)?;
                Slot::TcpListener(TcpListener::from(socket), target)
            }
            Protocol::Udp => Slot::UdpListener(Listener::new(socket, port.listen, target)?),
        };
        let index = self.insert(slot);
        match &self.slots[index] {
            Some(Slot::TcpListener(socket, _)) => self.watch(socket, index, EpollFlags::EPOLLIN),
            Some(Slot::UdpListener(udp)) => self.watch(&udp.socket, index, EpollFlags::EPOLLIN),
            _ => Ok(()),
        }
    }

    /// Forwards until SIGTERM.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut next_tick = Instant::now() + TICK;
        while self.turn(TICK)? {
            let now = Instant::now();
            if now >= next_tick {
                next_tick = now + TICK;
                self.forget_idle(now);
                self.set_paused(false);
            }
        }
        Ok(())
    }

    /// Handles what has happened, or happens within `wait`; false after SIGTERM.
    fn turn(&mut self, wait: Duration) -> io::Result<bool> {
        let wait = if self.turns.is_empty() {
            wait
        } else {
            Duration::ZERO
        };
        let timeout = EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::ZERO);
        let mut events = [EpollEvent::empty(); BURST];
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        let now = Instant::now();
        for event in &events[..count] {
            if event.data() == SIGNAL {
                self.terminated.read_signal()?;
                return Ok(false);
            }
            self.handle(usize::try_from(event.data()).unwrap_or(usize::MAX), now);
        }
        for index in std::mem::take(&mut self.turns) {
            self.pump(index);
        }
        Ok(true)
    }

    fn handle(&mut self, index: usize, now: Instant) {
        match self.slots.get(index) {
            Some(Some(Slot::TcpListener(..))) => self.accept(index),
            Some(Some(Slot::UdpListener(_))) => self.receive(index, now),
            Some(Some(Slot::Connection(_))) => self.pump(index),
            Some(Some(Slot::Client(_))) => self.answer(index, now),
            // Ended by an earlier event of the same wait.
            _ => {}
        }
    }

    fn accept(&mut self, index: usize) {
        for _ in 0..BURST {
            let Some(Some(Slot::TcpListener(listener, target))) = self.slots.get(index) else {
                return;
            };
            if self.peers >= self.max_peers {
                return self.set_paused(true);
            }
            let (client, target) = match listener.accept() {
                Ok((client, _)) => (client, *target),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                // Out of descriptors or memory: the connection waits, and must not be
                // reported over and over.
                Err(_) => return self.set_paused(true),
            };
            // A module that cannot be reached shows as a closed connection.
            if let Ok(connection) = Connection::open(client, target) {
                self.adopt(connection);
            }
        }
    }

    fn adopt(&mut self, connection: Connection) {
        let index = self.insert(Slot::Connection(Box::new(connection)));
        self.peers += 1;
        let Some(Some(Slot::Connection(connection))) = self.slots.get(index) else {
            return;
        };
        let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP;
        let watched = [&connection.client, &connection.server]
            .into_iter()
            .try_for_each(|socket| self.watch(socket, index, both | EpollFlags::EPOLLET));
        if watched.is_err() {
            self.release(index);
        }
    }

    fn pump(&mut self, index: usize) {
        let Some(Some(Slot::Connection(connection))) = self.slots.get_mut(index) else {
            return;
        };
        match connection.pump() {
            Progress::Blocked => {}
            Progress::More => drop(self.turns.insert(index)),
            Progress::Done => self.release(index),
        }
    }

    fn receive(&mut self, index: usize, now: Instant) {
        for _ in 0..BURST {
            let Some(Some(Slot::UdpListener(listener))) = self.slots.get(index) else {
                return;
            };
            let Ok((length, flow)) = listener.receive(&mut self.buffer) else {
                return;
            };
            let client = match self.flows.get(&(index, flow)) {
                Some(client) => *client,
                None if self.peers >= self.max_peers => continue,
                None => match listener
                    .client(index, flow, now)
                    .and_then(|c| self.remember(c))
                {
                    Ok(client) => client,
                    Err(_) => continue,
                },
            };
            if let Some(Some(Slot::Client(client))) = self.slots.get_mut(client) {
                client.send(&self.buffer[..length], now);
            }
        }
    }

    fn remember(&mut self, client: Client) -> io::Result<usize> {
        let key = (client.listener, client.flow);
        let index = self.insert(Slot::Client(client));
        self.peers += 1;
        self.flows.insert(key, index);
        let watched = match &self.slots[index] {
            Some(Slot::Client(client)) => self.watch(&client.socket, index, EpollFlags::EPOLLIN),
            _ => Ok(()),
        };
        if watched.is_err() {
            self.release(index);
        }
        watched.map(|()| index)
    }

    fn answer(&mut self, index: usize, now: Instant) {
        for _ in 0..BURST {
            let Some(Some(Slot::Client(client))) = self.slots.get_mut(index) else {
                return;
            };
            let length = match client.receive(&mut self.buffer, now) {
                Ok(length) => length,
                // The module's port was closed when an earlier datagram came.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => continue,
                Err(_) => return,
            };
            let (listener, flow) = (client.listener, client.flow);
            if let Some(Some(Slot::UdpListener(listener))) = self.slots.get(listener) {
                // A client that is gone, or a full queue: lost, as UDP's are.
                let _ = listener.answer(flow, &self.buffer[..length]);
            }
        }
    }

    fn forget_idle(&mut self, now: Instant) {
        let idle = |slot: &Option<Slot>| matches!(slot, Some(Slot::Client(c)) if c.is_idle(now));
        let indices: Vec<_> = (0..self.slots.len())
            .filter(|i| idle(&self.slots[*i]))
            .collect();
        for index in indices {
            self.release(index);
        }
    }

    fn insert(&mut self, slot: Slot) -> usize {
        if let Some(index) = self.free.pop() {
            self.slots[index] = Some(slot);
            index
        } else {
            self.slots.push(Some(slot));
            self.slots.len() - 1
        }
    }

    /// Ends a connection or client; closing its sockets takes them off the epoll set.
    fn release(&mut self, index: usize) {
        if let Some(Slot::Client(client)) = &self.slots[index] {
            self.flows.remove(&(client.listener, client.flow));
        }
        self.slots[index] = None;
        self.free.push(index);
        self.peers -= 1;
        self.set_paused(false);
    }

    fn set_paused(&mut self, paused: bool) {
        if self.paused == paused {
            return;
        }
        self.paused = paused;
        for (index, slot) in self.slots.iter().enumerate() {
            let Some(Slot::TcpListener(listener, _)) = slot else {
                continue;
            };
            // Neither fails for a descriptor that is open and in the set, or not in it.
            let _ = if paused {
                self.epoll.delete(listener).map_err(io::Error::from)
            } else {
                self.watch(listener, index, EpollFlags::EPOLLIN)
            };
        }
    }

    fn watch(&self, socket: impl AsFd, index: usize, flags: EpollFlags) -> io::Result<()> {
        self.epoll
            .add(socket, EpollEvent::new(flags, index as u64))?;
        Ok(())
    }
}

/// Raises the limit of open files as far as needed and allowed, and tells how many peers
/// fit.
fn max_peers() -> io::Result<rlim_t> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = (FDS_RESERVED + MAX_PEERS * FDS_PER_PEER)
        .min(hard)
        .max(soft);
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    Ok((wanted.saturating_sub(FDS_RESERVED) / FDS_PER_PEER).clamp(1, MAX_PEERS))
}

#[cfg(test)]
mod tests;
