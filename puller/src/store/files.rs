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
//! ```
//!
//! A sum is against decay, not against people: who can write to the store can write to its lists.
//! What comes from outside is held against its sha256 before it gets here, which costs a small
//! processor twenty times as much. Layers from before there were lists have none; nothing relies on
//! one being there.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;
use twox_hash::XxHash3_128;

use super::disk::Disk;
use super::{Store, StoreError, failed};
use crate::unpack::{Files, LayerFiles, MAX_PATH};

/// Begins every list; another format would have another number.
const MAGIC: &[u8] = b"kobune files 1\n";
/// Largest list that is made anew in memory, where an archive replaced some of its own files. What
/// a larger one says cannot be told from what is true, so it is not kept.
const MAX_REPLACED: u64 = 16 << 20;

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
        let made = made.and_then(|file| Records::new(BufWriter::new(file)));
        Ok(FileList {
            disk: self.disk().clone(),
            records: made.map_err(failed("create", &path))?,
            path,
            current: Summer::default(),
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
        self.records.push(path, content)
    }
}

impl FileList {
    /// Gives it its name; anew from what is true below the root `replaced`, if that is given.
    fn keep(mut self, target: &Path, replaced: Option<&Path>) -> io::Result<()> {
        self.records.out.flush()?;
        if let Some(root) = replaced {
            if self.records.out.get_ref().metadata()?.len() > MAX_REPLACED {
                return Ok(());
            }
            self.renew(root)?;
        }
        self.disk.written(&self.path)?;
        self.disk.rename(&self.path, target)
    }

    /// Leaves one record, the last, for each name that is a file.
    fn renew(&mut self, root: &Path) -> io::Result<()> {
        let mut last = BTreeMap::new();
        read_list(BufReader::new(File::open(&self.path)?), |path, content| {
            last.insert(path.to_vec(), content);
        })?;
        self.records = Records::new(BufWriter::new(File::create(&self.path)?))?;
        let mut files = LayerFiles::new();
        for (path, content) in last {
            if matches!(files.open(root, &path), Ok(Some(_))) {
                self.records.push(&path, content)?;
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
    fn new(mut out: W) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        let last = Vec::new();
        Ok(Self { out, last })
    }

    fn push(&mut self, path: &[u8], content: Content) -> io::Result<()> {
        let pairs = path.iter().zip(&self.last);
        let shared = pairs.take_while(|(one, other)| one == other).count();
        let rest = &path[shared..];
        for number in [shared as u64, rest.len() as u64, content.size] {
            write_number(&mut self.out, number)?;
        }
        self.out.write_all(rest)?;
        self.out.write_all(&content.sum.to_le_bytes())?;
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
        Ok(())
    }
}

/// Reads a list record by record.
pub(super) fn read_list(
    mut list: impl BufRead,
    mut each: impl FnMut(&[u8], Content),
) -> io::Result<()> {
    let mut magic = [0; MAGIC.len()];
    list.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(io::ErrorKind::InvalidData.into());
    }
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
        each(&path, Content { size, sum });
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Entries = Vec<(Vec<u8>, Content)>;

    fn write(entries: &Entries) -> Vec<u8> {
        let mut records = Records::new(Vec::new()).expect("in memory");
        for (path, content) in entries {
            records.push(path, *content).expect("in memory");
        }
        records.out
    }

    fn read(list: &[u8]) -> io::Result<Entries> {
        let mut entries = Vec::new();
        read_list(list, |path, content| entries.push((path.to_vec(), content)))?;
        Ok(entries)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            entries in proptest::collection::vec(("[ab/\n]{1,9}", any::<u64>(), any::<u128>()), 0..9)
        ) {
            let entries: Entries = entries
                .into_iter()
                .map(|(path, size, sum)| (path.into_bytes(), Content { size, sum }))
                .collect();
            prop_assert_eq!(read(&write(&entries)).expect("good"), entries);
        }

        #[test]
        fn any_bytes_are_read_or_refused_and_no_path_is_too_long(
            bytes in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            for (path, _) in read(&[MAGIC, &bytes].concat()).unwrap_or_default() {
                prop_assert!(path.len() <= MAX_PATH);
            }
        }
    }

    #[test]
    fn what_is_torn_or_strange_is_an_error() {
        let content = Content { size: 300, sum: 7 };
        let list = write(&vec![(b"some/path".to_vec(), content)]);
        for cut in 0..list.len() {
            assert_eq!(read(&list[..cut]).is_ok(), cut == MAGIC.len(), "{cut}");
        }
        let long = [&[0x80, 0x00], &list[MAGIC.len() + 1..]].concat();
        for strange in [
            [b"kobune files 2\n", &list[MAGIC.len()..]].concat(),
            // Shares bytes with no path before it; a number written longer than it is.
            [MAGIC, &[1], &list[MAGIC.len() + 1..]].concat(),
            [MAGIC, &long].concat(),
            [MAGIC, &[0xff; 10], &list[MAGIC.len() + 1..]].concat(),
        ] {
            read(&strange).expect_err("strange");
        }
    }

    #[test]
    fn a_sum_is_the_one_that_others_know() {
        // What `printf abc | xxh128sum` says.
        let mut summer = Summer::default();
        summer.update(b"a");
        summer.update(b"bc");
        let content = summer.finish();
        assert_eq!(content.size, 3);
        assert_eq!(
            format!("{:032x}", content.sum),
            "06b05ab6733a618578af5f94892f3950"
        );
        assert_eq!(summer.finish().size, 0);
    }
}
