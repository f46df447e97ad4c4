//! Reading files of an image that nobody has vetted.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::FactsError;

/// Largest account file that is read: far above any real one, and small enough for devices.
const MAX_LEN: u64 = 4 << 20;

/// Non-blocking, because the image may have put a FIFO there.
const READ: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_CLOEXEC)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY);

/// Reads the regular file `path` (relative) below `rootfs` as text; bytes that are no
/// UTF-8 are replaced. A file that is missing is empty.
///
/// Symbolic links are resolved as if `rootfs` were `/`. Kernels before 5.6 cannot do so
/// without races: there a link anywhere in `path` is an error.
pub(super) fn read(rootfs: &Path, path: &Path) -> Result<String, FactsError> {
    open_inside(rootfs, path)
        .map_err(io::Error::from)
        .and_then(|fd| fd.map_or_else(|| Ok(String::new()), read_regular))
        .map_err(|source| FactsError::ImageFile {
            path: Path::new("/").join(path),
            source,
        })
}

fn open_inside(rootfs: &Path, path: &Path) -> Result<Option<OwnedFd>, Errno> {
    let root = open(
        rootfs,
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let how = OpenHow::new()
        .flags(READ)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let opened = match openat2(&root, path, how) {
        // EPERM: what a seccomp filter older than the call answers.
        Err(Errno::ENOSYS | Errno::EPERM) => open_without_links(root, path),
        other => other,
    };
    match opened {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens `path` below `root` one component at a time and fails on any symbolic link.
pub(super) fn open_without_links(root: OwnedFd, path: &Path) -> Result<OwnedFd, Errno> {
    let directory = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut at = root;
    let mut components = path.iter().peekable();
    while let Some(name) = components.next() {
        let flags = match components.peek() {
            Some(_) => directory,
            None => READ | OFlag::O_NOFOLLOW,
        };
        at = openat(&at, name, flags, Mode::empty()).map_err(|error| match error {
            // O_DIRECTORY with O_NOFOLLOW hides a link behind ENOTDIR.
            Errno::ENOTDIR if is_link(&at, name) => Errno::ELOOP,
            other => other,
        })?;
    }
    Ok(at)
}

fn is_link(directory: &OwnedFd, name: &std::ffi::OsStr) -> bool {
    nix::sys::stat::fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| file_type(stat.st_mode) == SFlag::S_IFLNK)
}

fn read_regular(fd: OwnedFd) -> io::Result<String> {
    let stat = fstat(&fd)?;
    if file_type(stat.st_mode) != SFlag::S_IFREG {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    File::from(fd).take(MAX_LEN + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(io::Error::other("larger than 4 MiB"));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn file_type(mode: nix::libc::mode_t) -> SFlag {
    SFlag::from_bits_truncate(mode) & SFlag::S_IFMT
}
