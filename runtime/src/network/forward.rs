//! The user-space port forwarder: what a forwarder process runs.
//!
//! One thread, one epoll loop. TCP goes by splice through a pipe per direction, so that
//! data never enters the process and a full pipe is the back-pressure. UDP keeps a socket
//! per client. It knows nothing of the agent but the job it was given.

mod events;
mod tcp;
mod udp;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::setsid;
use serde::{Deserialize, Serialize};

use self::events::Forwarder;
use crate::Protocol;

/// What a forwarder is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForwardJob {
    /// File to hold locked while running. It must exist: whoever removes it wants no
    /// forwarder.
    pub lock: PathBuf,
    /// The module's address.
    pub target: Ipv4Addr,
    /// The ports.
    pub ports: Vec<ForwardPort>,
}

/// One port to forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForwardPort {
    /// Transport.
    pub protocol: Protocol,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Port of the module.
    pub target_port: u16,
}

/// The one line of JSON that a forwarder writes, once it runs or cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ForwardReport {
    /// All ports are bound.
    Ready,
    /// It ends.
    #[serde(rename_all = "camelCase")]
    Failed {
        /// The port that could not be bound, if it was that.
        port: Option<ForwardPort>,
        /// Error number of the cause, if it has one.
        errno: Option<i32>,
        /// The error and its causes.
        message: String,
    },
}

/// Why a forwarder ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// The job could not be read.
    #[error("cannot read the job")]
    Job(#[source] io::Error),
    /// The lock is held by another forwarder, or its file is gone.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
    /// A port could not be bound.
    #[error("cannot listen on {}/{}", port.listen, port.protocol)]
    Listen {
        /// Which.
        port: ForwardPort,
        /// Reason.
        source: io::Error,
    },
    /// Waiting for events failed.
    #[error("cannot wait for events")]
    Events(#[source] io::Error),
    /// Nobody reads the report.
    #[error("cannot report")]
    Report(#[source] io::Error),
}

/// Runs a forwarder process: reads a [`ForwardJob`] as JSON from `input`, writes one line
/// to `report` when all ports are bound or one cannot be, and forwards until SIGTERM.
///
/// Becomes the leader of a session of its own, so that it outlives whoever started it,
/// and blocks SIGTERM in the calling thread: call it from `main`, with nothing else
/// running. Open connections end with it.
///
/// # Errors
/// [`ForwardError`], told in the report too, unless that is what failed.
pub fn run_forwarder(input: impl Read, mut report: impl Write) -> Result<(), ForwardError> {
    let started = start(input);
    let line = match &started {
        Ok(_) => ForwardReport::Ready,
        Err(error) => error.report(),
    };
    let told = serde_json::to_vec(&line)
        .map_err(io::Error::from)
        .and_then(|bytes| report.write_all(&[&bytes[..], b"\n"].concat()))
        .and_then(|()| report.flush());
    let (mut forwarder, _lock) = started?;
    told.map_err(ForwardError::Report)?;
    forwarder.run().map_err(ForwardError::Events)
}

fn start(input: impl Read) -> Result<(Forwarder, File), ForwardError> {
    let job: ForwardJob =
        serde_json::from_reader(input).map_err(|error| ForwardError::Job(error.into()))?;
    // Fails only for a process that leads its group, and then there is nothing to leave.
    let _ = setsid();
    let lock = lock(&job.lock).map_err(|source| ForwardError::Lock {
        path: job.lock.clone(),
        source,
    })?;
    let mut forwarder = Forwarder::new().map_err(ForwardError::Events)?;
    for port in &job.ports {
        let target = SocketAddr::from((job.target, port.target_port));
        forwarder
            .listen(port, target)
            .map_err(|source| ForwardError::Listen {
                port: *port,
                source,
            })?;
    }
    Ok((forwarder, lock))
}

/// Takes the lock. The file must stay open, and no other descriptor of it may be closed:
/// that would give the lock up.
fn lock(path: &Path) -> io::Result<File> {
    let file = File::options().write(true).open(path)?;
    fcntl(&file, FcntlArg::F_SETLK(&whole_file_lock()))?;
    // Removed since it was opened, by somebody who saw nobody hold it.
    if file.metadata()?.nlink() == 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(file)
}

/// A write lock on a whole file.
#[allow(clippy::cast_possible_truncation)] // The constants are small.
pub(crate) fn whole_file_lock() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

impl ForwardError {
    fn report(&self) -> ForwardReport {
        let mut message = self.to_string();
        let mut errno = None;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            errno = errno.or(error.downcast_ref().and_then(io::Error::raw_os_error));
            cause = error.source();
        }
        let port = match self {
            Self::Listen { port, .. } => Some(*port),
            _ => None,
        };
        ForwardReport::Failed {
            port,
            errno,
            message,
        }
    }
}
