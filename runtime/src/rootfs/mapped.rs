//! Id-mapped mounts: files that appear to belong to the ids of a user namespace and keep their
//! own on disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::{Overlay, RootfsError, error};
use crate::sys;
use crate::userns::Users;

/// A mount of what is open that is attached nowhere yet, mapped by the user namespace `user`.
fn clone(what: impl AsFd, user: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let cloned = open_tree(what, "", flags).map_err(io::Error::from);
    let cloned = cloned.map_err(explained)?;
    sys::map_ids(cloned.as_fd(), user).map_err(explained)?;
    Ok(cloned)
}

fn explained(error: io::Error) -> io::Error {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSYS) => {
            io::Error::other("this kernel has no id-mapped mounts: they are of Linux 5.12")
        }
        Some(Errno::EINVAL) => io::Error::other("its file system cannot be id-mapped"),
        _ => error,
    }
}

fn attach(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(mount, "", rustix::fs::CWD, target, flags)?)
}

/// As [`super::bind`], mapped.
pub(super) fn bind(source: &OwnedFd, target: &Path, users: &Users) -> Result<(), RootfsError> {
    let cloned = clone(source, users.as_fd()).map_err(error("map the ids of", target))?;
    attach(&cloned, target).map_err(error("mount", target))
}

/// The directory `path` as a mount that is attached nowhere: good for making files in it.
pub(crate) fn view(path: &Path, users: &Users) -> Result<OwnedFd, RootfsError> {
    let failed = || error("map the ids of", path);
    let dir = File::open(path).map_err(failed())?;
    clone(dir, users.as_fd()).map_err(failed())
}

/// Mounts the overlay of `layers` and `upper` and `work` of `writable` on `target`, all of them
/// mapped.
///
/// Before Linux 6.15 overlayfs takes no layer from a mount that is attached nowhere. So they are
/// attached where nobody sees them, in a mount namespace that ends here; the overlay is taken out
/// of it and keeps mounts of its own. What overlayfs makes for itself, such as whiteouts, it makes
/// as whoever mounts it: one whose files are the container root's, for others have no id on disk.
pub(super) fn mount_overlay(
    layers: &[PathBuf],
    writable: &Path,
    target: &Path,
    users: &Users,
) -> Result<(), RootfsError> {
    let user = users.as_fd();
    let overlay = apart(target, || {
        let owned = users.range.make_files();
        owned.map_err(error("make the container root's files in", writable))?;
        let layers = map_layers(layers, target, user)?;
        let own = map(writable, target, user)?;
        let overlay = Overlay {
            lowers: layers,
            upper: open_in(&own, "upper", writable)?,
            work: open_in(&own, "work", writable)?,
        };
        overlay.mount(target).map_err(RootfsError::of_mapped)?;
        take(target).map_err(error("take over the overlay on", target))
    })?;
    attach(&overlay, target).map_err(error("mount an overlay on", target))
}

/// The layers through one mapped mount for each directory that has some, which is mostly one.
fn map_layers(
    layers: &[PathBuf],
    target: &Path,
    user: BorrowedFd<'_>,
) -> Result<Vec<OwnedFd>, RootfsError> {
    let mut parents: BTreeMap<PathBuf, OwnedFd> = BTreeMap::new();
    let mut open = |layer: &PathBuf| {
        // It may be a link to one elsewhere.
        let layer = layer.canonicalize().map_err(error("find", layer))?;
        let (Some(parent), Some(name)) = (layer.parent(), layer.file_name()) else {
            return Err(error("use as a layer", &layer)(Errno::EINVAL));
        };
        if !parents.contains_key(parent) {
            parents.insert(parent.to_owned(), map(parent, target, user)?);
        }
        open_in(&parents[parent], Path::new(name), parent)
    };
    layers.iter().map(&mut open).collect()
}

/// `dir` as a mapped mount, attached on `on` above whatever is there.
fn map(dir: &Path, on: &Path, user: BorrowedFd<'_>) -> Result<OwnedFd, RootfsError> {
    let failed = || error("map the ids of", dir);
    let file = File::open(dir).map_err(failed())?;
    let cloned = clone(file, user).map_err(failed())?;
    attach(&cloned, on).map_err(failed())?;
    Ok(cloned)
}

fn open_in(mount: &OwnedFd, name: impl AsRef<Path>, dir: &Path) -> Result<OwnedFd, RootfsError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let name = name.as_ref();
    openat(mount, name, flags, Mode::empty()).map_err(error("open", &dir.join(name)))
}

/// The mount on `target`, for another namespace.
fn take(target: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(rustix::fs::CWD, target, flags)?)
}

/// Runs `work` on a thread in a mount namespace that ends with it, and of whose mounts no other
/// gets to know.
fn apart<T: Send>(
    target: &Path,
    work: impl FnOnce() -> Result<T, RootfsError> + Send,
) -> Result<T, RootfsError> {
    let leave = || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
    };
    let confined = || {
        leave().map_err(error("keep mounts apart for", target))?;
        work()
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, confined);
        let thread = thread.map_err(error("start a thread for", target))?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Mounts a mapped overlay in a directory of its own in `dir`, writes through it, and removes all
/// that.
pub(crate) fn probe(dir: &Path, users: &Users) -> Result<(), RootfsError> {
    let scratch = dir.join(format!(".kobune-probe-{}", std::process::id()));
    let tried = probe_in(&scratch, users);
    let removed = fs::remove_dir_all(&scratch).map_err(error("remove", &scratch));
    tried.and(removed)
}

fn probe_in(scratch: &Path, users: &Users) -> Result<(), RootfsError> {
    for name in ["layers/one/gone", "upper", "work", "merged"] {
        let path = scratch.join(name);
        fs::create_dir_all(&path).map_err(error("create", &path))?;
    }
    let target = scratch.join("merged");
    apart(&target, || {
        mount_overlay(&[scratch.join("layers/one")], scratch, &target, users)?;
        let gone = target.join("gone");
        users
            .as_root(|| fs::remove_dir(&gone))
            .map_err(error("remove a file of an id-mapped layer:", &gone))
    })
}
