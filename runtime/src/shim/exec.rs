//! The contract between the agent and the launcher of a further process of a container.
//!
//! `kobune-shim exec BUNDLE` has a stream socket as its standard input. The agent sends one
//! line, an [`ExecJob`], and with its first byte three descriptors: the process's standard
//! input, output and error; none where it gets a terminal. The launcher answers in lines
//! of [`ExecReport`], and takes lines of [`ExecOrder`]. When the agent closes the socket,
//! or is gone, the process and what it started are ended.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use oci_spec::runtime::{BoxBuilder, Process, User};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::exec::WindowSize;
use crate::spec::env;

/// Longest line: more than the kernel takes as arguments and environment together.
const LINE_LIMIT: usize = 8 << 20;
/// Descriptors that go with a line at most.
const DESCRIPTORS: usize = 3;

/// What is to be run: the container's main process with these changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecJob {
    /// [`super::CONTRACT`] of the writer.
    pub contract: u32,
    /// Program and arguments.
    pub args: Vec<String>,
    /// `KEY=VALUE` pairs over the container's environment; `KEY` alone removes one.
    pub env: Vec<String>,
    /// Another working directory.
    pub cwd: Option<String>,
    /// Another user.
    pub user: Option<ExecUser>,
    /// Size of its terminal, if it gets one.
    pub terminal: Option<WindowSize>,
}

/// Who a process is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ExecUser {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
}

impl ExecJob {
    /// The process to be run, `main` being the container's. Only the launcher calls it: reading
    /// and changing OCI's types is half a megabyte of code that the agent does without.
    #[must_use]
    pub fn process(self, main: Process) -> Process {
        let mut process = main;
        process.set_args(Some(self.args));
        if let Some(cwd) = self.cwd {
            process.set_cwd(cwd.into());
        }
        if let Some(found) = self.user {
            let mut user = User::default();
            user.set_uid(found.uid);
            user.set_gid(found.gid);
            user.set_additional_gids(Some(found.additional_gids));
            process.set_user(user);
        }
        let mut variables = process.env().clone().unwrap_or_default();
        for entry in &self.env {
            env::apply(&mut variables, entry);
        }
        process.set_env(Some(variables));
        process.set_terminal(Some(self.terminal.is_some()));
        let size = self.terminal.and_then(|size| {
            let size = BoxBuilder::default().height(size.rows).width(size.columns);
            size.build().ok()
        });
        process.set_console_size(size);
        process
    }
}

/// What the launcher tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExecReport {
    /// The terminal's other end comes with this line.
    Terminal,
    /// The program runs under this pid of the host.
    Started(i32),
    /// It does not, and nothing is left of the attempt.
    Failed(ExecFailure),
    /// It ended: exit code, or 128 + signal.
    Exited(i32),
}

/// Why a program does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecFailure {
    /// The error and its causes, in one line.
    pub message: String,
    /// 127 where there is no such program, 126 where it cannot be run: as shells have it.
    pub code: i32,
}

/// What the agent asks for while the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ExecOrder {
    /// Send it this signal.
    Signal(i32),
}

/// Sends `message` as one line; `descriptors` go with its first byte.
///
/// # Errors
/// The system's.
pub fn send(
    mut socket: &UnixStream,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    if descriptors.is_empty() {
        return socket.write_all(&line);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(
        socket,
        &[IoSlice::new(&line)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    socket.write_all(&line[sent..])
}

/// Receives bytes, as many as `bytes` has or fewer, and the descriptors that came with them.
///
/// # Errors
/// The system's; `UnexpectedEof` where the other end is gone.
pub fn receive_descriptors(socket: &UnixStream, bytes: &mut [u8]) -> io::Result<Vec<OwnedFd>> {
    let mut descriptors = Vec::new();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(descriptors)
}

/// Receives one line and the descriptors that came with it; what follows the line is left in
/// the socket.
///
/// # Errors
/// The system's; `UnexpectedEof` where the other end is gone; `InvalidData` for what is no
/// `T`.
pub fn receive<T: DeserializeOwned>(socket: &UnixStream) -> io::Result<(T, Vec<OwnedFd>)> {
    let mut first = [0; 1];
    let descriptors = receive_descriptors(socket, &mut first)?;
    let mut line = first.to_vec();
    let mut buffer = [0; 4096];
    while line.len() < LINE_LIMIT {
        // Not more than the line: the next one may have descriptors of its own.
        let (_, seen) = recv(socket, &mut buffer, RecvFlags::PEEK)?;
        let end = buffer[..seen].iter().position(|byte| *byte == b'\n');
        let count = end.map_or(seen, |end| end + 1);
        (&mut &*socket).read_exact(&mut buffer[..count])?;
        line.extend_from_slice(&buffer[..count]);
        match (end, seen) {
            (Some(_), _) => {
                let message = serde_json::from_slice(&line);
                let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
                return Ok((message.map_err(invalid)?, descriptors));
            }
            (None, 0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (None, _) => {}
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn lines_and_their_descriptors_arrive_one_by_one() {
        let (one, other) = UnixStream::pair().unwrap();
        let (read, _write) = nix::unistd::pipe().unwrap();
        let long = "x".repeat(20_000);
        let sender = std::thread::spawn({
            let long = long.clone();
            move || {
                send(&one, &"first", &[]).unwrap();
                send(&one, &long, &[read.as_fd(), read.as_fd()]).unwrap();
                send(&one, &"last", &[read.as_fd()]).unwrap();
            }
        });
        for (text, descriptors) in [("first", 0), (&long, 2), ("last", 1)] {
            let (line, received): (String, _) = receive(&other).unwrap();
            assert_eq!((line.as_str(), received.len()), (text, descriptors));
        }
        sender.join().unwrap();
        let end = receive::<String>(&other).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_message_is_refused_and_the_next_one_is_not() {
        let (mut one, other) = UnixStream::pair().unwrap();
        one.write_all(b"{\n").unwrap();
        send(&one, &ExecOrder::Signal(15), &[]).unwrap();
        let error = receive::<ExecOrder>(&other).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let (order, _): (ExecOrder, _) = receive(&other).unwrap();
        assert_eq!(order, ExecOrder::Signal(15));
    }
}
