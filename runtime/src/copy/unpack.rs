//! From an archive into a root.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, futimens, makedev, mkdirat,
    mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, symlinkat, unlinkat};
use tar::{Archive, Entry, EntryType, Header};

use super::extensions::{Extensions, Tap};
use super::place::{Place, kind_of};
use super::{CopyError, FileKind, Root};
use crate::attributes::{self, Attribute, is_carried};

/// Where and how the archive's members are placed.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    /// The directory, which must be there.
    pub into: PathBuf,
    /// The name that the archive's topmost one is given.
    pub rename: Option<OsString>,
    /// Owner and group of everything; as the archive has them where absent.
    pub owner: Option<(u32, u32)>,
}

struct Unpacker<'a> {
    root: &'a Root,
    placement: &'a Placement,
    /// New directories, which get mode and time when nothing is placed in them any more.
    directories: Vec<(PathBuf, Attributes)>,
    left_out: Vec<PathBuf>,
}

/// What a file has beside its content.
#[derive(Debug)]
struct Attributes {
    owner: (u32, u32),
    mode: u32,
    mtime: i64,
    extended: Vec<Attribute>,
}

/// Places what the archive `from` has. A directory that is there keeps its owner, mode and
/// other files; anything else of the same name is replaced, a file in one step, except where it
/// is a mount: then it is written to. Zeros are holes where whole blocks are. Without their owners
/// files also lose what depends on these: set-user-id, set-group-id, and extended attributes but
/// those of users; a device is its owner's alone. Returns what was left out: kinds that nobody
/// knows, and devices where this process may not make them.
///
/// # Errors
/// The archive is damaged, leads out of the directory, has a directory where a file is or a
/// file where a directory is, or something cannot be written.
pub fn unpack(
    root: &Root,
    placement: &Placement,
    from: impl Read,
) -> Result<Vec<PathBuf>, CopyError> {
    let into = &placement.into;
    let place = root.find(into, true).and_then(|place| place.directory());
    place.map_err(CopyError::new("copy to", into))?;
    let mut unpacker = Unpacker {
        root,
        placement,
        directories: Vec::new(),
        left_out: Vec::new(),
    };
    let damaged = || CopyError::new("read the archive for", into);
    let (tap, headers) = Tap::new(from);
    let mut archive = Archive::new(tap);
    let mut entries = archive.entries().map_err(damaged())?;
    loop {
        headers.begin();
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.map_err(damaged())?;
        let extensions = headers.end(entry.raw_header_position());
        unpacker.entry(&mut entry, extensions.map_err(damaged())?)?;
        io::copy(&mut entry, &mut io::sink()).map_err(damaged())?;
    }
    headers.pause();
    // Whoever writes the archive is not cut off in the padding behind its end.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(damaged())?;
    unpacker.finish()
}

impl Unpacker<'_> {
    fn entry(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        said: Extensions,
    ) -> Result<(), CopyError> {
        let kind = entry.header().entry_type();
        // It is about the archive, and no file.
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let name = said.path.map(OsString::from_vec);
        let name = name.unwrap_or_else(|| bytes(entry.header().path_bytes()));
        let name = PathBuf::from(name);
        let failed = || CopyError::new("write", &name);
        let Some(path) = self.inside(&name).map_err(failed())? else {
            return Ok(());
        };
        let link = said.link.map(OsString::from_vec);
        let link =
            link.unwrap_or_else(|| bytes(entry.header().link_name_bytes().unwrap_or_default()));
        let attributes = self.attributes(entry.header(), said.attributes);
        let attributes = attributes.map_err(failed())?;
        if kind == EntryType::Directory {
            return self.directory(&path, attributes).map_err(failed());
        }
        let place = self.prepare(&path).map_err(failed())?;
        let written = match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                write_file(&place, entry, &attributes)
            }
            EntryType::Symlink => symlink(&place, &link, &attributes),
            EntryType::Link => self.hard_link(&place, Path::new(&link)),
            EntryType::Fifo => special(&place, (SFlag::S_IFIFO, 0), &attributes),
            EntryType::Char | EntryType::Block => match device(entry.header()) {
                Ok(device) => match special(&place, device, &attributes) {
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                        self.left_out.push(name.clone());
                        Ok(())
                    }
                    made => made,
                },
                Err(error) => Err(error),
            },
            _ => {
                self.left_out.push(name.clone());
                Ok(())
            }
        };
        written.map_err(failed())
    }

    /// Where the member `name` goes, from the root on; nothing for the topmost directory.
    fn inside(&self, name: &Path) -> io::Result<Option<PathBuf>> {
        let mut path = self.placement.into.clone();
        let mut rename = self.placement.rename.as_deref();
        let mut empty = true;
        for component in name.components() {
            match component {
                Component::Normal(part) => path.push(rename.take().unwrap_or(part)),
                Component::RootDir | Component::CurDir => continue,
                _ => return Err(io::Error::other("its name leads out of the directory")),
            }
            empty = false;
        }
        Ok((!empty).then_some(path))
    }

    fn attributes(&self, header: &Header, mut said: Vec<Attribute>) -> io::Result<Attributes> {
        let id = |id: io::Result<u64>| {
            u32::try_from(id?).map_err(|_| io::Error::other("its owner is no number of 32 bits"))
        };
        let is_device = matches!(header.entry_type(), EntryType::Char | EntryType::Block);
        let (owner, kept) = match self.placement.owner {
            Some(owner) if is_device => (owner, 0o600),
            Some(owner) => (owner, 0o1777),
            None => ((id(header.uid())?, id(header.gid())?), 0o7777),
        };
        let with_owner = self.placement.owner.is_none();
        said.retain(|(name, _)| is_carried(name) && (with_owner || name.starts_with(b"user.")));
        Ok(Attributes {
            owner,
            mode: header.mode()? & kept,
            mtime: i64::try_from(header.mtime()?).unwrap_or(i64::MAX),
            extended: said,
        })
    }

    /// The place of a member that is no directory, whose directories are made if need be.
    fn prepare(&self, path: &Path) -> io::Result<Place> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        self.parents(parent)?;
        let place = self.root.find(path, false)?;
        match place.kind()? {
            Some(FileKind::Directory) => Err(io::Error::other("there is a directory of that name")),
            _ => Ok(place),
        }
    }

    /// Makes the missing directories of `path` below the one that must be there.
    fn parents(&self, path: &Path) -> io::Result<()> {
        let below = path.strip_prefix(&self.placement.into);
        let below = below.unwrap_or(Path::new(""));
        let mut walked = self.placement.into.clone();
        for part in below.components() {
            walked.push(part);
            let place = self.root.find(&walked, true)?;
            if place.kind()?.is_none() {
                let owner = self.placement.owner.unwrap_or((0, 0));
                make_directory(&place, owner)?;
                set_mode(&place, 0o755)?;
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: &Path, attributes: Attributes) -> io::Result<()> {
        self.parents(path.parent().unwrap_or(Path::new("/")))?;
        let place = self.root.find(path, true)?;
        match place.kind()? {
            Some(FileKind::Directory) => Ok(()),
            Some(_) => Err(io::Error::other("there is something else of that name")),
            None => {
                make_directory(&place, attributes.owner)?;
                self.directories.push((place.path, attributes));
                Ok(())
            }
        }
    }

    fn hard_link(&self, place: &Place, target: &Path) -> io::Result<()> {
        let target = self.inside(target)?;
        let target = target.ok_or_else(|| io::Error::other("its link has no target"))?;
        let target = self.root.find(&target, false)?;
        if target.path == place.path {
            return Ok(());
        }
        // Never a name for what a link leads to.
        unlink(place)?;
        Ok(linkat(
            &target.parent,
            target.name.as_os_str(),
            &place.parent,
            place.name.as_os_str(),
            AtFlags::empty(),
        )?)
    }

    fn finish(self) -> Result<Vec<PathBuf>, CopyError> {
        for (path, attributes) in self.directories.iter().rev() {
            let set = || {
                let place = self.root.find(path, false)?;
                if place.kind()? != Some(FileKind::Directory) {
                    return Err(Errno::ENOTDIR.into());
                }
                set_mode(&place, attributes.mode)?;
                attributes::set(node(&place)?, &attributes.extended)?;
                set_time(&place, attributes.mtime)
            };
            set().map_err(CopyError::new("write", path))?;
        }
        Ok(self.left_out)
    }
}

/// Only its owner may use it until it is whole.
fn make_directory(place: &Place, owner: (u32, u32)) -> io::Result<()> {
    mkdirat(&place.parent, place.name.as_os_str(), Mode::S_IRWXU)?;
    set_owner(place, owner)
}

fn write_file(place: &Place, content: &mut impl Read, attributes: &Attributes) -> io::Result<()> {
    let temporary = OsString::from(format!(".kobune-cp.{}", std::process::id()));
    let written = write_new(&place.parent, &temporary, content, attributes)
        .and_then(|file| put_in_place(place, &temporary, file));
    if written.is_err() {
        let _ = unlinkat(
            &place.parent,
            temporary.as_os_str(),
            UnlinkatFlags::NoRemoveDir,
        );
    }
    written
}

fn write_new(
    parent: &OwnedFd,
    name: &OsStr,
    content: &mut impl Read,
    attributes: &Attributes,
) -> io::Result<File> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mut file = File::from(openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    fill(&mut file, content)?;
    let (uid, gid) = ids(attributes.owner);
    nix::unistd::fchown(file.as_fd(), uid, gid)?;
    // Behind the owner, whose change takes away set-user-id and capabilities.
    fchmod(file.as_fd(), mode(attributes.mode))?;
    attributes::set(&file, &attributes.extended)?;
    let time = time(attributes.mtime);
    futimens(&file, &time, &time)?;
    Ok(file)
}

/// Gives the new file its name; what is a mount keeps its own file, with the new content.
fn put_in_place(place: &Place, temporary: &OsStr, mut file: File) -> io::Result<()> {
    let name = place.name.as_os_str();
    match renameat(&place.parent, temporary, &place.parent, name) {
        Err(Errno::EBUSY) => {}
        renamed => return Ok(renamed?),
    }
    if kind_of(&place.parent, name)? != Some(FileKind::File) {
        return Err(Errno::EBUSY.into());
    }
    let flags = OFlag::O_WRONLY | OFlag::O_TRUNC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let flags = flags | OFlag::O_CLOEXEC;
    let mut mounted = File::from(openat(&place.parent, name, flags, Mode::empty())?);
    io::Seek::rewind(&mut file)?;
    fill(&mut mounted, &mut file)?;
    Ok(unlinkat(
        &place.parent,
        temporary,
        UnlinkatFlags::NoRemoveDir,
    )?)
}

/// Writes `content` to a file that is empty, and leaves holes where blocks are nothing but zeros.
fn fill(file: &mut File, content: &mut impl Read) -> io::Result<()> {
    const BLOCK: usize = 4096;
    let mut buffer = vec![0; 16 * BLOCK];
    let mut length: u64 = 0;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match content.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        for block in buffer[..filled].chunks(BLOCK) {
            if block.iter().any(|byte| *byte != 0) {
                file.write_all_at(block, length)?;
            }
            length += block.len() as u64;
        }
        if filled < buffer.len() {
            return file.set_len(length);
        }
    }
}

fn symlink(place: &Place, target: &OsStr, attributes: &Attributes) -> io::Result<()> {
    unlink(place)?;
    symlinkat(target, &place.parent, place.name.as_os_str())?;
    set_owner(place, attributes.owner)?;
    set_time(place, attributes.mtime)
}

/// The kind and number of a device.
fn device(header: &Header) -> io::Result<(SFlag, u64)> {
    let kind = match header.entry_type() {
        EntryType::Char => SFlag::S_IFCHR,
        _ => SFlag::S_IFBLK,
    };
    let [major, minor] = [header.device_major()?, header.device_minor()?];
    let [major, minor] = [major, minor].map(|part| u64::from(part.unwrap_or(0)));
    Ok((kind, makedev(major, minor)))
}

/// A pipe or a device.
fn special(place: &Place, (kind, number): (SFlag, u64), attributes: &Attributes) -> io::Result<()> {
    unlink(place)?;
    let name = place.name.as_os_str();
    mknodat(&place.parent, name, kind, Mode::S_IRUSR, number)?;
    set_owner(place, attributes.owner)?;
    set_mode(place, attributes.mode)?;
    attributes::set(node(place)?, &attributes.extended)?;
    set_time(place, attributes.mtime)
}

/// Makes room for a member.
fn unlink(place: &Place) -> io::Result<()> {
    let name = place.name.as_os_str();
    match unlinkat(&place.parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn set_owner(place: &Place, owner: (u32, u32)) -> io::Result<()> {
    let (uid, gid) = ids(owner);
    let name = place.name.as_os_str();
    let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
    Ok(fchownat(&place.parent, name, uid, gid, flags)?)
}

/// Of what was just made.
fn set_mode(place: &Place, bits: u32) -> io::Result<()> {
    let node = node(place)?;
    let path = format!("/proc/self/fd/{}", node.as_raw_fd());
    let follow = FchmodatFlags::FollowSymlink;
    Ok(fchmodat(AT_FDCWD, path.as_str(), mode(bits), follow)?)
}

/// A descriptor of what is at `place`, which must be no link.
fn node(place: &Place) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let node = openat(&place.parent, place.name.as_os_str(), flags, Mode::empty())?;
    match super::place::kind(nix::sys::stat::fstat(&node)?.st_mode) {
        FileKind::Symlink => Err(Errno::ELOOP.into()),
        _ => Ok(node),
    }
}

fn set_time(place: &Place, mtime: i64) -> io::Result<()> {
    let time = time(mtime);
    let name = place.name.as_os_str();
    let follow = UtimensatFlags::NoFollowSymlink;
    Ok(utimensat(&place.parent, name, &time, &time, follow)?)
}

#[allow(clippy::useless_conversion, reason = "32 bits on some architectures")]
fn time(seconds: i64) -> TimeSpec {
    TimeSpec::new(seconds.try_into().unwrap_or(0), 0)
}

fn ids((uid, gid): (u32, u32)) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

fn bytes(name: Cow<'_, [u8]>) -> OsString {
    OsString::from_vec(name.into_owned())
}

fn mode(bits: u32) -> Mode {
    Mode::from_bits_truncate(bits)
}
