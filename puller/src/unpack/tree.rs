//! Directories beneath the root of a layer, reached without ever leaving it.
//!
//! A path inside a layer may run through symlinks the same layer made; like docker (which changes
//! root) and umoci, such a link is followed as if the layer were the whole file system. Nothing else
//! may write to the tree meanwhile: it is a staging directory of our own.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sys;

/// Symlinks followed in one path, the kernel's limit.
const MAX_LINKS: usize = 40;
/// How often a resolution that raced with a rename elsewhere is repeated (openat2(2), EAGAIN).
const MAX_RACES: usize = 16;
/// Directories held open; deeper trees are opened again on the way up.
const MAX_OPEN: usize = 32;
/// Mode of a directory that an archive uses but does not list.
const IMPLICIT: u32 = 0o755;
/// Hides a directory's content in lower layers (kernel, overlayfs.rst).
const OPAQUE: &std::ffi::CStr = c"trusted.overlay.opaque";

const DIRECTORY: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_CLOEXEC);

/// How a path is resolved inside the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolver {
    /// The kernel confines the resolution (openat2, since Linux 5.6).
    Kernel,
    /// Component by component, each opened without following a link.
    Walk,
}

/// Whether missing directories are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Create,
    Fail,
}

/// The root of a layer that is being unpacked.
#[derive(Debug)]
pub(crate) struct Tree {
    root: Rc<OwnedFd>,
    resolver: Resolver,
    /// The directory used last and some above it: archives go down and come back up.
    open: Vec<(Vec<u8>, Rc<OwnedFd>)>,
    /// Directories made because an entry needed them, and not listed since.
    implied: BTreeSet<Vec<u8>>,
    /// Bytes that went into `implied`.
    implied_bytes: usize,
    replaced: bool,
}

impl Resolver {
    /// The best one this kernel (or its seccomp filter) allows.
    pub(crate) fn probe() -> Self {
        match openat2(nix::fcntl::AT_FDCWD, c"/", confined(DIRECTORY)) {
            Ok(_) => Self::Kernel,
            Err(_) => Self::Walk,
        }
    }
}

impl Tree {
    pub(crate) fn open(root: &Path, resolver: Resolver) -> Result<Self, Errno> {
        let root = open(root, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())?;
        Ok(Self {
            root: Rc::new(root),
            resolver,
            open: Vec::new(),
            implied: BTreeSet::from([Vec::new()]),
            implied_bytes: 0,
            replaced: false,
        })
    }

    /// The archive lists the directory `path`.
    pub(crate) fn list(&mut self, path: &[u8]) {
        self.implied.remove(path);
    }

    /// Bytes that names of unlisted directories take, at most.
    pub(crate) fn memory(&self) -> usize {
        self.implied_bytes
    }

    /// The directories that the archive used but did not list.
    pub(crate) fn into_implied(self) -> BTreeSet<Vec<u8>> {
        self.implied
    }

    /// True if anything was ever removed: then a name may be something else than it was.
    pub(crate) fn has_replaced(&self) -> bool {
        self.replaced
    }

    pub(crate) fn root(&self) -> Rc<OwnedFd> {
        self.root.clone()
    }

    /// Opens the directory that `components` name, as an `O_PATH` descriptor.
    pub(crate) fn directory(
        &mut self,
        components: &[&[u8]],
        missing: Missing,
    ) -> Result<Rc<OwnedFd>, Errno> {
        if components.is_empty() {
            return Ok(self.root());
        }
        let path = components.join(&b'/');
        while let Some((last, fd)) = self.open.last() {
            if *last == path {
                return Ok(fd.clone());
            }
            if is_below(&path, last) {
                break;
            }
            self.open.pop();
        }
        let found = match self.resolver {
            Resolver::Kernel => self.resolve(&path),
            Resolver::Walk => Err(Errno::ENOENT),
        };
        let fd = match found {
            Err(Errno::ENOENT | Errno::ENOTDIR) => self.walk(components, missing)?,
            other => other?,
        };
        let fd = Rc::new(fd);
        if self.open.len() == MAX_OPEN {
            self.open.remove(0);
        }
        self.open.push((path, fd.clone()));
        Ok(fd)
    }

    /// Removes `name` from `directory`, with everything below it.
    pub(crate) fn remove(&mut self, directory: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        // What was cached may lie below, or be reached through, what disappears.
        self.open.clear();
        self.replaced = true;
        remove(directory, name)
    }

    fn resolve(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut races = 0;
        loop {
            match openat2(&self.root, path, confined(DIRECTORY)) {
                Err(Errno::EAGAIN) if races < MAX_RACES => races += 1,
                other => return other,
            }
        }
    }

    fn walk(&mut self, components: &[&[u8]], missing: Missing) -> Result<OwnedFd, Errno> {
        let mut todo: Vec<Vec<u8>> = components.iter().rev().map(|name| name.to_vec()).collect();
        let mut here = self.root.try_clone().map_err(errno)?;
        let mut depth = 0_usize;
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                // Above the root there is only the root.
                b".." if depth == 0 => continue,
                b".." => {
                    here = openat(&here, c"..", DIRECTORY, Mode::empty())?;
                    depth -= 1;
                    continue;
                }
                _ => {}
            }
            match openat(
                &here,
                name.as_slice(),
                DIRECTORY | OFlag::O_NOFOLLOW,
                Mode::empty(),
            ) {
                Ok(next) => {
                    here = next;
                    depth += 1;
                }
                Err(Errno::ENOENT) if missing == Missing::Create => {
                    make_directory(&here, &name)?;
                    if links == 0 {
                        // Without links the path so far is the one that was asked for.
                        let path = components[..=depth].join(&b'/');
                        self.implied_bytes += path.len() + size_of::<Vec<u8>>();
                        self.implied.insert(path);
                    }
                    todo.push(name);
                }
                Err(Errno::ENOTDIR | Errno::ELOOP) => {
                    let Some(target) = link_target(&here, &name)? else {
                        uncover(&here, &name, missing)?;
                        todo.push(name);
                        continue;
                    };
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::ELOOP);
                    }
                    if target.starts_with(b"/") {
                        here = self.root.try_clone().map_err(errno)?;
                        depth = 0;
                    }
                    todo.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(here)
    }
}

/// Marks the directory `name` in `directory` as hiding what lower layers have there.
pub(crate) fn set_opaque(directory: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    sys::lsetxattr(&proc_path(directory, name), OPAQUE, b"y").map_err(errno)
}

/// True if the directory at `path` hides what lower layers have there.
pub(crate) fn hides_lower(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes()).is_ok_and(|path| sys::has_xattr(&path, OPAQUE))
}

/// A path to `name` in `directory` for calls that take no descriptor. `name` is one component and,
/// being the last, is not followed if the call does not follow links; `.` is the directory itself.
pub(crate) fn proc_path(directory: &OwnedFd, name: &[u8]) -> CString {
    use std::os::fd::AsRawFd;
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    CString::new(path).expect("invariant: names with NUL were refused")
}

/// True for overlayfs's whiteout, a character device 0:0.
pub(crate) fn is_whiteout(stat: &FileStat) -> bool {
    file_type(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

pub(crate) fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// The state of `name` in `directory`, nothing if there is none; a link is not followed.
pub(crate) fn stat(directory: &OwnedFd, name: &[u8]) -> Result<Option<FileStat>, Errno> {
    match fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// True if `path` lies below the directory `above`.
fn is_below(path: &[u8], above: &[u8]) -> bool {
    let rest = path.strip_prefix(above);
    rest.is_some_and(|rest| rest.starts_with(b"/"))
}

fn confined(flags: OFlag) -> OpenHow {
    OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

fn make_directory(parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    mkdirat(parent, name, Mode::from_bits_truncate(IMPLICIT))?;
    // Again, since the process's umask may have taken bits away.
    let mode = Mode::from_bits_truncate(IMPLICIT);
    fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink)
}

/// Makes way for a directory where a whiteout of the same layer stands: the new directory hides
/// what the whiteout hid.
fn uncover(parent: &OwnedFd, name: &[u8], missing: Missing) -> Result<(), Errno> {
    let whiteout = stat(parent, name)?.is_some_and(|stat| is_whiteout(&stat));
    if !whiteout || missing == Missing::Fail {
        return Err(Errno::ENOTDIR);
    }
    unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?;
    make_directory(parent, name)?;
    set_opaque(parent, name)
}

/// Where the symlink `name` leads, nothing if it is no symlink.
fn link_target(parent: &OwnedFd, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    use std::os::unix::ffi::OsStringExt;
    match readlinkat(parent, name) {
        Ok(target) => Ok(Some(target.into_vec())),
        Err(Errno::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

fn remove(directory: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR) => {}
        other => return other,
    }
    // The path's first part is a descriptor of ours, and the standard library does not follow links
    // while it descends.
    use std::os::unix::ffi::OsStrExt;
    let path = proc_path(directory, name);
    std::fs::remove_dir_all(std::ffi::OsStr::from_bytes(path.as_bytes())).map_err(errno)
}

#[allow(clippy::needless_pass_by_value, reason = "the signature of `map_err`")]
fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Flushes the file system that holds `directory`.
pub(crate) fn sync(directory: &Path) -> Result<(), Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let fd = open(directory, flags, Mode::empty())?;
    nix::unistd::syncfs(fd.as_fd())
}
