//! What the agent does that the compiler cannot check.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;

use kobune_runtime::{Exec, PidFd};
use tokio::io::unix::AsyncFd;

/// Registers a process handle with the reactor of the current tokio runtime; it becomes
/// readable when the process ends.
pub(crate) fn register(process: PidFd) -> io::Result<AsyncFd<PidFd>> {
    // SAFETY: a `PidFd` owns its descriptor, answers with the same one for as long as it
    // lives and closes it only when dropped, which `AsyncFd` lets happen after it has
    // deregistered it. No reference to it is handed out that could replace it.
    unsafe { AsyncFd::register(process) }.map_err(Into::into)
}

/// Registers a process in a module with the reactor; readable when there are news of it.
pub(crate) fn register_exec(exec: Exec) -> io::Result<AsyncFd<Exec>> {
    // SAFETY: as above: an `Exec` keeps the one socket that it answers with until dropped.
    unsafe { AsyncFd::register(exec) }.map_err(Into::into)
}

/// Registers a pipe or a terminal with the reactor.
pub(crate) fn register_stream(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: as above; nobody replaces an `OwnedFd` that is lent out shared only.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}

/// Makes glibc's allocator keep little for itself: one arena for all threads, where it would
/// make one for each, and large buffers as mappings of their own, which go when they are
/// freed. Other allocators are left as they are. To be called before there are threads.
pub(crate) fn limit_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets numbers of the allocator, which takes them at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 64 << 10);
    }
}

/// Gives the pages that a burst of work used back to the kernel; glibc alone keeps them.
pub(crate) fn trim_allocator() {
    #[cfg(target_env = "gnu")]
    // SAFETY: touches unused memory of the allocator only, under its own locks.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unmaps the pages of a mapping; they come back from its file as they are used.
///
/// `range` has to be a mapping of the program or its libraries that holds nothing but what
/// their files hold, which stays mapped for as long as the process lives.
pub(crate) fn unmap_clean(range: &Range<usize>) {
    let start = std::ptr::without_provenance_mut(range.start);
    // SAFETY: what is read there is the same before and after: nothing of it was changed
    // since it was read from a file, and nothing else gets mapped there. A failure leaves
    // the pages as they are.
    unsafe {
        libc::madvise(start, range.len(), libc::MADV_DONTNEED);
    }
}
