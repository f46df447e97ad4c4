//! How user namespaces come to be: in a child that ends at once, since a process of several
//! threads can neither make nor join one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::{IdRange, UsernsConfig, Users};
use crate::error_chain::chain;
use crate::rootfs;
use crate::sys;

/// Which user namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Parent<'a> {
    /// A new one, with these ids.
    New(IdRange),
    /// One that is there.
    Of(&'a File),
}

/// Namespaces that live as long as these files are open.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) user: File,
    pub(crate) network: Option<File>,
}

/// Makes a user namespace, or joins one, and a network namespace that belongs to it where asked.
pub(crate) fn make(parent: Parent<'_>, network: bool) -> io::Result<Made> {
    let (mut ours, theirs) = UnixStream::pair()?;
    let user = match parent {
        Parent::New(_) => None,
        Parent::Of(file) => Some(file.as_fd()),
    };
    let flags = if network { libc::CLONE_NEWNET } else { 0 };
    let child = sys::fork_apart(user, flags, theirs.as_fd(), ours.as_fd())?;
    drop(theirs);
    let made = take(&mut ours, child, parent, network);
    // It waits for this.
    drop(ours);
    while waitpid(Pid::from_raw(child), None) == Err(Errno::EINTR) {}
    made
}

/// Opens the namespaces of the waiting child.
fn take(ours: &mut UnixStream, child: i32, parent: Parent<'_>, network: bool) -> io::Result<Made> {
    let mut word = [0; 4];
    ours.read_exact(&mut word)?;
    match i32::from_ne_bytes(word) {
        0 => {}
        errno => return Err(explained(io::Error::from_raw_os_error(errno))),
    }
    let path = |name: &str| format!("/proc/{child}/{name}");
    if let Parent::New(IdRange { first, size }) = parent {
        let map = format!("0 {first} {size}");
        for name in ["uid_map", "gid_map"] {
            fs::write(path(name), &map)?;
        }
    }
    Ok(Made {
        user: File::open(path("ns/user"))?,
        network: network.then(|| File::open(path("ns/net"))).transpose()?,
    })
}

/// What the kernel's answers mean.
fn explained(error: io::Error) -> io::Error {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EINVAL) => io::Error::other("this kernel has no user namespaces"),
        Some(Errno::ENOSPC) => {
            io::Error::other("there are as many as user.max_user_namespaces allows")
        }
        _ => error,
    }
}

/// Tries out what containers in user namespaces need, in the directory `dir` of their files.
/// Leaves nothing behind.
///
/// # Errors
/// What is missing.
pub fn probe(dir: &Path) -> io::Result<()> {
    let UsernsConfig { first, size, .. } = UsernsConfig::default();
    let range = IdRange { first, size };
    let Made { user, network } = make(Parent::New(range), false)?;
    let users = Users {
        range,
        namespace: user,
        network,
    };
    rootfs::probe_mapped(dir, &users).map_err(|error| io::Error::other(chain(&error).to_string()))
}
