//! Those who attach to the container: its output goes to each of them, what they send goes
//! to its standard input.
//!
//! Nobody who attaches can make the container or its log wait: output that a client does
//! not take ends that client. Input waits for the container, and its sender with it.

use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use kobune_runtime::shim::attach::{HEADER, frame, header, kind};
use kobune_runtime::{WindowSize, resize};
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read};
use rustix::process::Signal;

use super::args::Console;
use super::log::{BUFFER, Stream};
use super::sys;

/// Clients at the same time; more are turned away.
pub(crate) const CLIENTS: usize = 8;
/// Bytes that may wait for a client beyond what its socket holds.
const WAITING: usize = 256 << 10;
/// How long the end of the container waits for clients to take their last output.
const FAREWELL: Duration = Duration::from_millis(300);

pub(crate) struct Attach {
    listener: Option<UnixListener>,
    stdin: Option<OwnedFd>,
    once: bool,
    terminal: bool,
    /// Input on its way.
    input: Vec<u8>,
    /// The input ends once what is on its way was written.
    input_ends: bool,
    clients: Vec<Client>,
}

struct Client {
    socket: UnixStream,
    /// Part of a frame.
    received: Vec<u8>,
    /// Output on its way.
    waiting: Vec<u8>,
    wrote_input: bool,
}

/// What a client waits for.
#[derive(Clone, Copy)]
pub(crate) enum Wants {
    /// The container's taking of its input.
    Nothing,
    Read,
    ReadAndWrite,
    Write,
}

impl Attach {
    /// `console`'s input must not block.
    pub(crate) fn new(console: Console) -> Self {
        Self {
            listener: console.listener,
            stdin: console.stdin,
            once: console.once,
            terminal: console.terminal,
            input: Vec::new(),
            input_ends: false,
            clients: Vec::new(),
        }
    }

    pub(crate) fn listener(&self) -> Option<BorrowedFd<'_>> {
        self.listener.as_ref().map(AsFd::as_fd)
    }

    /// The input, if it is waited for.
    pub(crate) fn full_stdin(&self) -> Option<BorrowedFd<'_>> {
        let stdin = self.stdin.as_ref().filter(|_| !self.input.is_empty());
        stdin.map(AsFd::as_fd)
    }

    pub(crate) fn clients(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Wants)> {
        let reads = self.input.is_empty();
        self.clients.iter().map(move |client| {
            let wants = match (reads, client.waiting.is_empty()) {
                (true, true) => Wants::Read,
                (true, false) => Wants::ReadAndWrite,
                (false, false) => Wants::Write,
                (false, true) => Wants::Nothing,
            };
            (client.socket.as_fd(), wants)
        })
    }

    /// Takes new clients in.
    pub(crate) fn accept(&mut self) {
        while let Some(Ok((socket, _))) = self.listener.as_ref().map(UnixListener::accept) {
            let mut client = Client {
                socket,
                received: Vec::new(),
                waiting: Vec::new(),
                wrote_input: false,
            };
            if client.socket.set_nonblocking(true).is_err() {
                continue;
            }
            if self.clients.len() == CLIENTS {
                let _ = client.send(kind::FAILED, b"too many others are attached");
                let _ = client.send(kind::EXIT, b"1");
                continue;
            }
            self.clients.push(client);
        }
    }

    /// Sends the clients what the container wrote.
    pub(crate) fn output(&mut self, stream: Stream, bytes: &[u8]) {
        let kind = match stream {
            Stream::Stdout => kind::STDOUT,
            Stream::Stderr => kind::STDERR,
        };
        self.clients
            .retain_mut(|client| client.send(kind, bytes).is_ok());
    }

    /// Reads from and writes to the clients that are ready, the newest first; `terminal` is
    /// the container's. The signals that they send.
    pub(crate) fn serve(&mut self, ready: &[bool], terminal: &OwnedFd) -> Vec<Signal> {
        let mut signals = Vec::new();
        for index in (0..self.clients.len().min(ready.len())).rev() {
            if !ready[index] {
                continue;
            }
            let client = &mut self.clients[index];
            let mut stays = client.flush().is_ok();
            if stays && self.input.is_empty() {
                stays = client.receive().is_ok();
                while let Some((kind, content)) = client.take(&mut stays) {
                    match kind {
                        kind::INPUT => {
                            client.wrote_input = true;
                            if self.stdin.is_some() && !self.input_ends {
                                self.input.extend_from_slice(&content);
                            }
                        }
                        kind::INPUT_END => self.input_ends |= self.once,
                        kind::RESIZE if self.terminal => set_size(terminal, &content),
                        kind::SIGNAL => signals.extend(number(&content).and_then(sys::signal)),
                        _ => {}
                    }
                }
            }
            if !stays {
                let client = self.clients.swap_remove(index);
                self.input_ends |= self.once && client.wrote_input;
            }
            self.pump();
        }
        signals
    }

    /// Writes input, as much as the container takes.
    pub(crate) fn pump(&mut self) {
        let Some(stdin) = &self.stdin else {
            return;
        };
        while !self.input.is_empty() {
            match nix::unistd::write(stdin, &self.input) {
                Ok(count) => drop(self.input.drain(..count)),
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return,
                // Nobody reads there any more.
                Err(_) => {
                    self.input = Vec::new();
                    self.input_ends = true;
                }
            }
        }
        // One that typed a long text does not cost memory for ever.
        self.input.shrink_to(BUFFER);
        if self.input_ends {
            self.stdin = None;
        }
    }

    /// Tells the clients the exit code, and gives them a little time to take it.
    pub(crate) fn end(&mut self, code: i32) {
        let code = code.to_string();
        let deadline = Instant::now() + FAREWELL;
        for client in &mut self.clients {
            if client.send(kind::EXIT, code.as_bytes()).is_err() {
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_millis(1));
            let blocks = client.socket.set_nonblocking(false);
            if blocks.is_ok() && client.socket.set_write_timeout(Some(left)).is_ok() {
                let _ = client.socket.write_all(&client.waiting);
            }
        }
        self.clients.clear();
    }
}

impl Client {
    /// Sends a frame, or keeps it for when the client reads; fails where too much waits.
    fn send(&mut self, kind: u8, content: &[u8]) -> io::Result<()> {
        if self.waiting.len() + content.len() > WAITING {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.waiting.extend_from_slice(&header(kind, content.len()));
        self.waiting.extend_from_slice(content);
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match self.socket.write(&self.waiting) {
                Ok(count) => drop(self.waiting.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is there, at most one buffer; fails where the client left.
    fn receive(&mut self) -> io::Result<()> {
        self.received.reserve(BUFFER);
        match read(&self.socket, spare_capacity(&mut self.received)) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The next whole frame; one that is none ends the client.
    fn take(&mut self, stays: &mut bool) -> Option<(u8, Vec<u8>)> {
        let found = frame(&self.received);
        *stays &= found.is_ok();
        let (kind, length) = found.ok().flatten()?;
        let content = self.received[HEADER..HEADER + length].to_vec();
        self.received.drain(..HEADER + length);
        Some((kind, content))
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn set_size(terminal: &OwnedFd, content: &[u8]) {
    let mut words = content.split(|byte| *byte == b' ').map(number);
    if let (Some(Some(rows)), Some(Some(columns))) = (words.next(), words.next()) {
        let _ = resize(terminal, WindowSize { rows, columns });
    }
}
