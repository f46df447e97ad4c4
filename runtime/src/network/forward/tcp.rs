//! One forwarded TCP connection.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, SpliceFFlags, splice};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt,
};
use nix::unistd::pipe2;

/// Bytes in flight per direction: the kernel's default size of a pipe.
const WINDOW: usize = 64 << 10;

/// Rounds before other connections get their turn; a round moves up to [`WINDOW`].
const ROUNDS: usize = 16;

/// A client and the module, and the bytes between them.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: TcpStream,
    pub(super) server: TcpStream,
    up: Direction,
    down: Direction,
}

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The next event of one of its sockets.
    Blocked,
    /// Its next turn.
    More,
    /// Nothing: both directions have ended.
    Done,
}

#[derive(Debug)]
struct Direction {
    drain: OwnedFd,
    fill: OwnedFd,
    buffered: usize,
    /// The source has sent all it will.
    ended: bool,
    /// The sink has been told so.
    closed: bool,
}

impl Connection {
    /// Starts to connect an accepted client with the module; does not wait for it.
    pub(super) fn open(client: TcpStream, target: SocketAddr) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let server = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
        match connect(server.as_raw_fd(), &SockaddrStorage::from(target)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let server = TcpStream::from(server);
        client.set_nonblocking(true)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            // A peer that vanished without a word must not hold its slot for ever.
            setsockopt(stream, sockopt::KeepAlive, &true)?;
        }
        Ok(Self {
            client,
            server,
            up: Direction::new()?,
            down: Direction::new()?,
        })
    }

    /// Moves what can be moved. An error of either side ends the connection.
    pub(super) fn pump(&mut self) -> Progress {
        let up = self.up.pump(&self.client, &self.server);
        let down = self.down.pump(&self.server, &self.client);
        match (up, down) {
            (Err(_), _) | (_, Err(_)) => Progress::Done,
            _ if self.up.closed && self.down.closed => Progress::Done,
            (Ok(false), Ok(false)) => Progress::Blocked,
            _ => Progress::More,
        }
    }
}

impl Direction {
    fn new() -> io::Result<Self> {
        let (drain, fill) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        Ok(Self {
            drain,
            fill,
            buffered: 0,
            ended: false,
            closed: false,
        })
    }

    /// Whether there may be more to move at once.
    fn pump(&mut self, from: &TcpStream, to: &TcpStream) -> io::Result<bool> {
        for _ in 0..ROUNDS {
            let filled = self.fill(from)?;
            let drained = self.drain(to)?;
            if self.ended && self.buffered == 0 && !self.closed {
                self.closed = true;
                to.shutdown(Shutdown::Write)?;
            }
            if !filled && !drained {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn fill(&mut self, from: &TcpStream) -> io::Result<bool> {
        let room = WINDOW - self.buffered;
        if self.ended || room == 0 {
            return Ok(false);
        }
        let moved = transfer(from, &self.fill, room)?;
        self.ended = moved == Some(0);
        self.buffered += moved.unwrap_or(0);
        Ok(moved.is_some())
    }

    fn drain(&mut self, to: &TcpStream) -> io::Result<bool> {
        if self.buffered == 0 {
            return Ok(false);
        }
        let moved = transfer(&self.drain, to, self.buffered)?;
        self.buffered -= moved.unwrap_or(0);
        Ok(moved.is_some())
    }
}

/// Moves up to `length` bytes; `None` if one side is not ready.
fn transfer(from: impl AsFd, to: impl AsFd, length: usize) -> io::Result<Option<usize>> {
    let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
    loop {
        match splice(&from, None, &to, None, length, flags) {
            Ok(moved) => return Ok(Some(moved)),
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
