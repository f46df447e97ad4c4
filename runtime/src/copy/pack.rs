//! From a root to an archive.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor};
use tar::{Builder, EntryType, Header};

use super::extensions::ATTRIBUTE;
use super::place::open_file;
use super::{CopyError, FileKind, Root, names_content, names_directory};
use crate::attributes;

/// Directories within each other at most.
const DEPTH_MAX: usize = 512;

struct Packer<W: Write> {
    out: Builder<W>,
    /// First names of files with more than one.
    links: HashMap<(u64, u64), PathBuf>,
    left_out: Vec<PathBuf>,
    depth: usize,
}

/// Writes what is at `path`, and all below it, as an archive to `out`: under the last name of
/// `path`, or what is in it without it where `path` ends with `/.`. A link is followed if
/// `follow`, or if `path` says that it is a directory. Holes of files become zeros; a file that
/// grows meanwhile is cut where it ended. Extended attributes are PAX records. Returns what was left
/// out: sockets.
///
/// # Errors
/// There is nothing at `path`, something cannot be read, a file became shorter meanwhile, or
/// `out` takes no more. The archive has no end then.
pub fn pack(
    root: &Root,
    path: &Path,
    follow: bool,
    out: impl Write,
) -> Result<Vec<PathBuf>, CopyError> {
    let failed = || CopyError::new("read", path);
    let place = root.find(path, follow || names_directory(path));
    let place = place.map_err(failed())?;
    let mut packer = Packer {
        out: Builder::new(out),
        links: HashMap::new(),
        left_out: Vec::new(),
        depth: 0,
    };
    let name = match path.file_name() {
        _ if place.path == Path::new("/") => OsStr::new(""),
        _ if names_content(path) => OsStr::new(""),
        Some(name) => name,
        None => place.path.file_name().unwrap_or_default(),
    };
    packer.node(&place.parent, &place.name, Path::new(name))?;
    let mut out = packer.out.into_inner().map_err(failed())?;
    out.flush().map_err(failed())?;
    Ok(packer.left_out)
}

impl<W: Write> Packer<W> {
    /// What `leaf` is in `parent`, under `name` in the archive.
    fn node(&mut self, parent: &OwnedFd, leaf: &OsStr, name: &Path) -> Result<(), CopyError> {
        let failed = || CopyError::new("read", name);
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let node = openat(parent, leaf, flags, Mode::empty());
        let node = node.map_err(|errno| failed()(errno.into()))?;
        let stat = fstat(&node).map_err(|errno| failed()(errno.into()))?;
        let type_bits = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        let written = match super::place::kind(stat.st_mode) {
            FileKind::Directory => return self.directory(&node, &stat, name),
            FileKind::File => self.file(&node, &stat, name),
            FileKind::Symlink => readlinkat(&node, c"")
                .map_err(io::Error::from)
                .and_then(|target| self.link(&stat, name, EntryType::Symlink, target.as_ref())),
            FileKind::Other => match type_bits {
                SFlag::S_IFIFO => self.special(&node, header(&stat, EntryType::Fifo), name),
                SFlag::S_IFCHR => self.device(&node, &stat, EntryType::Char, name),
                SFlag::S_IFBLK => self.device(&node, &stat, EntryType::Block, name),
                _ => {
                    self.left_out.push(name.to_owned());
                    Ok(())
                }
            },
        };
        written.map_err(failed())
    }

    fn directory(&mut self, node: &OwnedFd, stat: &FileStat, name: &Path) -> Result<(), CopyError> {
        let failed = || CopyError::new("read", name);
        if self.depth == DEPTH_MAX {
            let reason = format!("more than {DEPTH_MAX} directories within each other");
            return Err(failed()(io::Error::other(reason)));
        }
        if !name.as_os_str().is_empty() {
            let header = header(stat, EntryType::Directory);
            self.special(node, header, name).map_err(failed())?;
        }
        self.depth += 1;
        for child in names(node).map_err(failed())? {
            let child = OsStr::from_bytes(&child);
            match self.node(node, child, &name.join(child)) {
                // It was removed meanwhile.
                Err(error) if error.is_not_found() => {}
                result => result?,
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn file(&mut self, node: &OwnedFd, stat: &FileStat, name: &Path) -> io::Result<()> {
        if stat.st_nlink > 1 {
            let key = (wide(stat.st_dev), wide(stat.st_ino));
            if let Some(first) = self.links.get(&key).cloned() {
                return self.link(stat, name, EntryType::Link, &first);
            }
            self.links.insert(key, name.to_owned());
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut content = open_file(node)?.take(size);
        let mut header = header(stat, EntryType::Regular);
        header.set_size(size);
        self.attributes(node)?;
        self.out.append_data(&mut header, name, &mut content)?;
        match content.limit() {
            0 => Ok(()),
            _ => Err(io::Error::other("it became shorter while it was read")),
        }
    }

    fn device(
        &mut self,
        node: &OwnedFd,
        stat: &FileStat,
        kind: EntryType,
        name: &Path,
    ) -> io::Result<()> {
        let mut header = header(stat, kind);
        let number = wide(stat.st_rdev);
        let part = |part: u64| u32::try_from(part).map_err(io::Error::other);
        header.set_device_major(part(major(number))?)?;
        header.set_device_minor(part(minor(number))?)?;
        self.special(node, header, name)
    }

    /// A member without content.
    fn special(&mut self, node: &OwnedFd, mut header: Header, name: &Path) -> io::Result<()> {
        self.attributes(node)?;
        self.out.append_data(&mut header, name, io::empty())
    }

    /// Those of `node`, as records before its header; but names that records cannot hold.
    fn attributes(&mut self, node: &OwnedFd) -> io::Result<()> {
        let attributes = attributes::read(node)?;
        let records = attributes.iter().filter_map(|(name, value)| {
            let name = std::str::from_utf8(name).ok();
            let name = name.filter(|name| !name.contains('='))?;
            Some((format!("{ATTRIBUTE}{name}"), value))
        });
        let records: Vec<_> = records.collect();
        let records = records.iter();
        let records = records.map(|(key, value)| (key.as_str(), value.as_slice()));
        self.out.append_pax_extensions(records)
    }

    fn link(
        &mut self,
        stat: &FileStat,
        name: &Path,
        kind: EntryType,
        target: &Path,
    ) -> io::Result<()> {
        let mut header = header(stat, kind);
        self.out.append_link(&mut header, name, target)
    }
}

/// The names in a directory, sorted.
fn names(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let readable = openat(directory, c".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(readable)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn header(stat: &FileStat, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header
}

/// Widths differ between architectures.
fn wide(number: impl Into<u64>) -> u64 {
    number.into()
}
