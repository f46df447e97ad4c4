//! Makes an archive of an unpacked layer: the way back from `unpack`. The same tree gives the same
//! bytes, and what is unpacked from them is the tree again, so that both ways stay what they are.
//!
//! The archive that the layer came in is not made again: order, padding and format were its packer's.

mod entry;

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::unpack::{hides_lower, is_kept};
use entry::{Entry, Kind};

/// What hides a file of a lower layer, before its name (OCI image specification, layer.md).
const WHITEOUT: &[u8] = b".wh.";
/// What hides all that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Bytes of a file that are moved at once.
const BUFFER: usize = 64 << 10;

/// One layer on its way into an archive.
struct Packer<'a, W> {
    root: &'a Path,
    /// Directories that the layer does not list.
    implied: &'a BTreeSet<Vec<u8>>,
    out: W,
    /// First names of files with more than one.
    links: HashMap<u64, Vec<u8>>,
    buffer: Box<[u8]>,
}

/// Why there is no archive.
pub(crate) struct PackError {
    /// What could not be read; nothing where it could not be written.
    pub(crate) path: Option<PathBuf>,
    pub(crate) source: io::Error,
}

impl From<io::Error> for PackError {
    fn from(source: io::Error) -> Self {
        Self { path: None, source }
    }
}

/// Writes the layer unpacked at `root` to `out`, without the directories in `implied`. Holes of files
/// become zeros; sockets, which no archive has, are left out. Blocking.
pub(crate) fn pack(
    root: &Path,
    implied: &BTreeSet<Vec<u8>>,
    out: impl Write,
) -> Result<(), PackError> {
    let mut packer = Packer {
        root,
        implied,
        out,
        links: HashMap::new(),
        buffer: vec![0; BUFFER].into_boxed_slice(),
    };
    packer.directory(b"")?;
    packer.write(|out| out.write_all(&[0; 1024]))
}

impl<W: Write> Packer<'_, W> {
    /// A directory and all below it, by name.
    fn directory(&mut self, name: &[u8]) -> Result<(), PackError> {
        let path = self.at(name);
        if !self.implied.contains(name) {
            let metadata = fs::symlink_metadata(&path).map_err(reading(&path))?;
            let slash = if name.is_empty() { &b"./"[..] } else { b"/" };
            self.entry(&[name, slash].concat(), &path, Kind::Directory, &metadata)?;
        }
        if hides_lower(&path) {
            self.mark(&join(name, OPAQUE))?;
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(reading(&path))? {
            names.push(entry.map_err(reading(&path))?.file_name());
        }
        names.sort_unstable();
        for child in names {
            self.child(name, child.as_bytes())?;
        }
        Ok(())
    }

    fn child(&mut self, directory: &[u8], child: &[u8]) -> Result<(), PackError> {
        let name = join(directory, child);
        let path = self.at(&name);
        let metadata = fs::symlink_metadata(&path).map_err(reading(&path))?;
        let kind = metadata.file_type();
        if kind.is_dir() {
            return self.directory(&name);
        }
        if kind.is_char_device() && metadata.rdev() == 0 {
            return self.mark(&join(directory, &[WHITEOUT, child].concat()));
        }
        if metadata.nlink() > 1 {
            if let Some(first) = self.links.get(&metadata.ino()) {
                let link = Kind::HardLink(first.clone());
                return self.entry(&name, &path, link, &metadata);
            }
            self.links.insert(metadata.ino(), name.clone());
        }
        let kind = if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(reading(&path))?;
            Kind::Symlink(target.as_os_str().as_bytes().to_vec())
        } else if kind.is_char_device() {
            Kind::CharacterDevice
        } else if kind.is_block_device() {
            Kind::BlockDevice
        } else if kind.is_fifo() {
            Kind::Fifo
        } else if kind.is_file() {
            return self.file(&name, &path, &metadata);
        } else {
            return Ok(());
        };
        self.entry(&name, &path, kind, &metadata)
    }

    fn file(&mut self, name: &[u8], path: &Path, metadata: &Metadata) -> Result<(), PackError> {
        let mut file = File::open(path).map_err(reading(path))?;
        let size = metadata.len();
        self.entry(name, path, Kind::File(size), metadata)?;
        let mut left = size;
        while left > 0 {
            let want = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
            let part = &mut self.buffer[..want];
            io::Read::read_exact(&mut file, part).map_err(reading(path))?;
            self.out.write_all(part)?;
            left -= want as u64;
        }
        self.write(|out| entry::pad(out, size))
    }

    /// Something that lower layers have is hidden.
    fn mark(&mut self, name: &[u8]) -> Result<(), PackError> {
        self.write(|out| Entry::mark(name).write(out))
    }

    fn entry(
        &mut self,
        name: &[u8],
        path: &Path,
        kind: Kind,
        metadata: &Metadata,
    ) -> Result<(), PackError> {
        let attributes = match kind {
            Kind::HardLink(_) => Vec::new(),
            _ => attributes(path).map_err(reading(path))?,
        };
        let entry = Entry::new(name, kind, metadata, attributes);
        self.write(|out| entry.write(out))
    }

    fn write(&mut self, write: impl FnOnce(&mut W) -> io::Result<()>) -> Result<(), PackError> {
        Ok(write(&mut self.out)?)
    }

    fn at(&self, name: &[u8]) -> PathBuf {
        self.root.join(std::ffi::OsStr::from_bytes(name))
    }
}

/// Those that are the image's, by name.
fn attributes(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut attributes = crate::sys::attributes(path)?;
    attributes.retain(|(name, _)| is_kept(name));
    attributes.sort_unstable();
    Ok(attributes)
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() {
        return name.to_vec();
    }
    [directory, b"/", name].concat()
}

fn reading(path: &Path) -> impl FnOnce(io::Error) -> PackError {
    let path = Some(path.to_owned());
    move |source| PackError { path, source }
}

#[cfg(test)]
mod tests;
