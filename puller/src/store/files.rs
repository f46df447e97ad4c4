//! What the content of each layer's files was, kept when it was unpacked: to find out later whether
//! it still is that, and to find content that another layer needs.
//!
//! A list has a record for each regular file without holes, in the order of the archive:
//!
//! ```text
//! shared  bytes that the path has in common with the one before     LEB128
//! length  of the rest of the path                                   LEB128
//! size    of the file                                               LEB128
//! rest    of the path
//! sum     XXH3 of the content, 128 bits                             little-endian
//! sha256  of the content, in a list of the second kind, unless it is empty
//! ```
//!
//! Where an image has a table of contents (zstd:chunked) the list takes over its sha256 of each file,
//! so that another version's files are found without reading those that are here.
//!
//! A sum is against decay, not against people: who can write to the store can write to its lists.
//! What comes from outside is held against its sha256 before it gets here, which costs a small
//! processor twenty times as much. Layers from before there were lists have none; nothing relies on
//! one being there.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;
use twox_hash::XxHash3_128;

use super::disk::Disk;
use super::{Store, StoreError, failed};
use crate::digest::Sha256;
use crate::unpack::{Files, LayerFiles, MAX_PATH};

/// Begins every list; another format would have another number.
const MAGIC: &[u8; 15] = b"kobune files 1\n";
/// Begins one with a sha256 for each file that is not empty.
const MAGIC_SHA256: &[u8; 15] = b"kobune files 2\n";
/// Largest list that is made anew in memory, where an archive replaced some of its own files. What
/// a larger one says cannot be told from what is true, so it is not kept.
const MAX_REPLACED: u64 = 16 << 20;

/// Largest list that gets sums of a table of contents: it is in memory meanwhile.
const MAX_COMPLETED: u64 = 4 << 20;

/// What the content of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    /// Bytes it has.
    pub(super) size: u64,
    pub(super) sum: u128,
}

/// A content on its way by.
#[derive(Default)]
pub(super) struct Summer {
    size: u64,
    hasher: XxHash3_128,
}

/// The list of a layer that is being unpacked; removed when dropped before it is kept.
#[derive(Debug)]
pub(crate) struct FileList {
    disk: Disk,
    path: PathBuf,
    records: Records<BufWriter<File>>,
    current: Summer,
    /// Of each file that is not empty, in order, if it is known.
    known: Option<Vec<Sha256>>,
}

/// Writes records.
#[derive(Debug)]
struct Records<W> {
    out: W,
    last: Vec<u8>,
}

impl Store {
    /// An empty list. Blocking.
    pub(super) fn new_list(&self) -> Result<FileList, StoreError> {
        let path = self.staging_path();
        let made = self.disk().write_new(&path, b"");
        let made = made.and_then(|file| Records::new(BufWriter::new(file), MAGIC));
        Ok(FileList {
            disk: self.disk().clone(),
            records: made.map_err(failed("create", &path))?,
            path,
            current: Summer::default(),
            known: None,
        })
    }

    /// Gives a list its name. It is flushed with the layer, which gets its own name later.
    pub(super) fn keep_list(
        &self,
        list: FileList,
        diff_id: &Digest,
        replaced: Option<&Path>,
    ) -> Result<(), StoreError> {
        let target = self.list_path(diff_id);
        let kept = list.keep(&target, replaced);
        kept.map_err(failed("write", &target))
    }

    pub(super) fn list_path(&self, diff_id: &Digest) -> PathBuf {
        self.path("files").join(diff_id.digest())
    }
}

impl Summer {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.hasher.write(bytes);
    }

    /// Leaves it as it was in the beginning.
    pub(super) fn finish(&mut self) -> Content {
        let Self { size, hasher } = std::mem::take(self);
        Content {
            size,
            sum: hasher.finish_128(),
        }
    }
}

impl fmt::Debug for Summer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Summer({} bytes)", self.size)
    }
}

impl Files for FileList {
    fn content(&mut self, bytes: &[u8]) {
        self.current.update(bytes);
    }

    fn end(&mut self, path: &[u8], has_holes: bool) -> io::Result<()> {
        let content = self.current.finish();
        if has_holes {
            return Ok(());
        }
        self.records.push(path, content, None)
    }
}

impl FileList {
    /// Tells what a table of contents says of each file that is not empty, in the archive's order. If
    /// it is of other files, nothing of it is kept; if it lies, what is looked for is not found here.
    pub(crate) fn set_known(&mut self, known: Vec<Sha256>) {
        self.known = Some(known);
    }

    /// Gives it its name; anew from what is true below the root `replaced`, if that is given.
    fn keep(mut self, target: &Path, replaced: Option<&Path>) -> io::Result<()> {
        self.records.out.flush()?;
        if let Some(root) = replaced {
            if self.records.out.get_ref().metadata()?.len() > MAX_REPLACED {
                return Ok(());
            }
            self.renew(root)?;
        } else if let Some(known) = self.known.take() {
            self.complete(&known)?;
        }
        self.disk.written(&self.path)?;
        self.disk.rename(&self.path, target)
    }

    /// Takes the known sums over, if they are of as many files as there are.
    fn complete(&mut self, known: &[Sha256]) -> io::Result<()> {
        let list = File::open(&self.path)?;
        if list.metadata()?.len() > MAX_COMPLETED {
            return Ok(());
        }
        let mut known = known.iter();
        let mut complete = Records::new(Vec::new(), MAGIC_SHA256)?;
        let mut fits = true;
        read_list(BufReader::new(list), |path, content, _| {
            let sha256 = (content.size > 0).then(|| known.next()).flatten();
            fits &= (content.size > 0) == sha256.is_some();
            fits &= complete.push(path, content, sha256).is_ok();
        })?;
        if fits && known.next().is_none() {
            self.records.out.get_mut().rewind()?;
            self.records.out.write_all(&complete.out)?;
            self.records.out.flush()?;
        }
        Ok(())
    }

    /// Leaves one record, the last, for each name that is a file.
    fn renew(&mut self, root: &Path) -> io::Result<()> {
        let mut last = BTreeMap::new();
        read_list(
            BufReader::new(File::open(&self.path)?),
            |path, content, _| {
                last.insert(path.to_vec(), content);
            },
        )?;
        self.records = Records::new(BufWriter::new(File::create(&self.path)?), MAGIC)?;
        let mut files = LayerFiles::new();
        for (path, content) in last {
            if matches!(files.open(root, &path), Ok(Some(_))) {
                self.records.push(&path, content, None)?;
            }
        }
        self.records.out.flush()
    }
}

impl Drop for FileList {
    fn drop(&mut self) {
        // Once it is kept there is nothing here.
        let _ = self.disk.remove(&self.path);
    }
}

impl<W: Write> Records<W> {
    fn new(mut out: W, magic: &[u8]) -> io::Result<Self> {
        out.write_all(magic)?;
        let last = Vec::new();
        Ok(Self { out, last })
    }

    fn push(&mut self, path: &[u8], content: Content, sha256: Option<&Sha256>) -> io::Result<()> {
        let pairs = path.iter().zip(&self.last);
        let shared = pairs.take_while(|(one, other)| one == other).count();
        let rest = &path[shared..];
        for number in [shared as u64, rest.len() as u64, content.size] {
            write_number(&mut self.out, number)?;
        }
        self.out.write_all(rest)?;
        self.out.write_all(&content.sum.to_le_bytes())?;
        self.out
            .write_all(sha256.map_or(&[][..], |sha256| sha256))?;
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
        Ok(())
    }
}

/// Reads a list record by record: path, content, and its sha256 if that is in the list.
pub(super) fn read_list(
    mut list: impl BufRead,
    mut each: impl FnMut(&[u8], Content, Option<Sha256>),
) -> io::Result<()> {
    let mut magic = [0; MAGIC.len()];
    list.read_exact(&mut magic)?;
    let has_sha256 = match &magic {
        MAGIC => false,
        MAGIC_SHA256 => true,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let mut path = Vec::new();
    while !list.fill_buf()?.is_empty() {
        let shared = read_length(&mut list, path.len())?;
        let rest = read_length(&mut list, MAX_PATH - shared)?;
        let size = read_number(&mut list)?;
        path.resize(shared + rest, 0);
        list.read_exact(&mut path[shared..])?;
        let mut sum = [0; 16];
        list.read_exact(&mut sum)?;
        let sum = u128::from_le_bytes(sum);
        let mut sha256 = None;
        if has_sha256 && size > 0 {
            list.read_exact(sha256.insert([0; 32]))?;
        }
        each(&path, Content { size, sum }, sha256);
    }
    Ok(())
}

fn write_number(out: &mut impl Write, mut number: u64) -> io::Result<()> {
    loop {
        let bits = (number & 0x7f).to_le_bytes()[0];
        number >>= 7;
        if number == 0 {
            return out.write_all(&[bits]);
        }
        out.write_all(&[bits | 0x80])?;
    }
}

/// A number, in the only way it can be written.
fn read_number(list: &mut impl BufRead) -> io::Result<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let mut byte = [0];
        list.read_exact(&mut byte)?;
        let bits = u64::from(byte[0] & 0x7f);
        let fits = bits << shift >> shift == bits;
        let is_short = byte[0] != 0 || shift == 0;
        if !fits || !is_short {
            break;
        }
        number |= bits << shift;
        if byte[0] < 0x80 {
            return Ok(number);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn read_length(list: &mut impl BufRead, most: usize) -> io::Result<usize> {
    let number = read_number(list)?;
    let length = usize::try_from(number)
        .ok()
        .filter(|length| *length <= most);
    length.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests;
