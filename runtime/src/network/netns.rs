//! Network namespaces kept alive by a bind mount on a file, as `ip netns` keeps them.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

const NONE: Option<&str> = None;

/// Makes a new network namespace, or takes the one at `made`, that lives until [`remove`] of
/// `path`, and opens it.
/// What was at `path` before is removed.
///
/// On failure an unmounted empty file may be left; [`remove`] clears it.
pub(crate) fn create(path: &Path, made: Option<&Path>) -> io::Result<File> {
    remove(path)?;
    File::create(path)?;
    let bind = |namespace: &Path| mount(Some(namespace), path, NONE, MsFlags::MS_BIND, NONE);
    if let Some(made) = made {
        bind(made)?;
        return File::open(path);
    }
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        bind(Path::new("/proc/thread-self/ns/net"))
    };
    // A thread that ends: no other thread leaves the host's namespace.
    thread::scope(|scope| {
        let made = thread::Builder::new().spawn_scoped(scope, make)?;
        let made = made
            .join()
            .expect("invariant: making a namespace does not panic");
        made.map_err(io::Error::from)
    })?;
    File::open(path)
}

/// Unmounts and removes what [`create`] made at `path`; no error if there is nothing.
/// The namespace itself ends with its last process.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL) => break,
            Err(Errno::ENOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    fs::remove_file(path)
}
