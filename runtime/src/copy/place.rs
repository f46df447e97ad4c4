//! Paths within a root.
//!
//! A path is walked name by name, each opened relative to the directory before it and without
//! following links; a link is read and its words are walked, from the root where it is
//! absolute. So the links of `/proc`, which lead anywhere, are only words too, and this works
//! as well before Linux 5.6, which has no openat2. Whoever exchanges what was looked at gets
//! another file of the same root, or an error.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fstat, fstatat};

use super::{CopyError, FileKind, FileStat, names_directory};
use crate::rootfs::{LINKS_MAX, names_from_last};

const DIRECTORY: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// A directory that is taken for `/`.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory that has it.
    pub(super) parent: OwnedFd,
    /// Its name there; `.` for the root.
    pub(super) name: OsString,
    /// The same from the root on.
    pub(super) path: PathBuf,
}

impl Root {
    /// Opens the directory `path` of the host.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(open(path, flags, Mode::empty())?))
    }

    /// What is at `path`, at the end of all links if `follow`.
    ///
    /// # Errors
    /// Where not even the directory is there, or it cannot be looked at.
    pub fn stat(&self, path: &Path, follow: bool) -> Result<FileStat, CopyError> {
        let look = || {
            let place = self.find(path, follow || names_directory(path))?;
            let kind = place.kind()?;
            if names_directory(path) && kind.is_some_and(|kind| kind != FileKind::Directory) {
                return Err(io::Error::from(Errno::ENOTDIR));
            }
            Ok(FileStat {
                path: place.path,
                kind,
            })
        };
        look().map_err(CopyError::new("find", path))
    }

    /// Resolves `path`; what it names need not be there, its directory must.
    pub(super) fn find(&self, path: &Path, follow: bool) -> io::Result<Place> {
        let mut names = names_from_last(path);
        let mut walked = PathBuf::from("/");
        let mut here = self.top()?;
        let mut links = 0;
        while let Some(name) = names.pop() {
            if name == ".." {
                walked.pop();
                here = self.descend(&walked)?;
                continue;
            }
            let last = names.is_empty();
            if !last || follow {
                match link(&here, &name)? {
                    Some(_) if links == LINKS_MAX => return Err(Errno::ELOOP.into()),
                    Some(target) => {
                        links += 1;
                        if target.is_absolute() {
                            walked = PathBuf::from("/");
                            here = self.top()?;
                        }
                        names.extend(names_from_last(&target));
                        continue;
                    }
                    None => {}
                }
            }
            walked.push(&name);
            if last {
                return Ok(Place {
                    parent: here,
                    name,
                    path: walked,
                });
            }
            here = openat(&here, name.as_os_str(), DIRECTORY, Mode::empty())?;
        }
        Ok(Place {
            parent: here,
            name: ".".into(),
            path: walked,
        })
    }

    fn top(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Goes down a path that was walked before.
    fn descend(&self, path: &Path) -> io::Result<OwnedFd> {
        let mut here = self.top()?;
        for component in path.components() {
            if let Component::Normal(name) = component {
                here = openat(&here, name, DIRECTORY, Mode::empty())?;
            }
        }
        Ok(here)
    }
}

impl Place {
    /// Opens the directory that it is.
    pub(super) fn directory(&self) -> io::Result<OwnedFd> {
        Ok(openat(
            &self.parent,
            self.name.as_os_str(),
            DIRECTORY,
            Mode::empty(),
        )?)
    }

    pub(super) fn kind(&self) -> io::Result<Option<FileKind>> {
        kind_of(&self.parent, &self.name)
    }
}

/// What `name` is in `parent`; a link is a link.
pub(super) fn kind_of(parent: &OwnedFd, name: &OsStr) -> io::Result<Option<FileKind>> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(kind(stat.st_mode))),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

pub(super) fn kind(mode: nix::libc::mode_t) -> FileKind {
    match SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => FileKind::File,
        SFlag::S_IFDIR => FileKind::Directory,
        SFlag::S_IFLNK => FileKind::Symlink,
        _ => FileKind::Other,
    }
}

/// Opens the regular file that `node` is for reading: the very file, whatever has its name
/// meanwhile, and nothing that opening would do something to.
pub(super) fn open_file(node: &OwnedFd) -> io::Result<std::fs::File> {
    if kind(fstat(node)?.st_mode) != FileKind::File {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    std::fs::File::open(format!("/proc/self/fd/{}", node.as_raw_fd()))
}

/// Where the link `name` leads; nothing where it is none, or not there.
fn link(parent: &OwnedFd, name: &OsStr) -> io::Result<Option<PathBuf>> {
    match readlinkat(parent, name) {
        Ok(target) => Ok(Some(target.into())),
        Err(Errno::EINVAL | Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
