//! One entry becomes one file, directory, link or node, with its owner, mode, times and attributes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, fchmod, fchmodat, futimens, makedev, mkdirat, mknodat,
};
use nix::unistd::{fchown, fchownat, linkat, symlinkat};

use super::archive::{Archive, Entry, Kind, Time};
use super::error::{UnpackError, lossy};
use super::flush::Flusher;
use super::fresh::Fresh;
use super::listed::Listed;
use super::metadata::{attributes, mode, owner, set_times, timespec};
use super::path::components;
use super::tree::{self, Missing, Tree, set_opaque};
use super::{Files, Unpacked};
use crate::sys;

/// Bytes moved between the decoder and a file at once.
const BUFFER: usize = 128 * 1024;

/// Most memory for names of directories; the largest layers in use need a tenth of it. Tests, which
/// really make the directories, have less.
const MAX_NAMES: usize = if cfg!(test) { 256 << 10 } else { 16 << 20 };
/// The set-group-id bit.
const SET_GROUP: u32 = 0o2000;

/// Writes entries below one root.
pub(super) struct Writer<'a> {
    tree: Tree,
    buffer: Box<[u8]>,
    flusher: Flusher,
    fresh: Fresh,
    /// Directories get their times at the end, when nothing is put into them any more.
    directories: Listed,
    files: &'a mut dyn Files,
    /// Whether the file system may let files share blocks.
    shares: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(tree: Tree, flusher: Flusher, files: &'a mut dyn Files) -> Self {
        Self {
            fresh: Fresh::probe(&tree.root()),
            tree,
            flusher,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            directories: Listed::default(),
            files,
            shares: true,
        }
    }

    pub(super) fn parent(
        &mut self,
        parents: &[&[u8]],
        path: &[u8],
        missing: Missing,
    ) -> Result<Rc<OwnedFd>, UnpackError> {
        let found = self.tree.directory(parents, missing);
        let found = found.map_err(UnpackError::io("open the directory of", path))?;
        self.check_names(path)?;
        Ok(found)
    }

    /// Gives the root itself the metadata of the archive's entry for it.
    pub(super) fn root(&mut self, entry: &Entry) -> Result<(), UnpackError> {
        let root = self.tree.root();
        self.metadata(&root, b".", entry, false)
    }

    /// Creates the entry. What already has its name is replaced, with all below it; only a
    /// directory stays when the entry is a directory too.
    pub(super) fn entry<R: Read>(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), UnpackError> {
        self.flusher.tick();
        match entry.kind {
            Kind::File => return self.file(parent, name, entry, archive),
            Kind::HardLink => return self.hard_link(parent, name, entry),
            Kind::Directory => {
                let is_new = self.make_directory(parent, name, entry)?;
                return self.metadata(parent, name, entry, is_new);
            }
            Kind::Symlink => self.symlink(parent, name, entry)?,
            Kind::CharacterDevice | Kind::BlockDevice | Kind::Fifo => {
                self.node(parent, name, entry)?;
            }
        }
        self.metadata(parent, name, entry, true)
    }

    /// Hides `name` of lower layers. An entry of that name in this layer stays, since a whiteout
    /// speaks of lower layers only; a directory then hides the lower one's content.
    pub(super) fn whiteout(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        let make = || match mknodat(parent, name, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)) {
            Err(Errno::EEXIST) => match tree::stat(parent, name)? {
                Some(stat) if tree::file_type(&stat) == SFlag::S_IFDIR => set_opaque(parent, name),
                _ => Ok(()),
            },
            other => other,
        };
        make().map_err(UnpackError::io("create whiteout", &entry.path))
    }

    /// Hides what lower layers have in `parent`.
    pub(super) fn opaque(&mut self, parent: &OwnedFd, entry: &Entry) -> Result<(), UnpackError> {
        set_opaque(parent, b".").map_err(UnpackError::io("mark the directory of", &entry.path))
    }

    /// Sets what can only be set when all entries are there: times of directories, which change
    /// when something is put into them, and their set-group-id bits, which what is put into them
    /// inherits.
    pub(super) fn finish(mut self) -> Result<Unpacked, UnpackError> {
        let mut directories = std::mem::take(&mut self.directories).into_iter();
        while let Some((path, mode, time)) = directories.next() {
            match self.finish_directory(path, mode, time) {
                // A later entry replaced it, or a directory above it.
                Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(error) => return Err(UnpackError::io("set mode and times of", path)(error)),
            }
        }
        Ok(Unpacked {
            has_replaced: self.tree.has_replaced(),
            implied: self.tree.into_implied(),
        })
    }

    fn finish_directory(&mut self, path: &[u8], mode: u32, time: Time) -> Result<(), Errno> {
        let names = components(path).map_err(|_| Errno::EINVAL)?;
        let (name, parents): (&[u8], _) = match names.split_last() {
            Some((name, parents)) => (name, parents),
            None => (b".", names.as_slice()),
        };
        let parent = self.tree.directory(parents, Missing::Fail)?;
        if self.tree.has_replaced() {
            let stat = tree::stat(&parent, name)?.ok_or(Errno::ENOENT)?;
            if tree::file_type(&stat) != SFlag::S_IFDIR {
                return Err(Errno::ENOTDIR);
            }
        }
        if mode & SET_GROUP != 0 {
            let mode = Mode::from_bits_truncate(mode);
            fchmodat(&parent, name, mode, FchmodatFlags::FollowSymlink)?;
        }
        set_times(&parent, name, time)
    }

    fn file<R: Read>(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<(), UnpackError> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let asked = self.fresh.asking(entry.mode);
        let open = || openat(parent, name, flags, asked);
        let fd = self.replacing(parent, name, entry, open)?;
        let mut file = File::from(fd);
        let has_holes = self.content(&mut file, entry, archive)?;
        let failed = UnpackError::io("set owner, mode and times of", &entry.path);
        let (uid, gid) = owner(entry);
        let time = timespec(entry.mtime);
        // The owner before mode and attributes: chown takes setuid bits and capabilities away.
        let set = || {
            if !self.fresh.is_owner(entry.uid, entry.gid) {
                fchown(&file, uid, gid)?;
            }
            if !self.fresh.is_mode(entry.mode) {
                fchmod(&file, mode(entry))?;
            }
            futimens(&file, &time, &time)
        };
        set().map_err(failed)?;
        attributes(parent, name, entry)?;
        self.flusher.written(file);
        let path = components(&entry.path)?.join(&b'/');
        let told = self.files.end(&path, has_holes);
        told.map_err(UnpackError::io("list the content of", &path))
    }

    /// Writes the entry's data; whether it has holes.
    fn content<R: Read>(
        &mut self,
        file: &mut File,
        entry: &Entry,
        archive: &mut Archive<R>,
    ) -> Result<bool, UnpackError> {
        let mut position = 0;
        let is_shared = self.share(file, entry);
        // A sparse map may end with an empty segment, which writes nothing.
        for segment in entry.segments.iter().filter(|segment| segment.length > 0) {
            let mut left = segment.length;
            if position != segment.offset {
                file.seek(SeekFrom::Start(segment.offset))
                    .map_err(UnpackError::io("write", &entry.path))?;
            }
            while left > 0 {
                let want = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
                let count = match archive.read(&mut self.buffer[..want]) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    other => other,
                };
                let count = count.map_err(|source| UnpackError::Read {
                    entries: archive.entries(),
                    source,
                })?;
                self.files.content(&self.buffer[..count]);
                left -= count as u64;
                self.flusher.tick();
                if is_shared {
                    continue;
                }
                file.write_all(&self.buffer[..count])
                    .map_err(UnpackError::io("write", &entry.path))?;
                self.flusher.grown(file, count as u64);
            }
            position = segment.offset + segment.length;
        }
        if position != entry.size {
            // A hole at the end.
            file.set_len(entry.size)
                .map_err(UnpackError::io("write", &entry.path))?;
        }
        let stored = entry.segments.iter().map(|segment| segment.length);
        Ok(stored.sum::<u64>() != entry.size)
    }

    /// Gives `file` the blocks of one that is said to have the entry's content; true if it has them.
    fn share(&mut self, file: &File, entry: &Entry) -> bool {
        if !self.shares || entry.size == 0 || entry.segments.len() != 1 {
            return false;
        }
        let Some(donor) = self.files.donor() else {
            return false;
        };
        if donor.metadata().map_or(0, |donor| donor.len()) != entry.size {
            return false;
        }
        // One file system holds all layers: what it cannot do once it can never do.
        self.shares = sys::share_blocks(&donor, file).is_ok();
        self.shares
    }

    /// A second name for a file of this layer, which keeps the metadata it has.
    fn hard_link(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), UnpackError> {
        let target = components(&entry.link)?;
        let Some((source, parents)) = target.split_last() else {
            return Err(UnpackError::name(
                &entry.link,
                "a hard link to the root is impossible",
            ));
        };
        let directory = self.parent(parents, &entry.link, Missing::Fail)?;
        let link = || linkat(&directory, *source, parent, name, AtFlags::empty());
        self.replacing(parent, name, entry, link)
    }

    /// False if a directory of that name was there before, and stays.
    fn make_directory(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
    ) -> Result<bool, UnpackError> {
        let failed = |error: Errno| UnpackError::io("create", &entry.path)(error);
        let asked = self.fresh.asking(entry.mode);
        let make = || mkdirat(parent, name, asked);
        let existing = match make() {
            Err(Errno::EEXIST) => tree::stat(parent, name).map_err(failed)?,
            other => return other.map(|()| true).map_err(failed),
        };
        if existing.is_some_and(|stat| tree::file_type(&stat) == SFlag::S_IFDIR) {
            return Ok(false);
        }
        self.tree.remove(parent, name).map_err(failed)?;
        make().map_err(failed)?;
        if existing.is_some_and(|stat| tree::is_whiteout(&stat)) {
            // What the whiteout hid in lower layers must not shine through the new directory.
            set_opaque(parent, name).map_err(failed)?;
        }
        Ok(true)
    }

    fn symlink(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        if entry.link.is_empty() || entry.link.contains(&0) {
            return Err(UnpackError::name(
                &entry.link,
                "it is no target for a symlink",
            ));
        }
        // The target is only text here; resolving it later is confined to the root.
        let make = || symlinkat(entry.link.as_slice(), parent, name);
        self.replacing(parent, name, entry, make)
    }

    fn node(&mut self, parent: &OwnedFd, name: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        let kind = match entry.kind {
            Kind::CharacterDevice => SFlag::S_IFCHR,
            Kind::BlockDevice => SFlag::S_IFBLK,
            _ => SFlag::S_IFIFO,
        };
        let device = makedev(entry.device.0.into(), entry.device.1.into());
        let make = || mknodat(parent, name, kind, Mode::from_bits_truncate(0o600), device);
        self.replacing(parent, name, entry, make)
    }

    /// Runs `create`, once more after removing what has the name already.
    fn replacing<T>(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        create: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, UnpackError> {
        let failed = |error: Errno| UnpackError::io("create", &entry.path)(error);
        match create() {
            Err(Errno::EEXIST) => {}
            other => return other.map_err(failed),
        }
        self.tree.remove(parent, name).map_err(failed)?;
        create().map_err(failed)
    }

    /// Owner, mode, attributes and times of everything that is no regular file. `is_new` says that
    /// it has what the kernel gave it, not what another entry did.
    fn metadata(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        is_new: bool,
    ) -> Result<(), UnpackError> {
        let failed = UnpackError::io("set owner and mode of", &entry.path);
        self.ownership(parent, name, entry, is_new)
            .map_err(failed)?;
        attributes(parent, name, entry)?;
        self.fresh.note(&entry.attributes);
        if entry.kind == Kind::Directory {
            self.directories.push(&entry.path, entry.mode, entry.mtime);
            self.check_names(&entry.path)?;
            let listed = components(&entry.path)?.join(&b'/');
            self.tree.list(&listed);
            return Ok(());
        }
        set_times(parent, name, entry.mtime)
            .map_err(UnpackError::io("set the times of", &entry.path))
    }

    /// Refuses archives whose names of directories alone would fill the memory.
    fn check_names(&self, path: &[u8]) -> Result<(), UnpackError> {
        if self.directories.memory() + self.tree.memory() <= MAX_NAMES {
            return Ok(());
        }
        Err(UnpackError::Limit {
            name: lossy(path),
            what: "bytes of directory names in one layer",
            limit: MAX_NAMES as u64,
        })
    }

    fn ownership(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        is_new: bool,
    ) -> Result<(), Errno> {
        if !is_new || !self.fresh.is_owner(entry.uid, entry.gid) {
            let (uid, gid) = owner(entry);
            fchownat(parent, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        }
        let is_directory = entry.kind == Kind::Directory;
        let set_already = is_new && is_directory && self.fresh.is_mode(entry.mode);
        // A symlink has no mode of its own.
        if entry.kind == Kind::Symlink || set_already {
            return Ok(());
        }
        let late = if is_directory { SET_GROUP } else { 0 };
        let mode = Mode::from_bits_truncate(entry.mode & !late);
        // Follows no link: the name is what was created a moment ago.
        fchmodat(parent, name, mode, FchmodatFlags::FollowSymlink)
    }
}
