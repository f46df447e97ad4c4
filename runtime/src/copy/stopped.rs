//! The files of a container that does not run, as it would see them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use serde::{Deserialize, Serialize};

use super::Root;
use crate::rootfs::{Rootfs, create_dir_beneath};
use crate::shim::ShimClient;

/// File in a container's home that is locked while files of it are copied, and while it starts.
const LOCK_FILE: &str = "copy.lock";
/// Time that one waits for the other.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// What the root of a container is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoppedRoot {
    /// Where the container's writable layer is.
    pub home: PathBuf,
    /// Layer directories, lowest first.
    pub layers: Vec<PathBuf>,
    /// Its own files are read-only.
    pub read_only: bool,
    /// Directories and files of the host in it: source, target and whether it is read-only,
    /// parents before children. Those that are not there are left out.
    pub mounts: Vec<(PathBuf, PathBuf, bool)>,
}

/// Waits until neither a start nor a copy of a container that does not run is under way, and
/// keeps either from beginning until it is dropped: an overlay has one writer.
pub(crate) fn lock(home: &Path) -> io::Result<Flock<File>> {
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(home.join(LOCK_FILE))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file,
            Err((_, Errno::EWOULDBLOCK)) => {
                let reason = "it is being started, or files of it are being copied";
                return Err(io::Error::new(io::ErrorKind::WouldBlock, reason));
            }
            Err((_, errno)) => return Err(errno.into()),
        };
        std::thread::sleep(POLL);
    }
}

impl StoppedRoot {
    /// Mounts the root below `bundle`, in a mount namespace that this process gets for itself.
    /// The container cannot start until the second of the answer is dropped. The process must
    /// have one thread.
    ///
    /// # Errors
    /// It runs after all, or cannot be mounted.
    pub fn open(&self, bundle: &Path) -> io::Result<(Root, Flock<File>)> {
        let lock = lock(&self.home)?;
        match ShimClient::new(bundle).peek() {
            Ok(Some(status)) if !status.is_running() => {}
            Ok(_) => return Err(io::Error::other("it was started meanwhile: try again")),
            Err(error) => return Err(io::Error::other(error)),
        }
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        let none: Option<&str> = None;
        mount(none, "/", none, private, none)?;
        let target = bundle.join("rootfs");
        let parts = Rootfs {
            layers: &self.layers,
            writable: &self.home,
            target: &target,
            limit: None,
            // As they are on disk: the ids are the container's.
            users: None,
        };
        parts.mount().map_err(io::Error::other)?;
        let root = Root::open(&target)?;
        for (source, inside, read_only) in &self.mounts {
            show(source, &root, &target, inside, *read_only)?;
        }
        if self.read_only {
            let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(none, &target, none, read_only, none)?;
        }
        // Found as the path is now, with what was mounted on it.
        Ok((Root::open(&target)?, lock))
    }
}

/// Mounts `source` on `inside`, which is resolved within the root.
fn show(
    source: &Path,
    root: &Root,
    target: &Path,
    inside: &Path,
    read_only: bool,
) -> io::Result<()> {
    let Ok(metadata) = fs::metadata(source) else {
        return Ok(());
    };
    if metadata.is_dir() {
        create_dir_beneath(target, inside).map_err(io::Error::other)?;
    }
    let place = root.find(inside, true)?;
    if place.kind()?.is_none() {
        return Ok(());
    }
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let on = openat(&place.parent, place.name.as_os_str(), flags, Mode::empty())?;
    let none: Option<&str> = None;
    let path = format!("/proc/self/fd/{}", on.as_raw_fd());
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source), path.as_str(), none, bind, none)?;
    if read_only {
        let mounted = openat(&place.parent, place.name.as_os_str(), flags, Mode::empty())?;
        let path = format!("/proc/self/fd/{}", mounted.as_raw_fd());
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(none, path.as_str(), none, flags, none)?;
    }
    Ok(())
}
