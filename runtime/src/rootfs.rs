//! A container's root filesystem: an overlay of the image's layers and one writable layer.
//!
//! The writable layer (`upper`) lives with the container's record and survives stops and
//! reboots; the overlay is mounted for as long as the container runs. Where the kernel has no
//! overlayfs, a copy of the layers (`copy`) is in the place of both. In a user namespace all of
//! them are id-mapped (`mapped`).

mod copy;
mod mapped;
mod quota;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::symlinkat;

use crate::userns::Users;

pub(crate) use copy::lay;
pub(crate) use mapped::{probe as probe_mapped, view as mapped_view};
pub use quota::{QuotaError, quotas_enforced};

/// A root filesystem that could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct RootfsError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn error<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> RootfsError {
    move |source| RootfsError {
        action,
        path: path.to_owned(),
        source: source.into(),
    }
}

impl RootfsError {
    /// True if the kernel does not know the filesystem that was to be mounted.
    fn is_unknown_filesystem(&self) -> bool {
        self.source.raw_os_error() == Some(Errno::ENODEV as i32)
    }

    /// With the reason why there is no overlay of id-mapped layers.
    fn of_mapped(mut self) -> Self {
        let reason = match self.source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENODEV) => "user namespaces need overlayfs, which this kernel lacks",
            Some(Errno::EINVAL) => "its overlayfs takes no id-mapped layers: Linux 5.19 does",
            _ => return self,
        };
        self.source = io::Error::other(reason);
        self
    }
}

/// How a root filesystem came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Layers are shared with other containers.
    Overlay,
    /// The container has a copy of its own.
    Copy,
}

/// Where the parts of a root filesystem are.
#[derive(Debug)]
pub(crate) struct Rootfs<'a> {
    /// Layer directories, lowest first.
    pub(crate) layers: &'a [PathBuf],
    /// Directory that holds `upper` and `work`, or `copy`.
    pub(crate) writable: &'a Path,
    /// Mount point.
    pub(crate) target: &'a Path,
    /// Bytes that the writable layer may take.
    pub(crate) limit: Option<u64>,
    /// Whose files they appear to be; as on disk where absent.
    pub(crate) users: Option<&'a Users>,
}

/// The parts of an overlay. Mount data is bounded by a page: descriptors are short names for long
/// paths.
struct Overlay {
    /// Lowest first.
    lowers: Vec<OwnedFd>,
    upper: OwnedFd,
    work: OwnedFd,
}

impl Overlay {
    fn mount(&self, target: &Path) -> Result<(), RootfsError> {
        let name = |fd: &OwnedFd| format!("/proc/self/fd/{}", fd.as_raw_fd());
        // The first named is the topmost.
        let lowers: Vec<String> = self.lowers.iter().rev().map(name).collect();
        let data = format!(
            "lowerdir={},upperdir={},workdir={}",
            lowers.join(":"),
            name(&self.upper),
            name(&self.work)
        );
        let kind = Some("overlay");
        mount(kind, target, kind, MsFlags::empty(), Some(data.as_str()))
            .map_err(error("mount an overlay on", target))
    }
}

impl Rootfs<'_> {
    /// Mounts the root on `target`, which is created. Not idempotent: a mounted target is to be
    /// unmounted first. Without overlayfs it takes as long as copying the image once, and as much
    /// room; what a crash interrupts is done anew.
    pub(crate) fn mount(&self) -> Result<Kind, RootfsError> {
        match self.mount_overlay() {
            // A copy would be in the way of its limit, and its ids are not mapped.
            Err(error)
                if error.is_unknown_filesystem()
                    && self.limit.is_none()
                    && self.users.is_none() =>
            {
                self.mount_copy().map(|()| Kind::Copy)
            }
            mounted => mounted.map(|()| Kind::Overlay),
        }
    }

    fn mount_overlay(&self) -> Result<(), RootfsError> {
        let upper = self.writable.join("upper");
        let work = self.writable.join("work");
        self.create_upper(&upper)?;
        for dir in [&work, self.target] {
            fs::create_dir_all(dir).map_err(error("create", dir))?;
        }
        if let Some(bytes) = self.limit {
            quota::limit(self.writable, [&upper, &work], bytes)
                .map_err(|reason| error("limit", self.writable)(io::Error::other(reason)))?;
        }
        let mut layers = self.layers.to_vec();
        if layers.is_empty() {
            // An overlay needs one; an image may have no files.
            let empty = self.writable.join("empty");
            fs::create_dir_all(&empty).map_err(error("create", &empty))?;
            layers.push(empty);
        }
        if let Some(users) = self.users {
            return mapped::mount_overlay(&layers, self.writable, self.target, users);
        }
        let lowers = layers.iter().map(|layer| open_path(layer));
        let overlay = Overlay {
            lowers: lowers.collect::<Result<_, _>>()?,
            upper: open_path(&upper)?,
            work: open_path(&work)?,
        };
        overlay.mount(self.target)
    }

    fn mount_copy(&self) -> Result<(), RootfsError> {
        let copy = self.writable.join("copy");
        if !copy.is_dir() {
            self.copy_to(&copy)
                .map_err(error("copy the layers to", &copy))?;
        }
        fs::create_dir_all(self.target).map_err(error("create", self.target))?;
        bind(&open_path(&copy)?, self.target, None)
    }

    /// The copy has its name once it is whole, and on the disk.
    fn copy_to(&self, copy: &Path) -> io::Result<()> {
        let staging = copy.with_extension("new");
        let remove = || match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        remove()?;
        fs::create_dir(&staging)?;
        let copied = self
            .layers
            .iter()
            // A layer may be a link to one elsewhere.
            .try_for_each(|layer| lay(&layer.canonicalize()?, &staging));
        let flushed = copied.and_then(|()| {
            rustix::fs::syncfs(File::open(&staging)?)?;
            fs::rename(&staging, copy)?;
            File::open(self.writable)?.sync_all()
        });
        if flushed.is_err() {
            // A full disk should not stay full of a part.
            let _ = remove();
        }
        flushed
    }

    /// The merged root shows the upper directory's owner and mode: they must be the image's.
    fn create_upper(&self, upper: &Path) -> Result<(), RootfsError> {
        if upper.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(upper).map_err(error("create", upper))?;
        let Some(top) = self.layers.last() else {
            return Ok(());
        };
        let meta = fs::metadata(top).map_err(error("read the layer", top))?;
        chown(upper, Some(meta.uid()), Some(meta.gid())).map_err(error("chown", upper))?;
        fs::set_permissions(upper, fs::Permissions::from_mode(meta.mode() & 0o7777))
            .map_err(error("chmod", upper))
    }
}

fn open_path(path: &Path) -> Result<OwnedFd, RootfsError> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty()).map_err(error("open", path))
}

/// Unmounts whatever is mounted on `target`. Idempotent: what is not mounted, or not
/// there, is no error.
pub(crate) fn unmount(target: &Path) -> Result<(), RootfsError> {
    loop {
        match umount2(target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(error("unmount", target)(errno)),
        }
    }
}

/// Creates the directory `path` and its missing parents beneath `root` with mode 0755, as
/// Docker does for a working directory that the image lacks. Symbolic links are the
/// image's and so resolved beneath `root`, never out of it.
pub(crate) fn create_dir_beneath(root: &Path, path: &Path) -> Result<(), RootfsError> {
    let base = File::open(root).map_err(error("open", root))?;
    let mut parent = open_dir_in(&base, Path::new(".")).map_err(error("open", root))?;
    let mut walked = PathBuf::new();
    for component in path.components() {
        let Component::Normal(name) = component else {
            continue;
        };
        walked.push(name);
        parent = match open_dir_in(&base, &walked) {
            Ok(dir) => dir,
            Err(Errno::ENOENT) => {
                mkdirat(&parent, name, Mode::from_bits_truncate(0o755))
                    .map_err(error("create", path))?;
                open_dir_in(&base, &walked).map_err(error("open", path))?
            }
            Err(errno) => return Err(error("create", path)(errno)),
        };
    }
    Ok(())
}

/// Makes `/etc/mtab` a link to the mounts of whoever reads it, as Docker does where the image
/// has none.
pub(crate) fn link_mtab(root: &Path) -> Result<(), RootfsError> {
    let path = Path::new("/etc/mtab");
    create_dir_beneath(root, Path::new("/etc"))?;
    let Some(etc) = open_dir_beneath(root, Path::new("/etc"))? else {
        return Ok(());
    };
    match symlinkat("/proc/mounts", &etc, "mtab") {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(error("create", path)(errno)),
    }
}

/// Opens the directory `path` beneath `root`; `None` where there is none. Symbolic links are
/// resolved as if `root` were `/`.
pub(crate) fn open_dir_beneath(root: &Path, path: &Path) -> Result<Option<OwnedFd>, RootfsError> {
    let base = File::open(root).map_err(error("open", root))?;
    let path = path.strip_prefix("/").unwrap_or(path);
    match open_dir_in(&base, path) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(errno) => Err(error("open", &root.join(path))(errno)),
    }
}

/// Opens the file or directory `path` beneath `root`, with no symbolic link on the way;
/// `None` where there is none.
pub(crate) fn open_beneath(root: &Path, path: &Path) -> Result<Option<OwnedFd>, RootfsError> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut here: OwnedFd = File::open(root).map_err(error("open", root))?.into();
    for component in path.components() {
        let Component::Normal(name) = component else {
            continue;
        };
        here = match openat(&here, name, flags, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            Err(errno) => return Err(error("open", &root.join(path))(errno)),
        };
        let kind = fstat(&here).map_err(error("examine", path))?.st_mode & SFlag::S_IFMT.bits();
        if kind == SFlag::S_IFLNK.bits() {
            let refused = io::Error::other("a symbolic link is on the way");
            return Err(error("open", &root.join(path))(refused));
        }
    }
    Ok(Some(here))
}

/// Mounts what is open on `target`, which is made of the same kind.
pub(crate) fn bind(
    source: &OwnedFd,
    target: &Path,
    users: Option<&Users>,
) -> Result<(), RootfsError> {
    let parent = target.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(error("create", parent))?;
    let kind = fstat(source).map_err(error("examine", target))?.st_mode & SFlag::S_IFMT.bits();
    let made = if kind == SFlag::S_IFDIR.bits() {
        fs::create_dir_all(target)
    } else {
        File::create(target).map(drop)
    };
    made.map_err(error("create", target))?;
    if let Some(users) = users {
        return mapped::bind(source, target, users);
    }
    let source = format!("/proc/self/fd/{}", source.as_raw_fd());
    let none: Option<&str> = None;
    mount(Some(source.as_str()), target, none, MsFlags::MS_BIND, none)
        .map_err(error("bind", target))
}

/// Mounts a memory file system of `size` bytes for shared memory on `target`.
pub(crate) fn mount_shm(target: &Path, size: u64) -> Result<(), RootfsError> {
    fs::create_dir_all(target).map_err(error("create", target))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let data = format!("mode=1777,size={size}");
    mount(
        Some("shm"),
        target,
        Some("tmpfs"),
        flags,
        Some(data.as_str()),
    )
    .map_err(error("mount shared memory on", target))
}

/// Opens a directory beneath `root`, out of which no link leads.
fn open_dir_in(root: &File, path: &Path) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(root, path, how) {
        // EPERM: what a seccomp filter older than the call answers.
        Err(Errno::ENOSYS | Errno::EPERM) => walk_to_dir_in(root, path),
        opened => opened,
    }
}

/// As [`open_dir_in`], for kernels before Linux 5.6. Nothing of the container runs yet that
/// could exchange what was looked at.
fn walk_to_dir_in(root: &File, path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let top = openat(root, ".", flags, Mode::empty())?;
    let mut below: Vec<OwnedFd> = Vec::new();
    let mut names: Vec<OsString> = names_from_last(path);
    let mut links = 0;
    while let Some(name) = names.pop() {
        if name == ".." {
            below.pop();
            continue;
        }
        let here = below.last().unwrap_or(&top);
        match openat(here, name.as_os_str(), flags, Mode::empty()) {
            Ok(dir) => below.push(dir),
            // What a link is called with these flags.
            Err(Errno::ENOTDIR | Errno::ELOOP) if links < LINKS_MAX => {
                let target = readlinkat(here, name.as_os_str()).map_err(|_| Errno::ENOTDIR)?;
                let target = PathBuf::from(target);
                if target.is_absolute() {
                    below.clear();
                }
                names.extend(names_from_last(&target));
                links += 1;
            }
            Err(Errno::ENOTDIR) => return Err(Errno::ELOOP),
            Err(errno) => return Err(errno),
        }
    }
    Ok(below.pop().unwrap_or(top))
}

/// The names in a path and its "..", the last first.
pub(crate) fn names_from_last(path: &Path) -> Vec<OsString> {
    let names = path.components().rev();
    names
        .filter(|name| matches!(name, Component::Normal(_) | Component::ParentDir))
        .map(|name| name.as_os_str().to_owned())
        .collect()
}

/// As many links as the kernel follows.
pub(crate) const LINKS_MAX: u32 = 40;

#[cfg(test)]
mod tests;
