//! The connection to a receiver. Nothing here waits.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kobune_runtime::shim::JOURNAL_SOCKET;
use kobune_runtime::{LogDriver, SyslogAddress};
use nix::poll::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with, sockopt,
};

/// Shortest and longest time between two attempts to connect.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Time in which a server must answer.
const CONNECT: Duration = Duration::from_secs(10);
/// Milliseconds in which what was sent must be confirmed.
const UNANSWERED: u32 = 30_000;

enum Address {
    Unix(PathBuf),
    Udp(SocketAddr),
    Tcp(SocketAddr),
}

enum State {
    /// No attempt before then.
    Down(Instant),
    /// Given up then.
    Connecting(OwnedFd, Instant),
    Up(OwnedFd),
}

pub(super) struct Link {
    address: Address,
    state: State,
    /// A connection of bytes, where messages have an end of their own.
    stream: bool,
    pause: Duration,
    /// Bytes of the message at hand that a stream has taken.
    sent: usize,
}

impl Link {
    /// Nothing where `driver` has no receiver.
    pub(super) fn new(driver: &LogDriver) -> Option<Self> {
        let address = match driver {
            LogDriver::Journald { .. } => Address::Unix(JOURNAL_SOCKET.into()),
            LogDriver::Syslog(syslog) => match &syslog.address {
                SyslogAddress::Unix(path) => Address::Unix(path.clone()),
                SyslogAddress::Udp(address) => Address::Udp(*address),
                SyslogAddress::Tcp(address) => Address::Tcp(*address),
            },
            LogDriver::File | LogDriver::None | LogDriver::Ring => return None,
        };
        Some(Self {
            stream: matches!(address, Address::Tcp(_)),
            address,
            state: State::Down(Instant::now()),
            pause: PAUSE.0,
            sent: 0,
        })
    }

    /// Sends a whole message, at once or by calls that follow with the same one: whether it is
    /// sent.
    pub(super) fn send(&mut self, message: &[u8]) -> bool {
        if !self.connect() {
            return false;
        }
        loop {
            let State::Up(socket) = &self.state else {
                return false;
            };
            let end: &[u8] = if self.stream { b"\n" } else { b"" };
            let rest = match message.get(self.sent..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => end,
            };
            match send(socket, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return false,
                // It would never be taken.
                Err(Errno::MSGSIZE) => self.sent = message.len() + end.len(),
                Err(_) => {
                    self.disconnect();
                    return false;
                }
            }
            if self.sent >= message.len() + end.len() {
                self.sent = 0;
                self.pause = PAUSE.0;
                return true;
            }
        }
    }

    /// Notices that a server has hung up, before something is lost to it.
    pub(super) fn heed(&mut self) {
        let State::Up(socket) = &self.state else {
            return;
        };
        if !self.stream {
            return;
        }
        let mut words = [0; 256];
        match recv(socket, &mut words, RecvFlags::DONTWAIT) {
            Ok((_, 1..)) | Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => self.disconnect(),
        }
    }

    /// What to wait for; `waiting` says whether there is something to send.
    pub(super) fn watched(&self, waiting: bool) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.state {
            State::Down(_) => None,
            State::Connecting(socket, _) => Some((socket.as_fd(), PollFlags::POLLOUT)),
            State::Up(socket) => {
                let mut events = PollFlags::empty();
                events.set(PollFlags::POLLOUT, waiting);
                events.set(PollFlags::POLLIN, self.stream);
                (!events.is_empty()).then_some((socket.as_fd(), events))
            }
        }
    }

    /// When there is something to do, whatever the socket says.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Down(due) | State::Connecting(_, due) => Some(due),
            State::Up(_) => None,
        }
    }

    /// Whether it is connected now.
    fn connect(&mut self) -> bool {
        let now = Instant::now();
        match &self.state {
            State::Up(_) => return true,
            State::Down(due) if *due > now => return false,
            State::Down(_) => match self.open() {
                Ok((socket, true)) => self.state = State::Up(socket),
                Ok((socket, false)) => self.state = State::Connecting(socket, now + CONNECT),
                Err(_) => self.disconnect(),
            },
            State::Connecting(..) => self.finish(now),
        }
        matches!(self.state, State::Up(_))
    }

    /// A socket, and whether it is connected already.
    fn open(&mut self) -> Result<(OwnedFd, bool), Errno> {
        let socket = |family, kind| {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            socket_with(family, kind, flags, None)
        };
        let family = |address: &SocketAddr| match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let (socket, connected) = match &self.address {
            Address::Unix(path) => {
                let address = SocketAddrUnix::new(path)?;
                self.stream = false;
                let datagrams = socket(AddressFamily::UNIX, SocketType::DGRAM)?;
                match connect(&datagrams, &address) {
                    Err(Errno::PROTOTYPE) => {
                        self.stream = true;
                        let bytes = socket(AddressFamily::UNIX, SocketType::STREAM)?;
                        let connected = connect(&bytes, &address);
                        (bytes, connected)
                    }
                    connected => (datagrams, connected),
                }
            }
            Address::Udp(address) => {
                let socket = socket(family(address), SocketType::DGRAM)?;
                let connected = connect(&socket, address);
                (socket, connected)
            }
            Address::Tcp(address) => {
                let socket = socket(family(address), SocketType::STREAM)?;
                // Else a cable that was pulled is noticed after a quarter of an hour.
                sockopt::set_tcp_user_timeout(&socket, UNANSWERED)?;
                let connected = connect(&socket, address);
                (socket, connected)
            }
        };
        match connected {
            Ok(()) => Ok((socket, true)),
            Err(Errno::INPROGRESS) => Ok((socket, false)),
            Err(errno) => Err(errno),
        }
    }

    /// Goes on with a connection that the server had not answered yet.
    fn finish(&mut self, now: Instant) {
        let state = std::mem::replace(&mut self.state, State::Down(now));
        let State::Connecting(socket, until) = state else {
            return;
        };
        let answered = match sockopt::socket_error(&socket) {
            Ok(Ok(())) => rustix::net::getpeername(&socket).is_ok(),
            _ => return self.disconnect(),
        };
        match answered {
            true => self.state = State::Up(socket),
            false if now < until => self.state = State::Connecting(socket, until),
            false => self.disconnect(),
        }
    }

    /// The next attempt is after a pause, and the message at hand begins anew.
    fn disconnect(&mut self) {
        self.sent = 0;
        self.state = State::Down(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSE.1);
    }
}
