//! The one thing the agent does that the compiler cannot check.
#![allow(unsafe_code)]

use std::io;

use kobune_runtime::PidFd;
use tokio::io::unix::AsyncFd;

/// Registers a process handle with the reactor of the current tokio runtime; it becomes
/// readable when the process ends.
pub(crate) fn register(process: PidFd) -> io::Result<AsyncFd<PidFd>> {
    // SAFETY: a `PidFd` owns its descriptor, answers with the same one for as long as it
    // lives and closes it only when dropped, which `AsyncFd` lets happen after it has
    // deregistered it. No reference to it is handed out that could replace it.
    unsafe { AsyncFd::register(process) }.map_err(Into::into)
}
