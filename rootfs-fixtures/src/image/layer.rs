//! One layer: tar entries in the order given, and the blob that a registry would serve.

use std::collections::BTreeMap;
use std::io::Write as _;

use super::tar::{self, Entry, LongNames, Sparse};
use crate::Digest;

/// The modification time of every entry that sets none: 2021-01-01T00:00:00Z.
pub const FIXED_MTIME: u64 = 1_609_459_200;

/// How a layer's tar becomes its blob.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// The tar itself.
    None,
    /// One gzip member without name and time.
    #[default]
    Gzip,
    /// A zstd frame of uncompressed blocks: valid for every decoder, no smaller than the tar.
    Zstd,
}

/// A finished layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The uncompressed archive.
    pub tar: Vec<u8>,
    /// The digest of [`Layer::tar`].
    pub diff_id: Digest,
    /// What the registry serves.
    pub blob: Vec<u8>,
    /// The digest of [`Layer::blob`].
    pub digest: Digest,
    /// What lies between the two.
    pub compression: Compression,
    /// What its descriptor says besides.
    pub annotations: BTreeMap<String, String>,
}

/// Collects entries; every method that adds one makes it the *last entry*, to which
/// [`xattr`](Self::xattr), [`owner`](Self::owner), [`mtime`](Self::mtime) and the like apply.
///
/// Names are stored as given, and entries in the order given: `../x`, `/etc/x`, a file written
/// through an earlier symlink and the same name twice are all expressible. The same calls give the
/// same bytes.
///
/// # Panics
/// The modifiers panic when there is no last entry.
#[derive(Clone, Debug, Default)]
pub struct LayerBuilder {
    items: Vec<Item>,
    compression: Compression,
    long_names: LongNames,
    no_end: bool,
}

#[derive(Clone, Debug)]
enum Item {
    Entry(Box<Entry>),
    Global(BTreeMap<String, Vec<u8>>),
    Raw(Vec<u8>),
}

impl Layer {
    /// The same archive in a blob that can be fetched file by file.
    ///
    /// # Panics
    /// When the archive has sparse files, or is none.
    #[must_use]
    pub fn chunked(self) -> Self {
        let mut blob = Vec::new();
        let chunked = crate::chunk(std::io::Cursor::new(&self.tar), &mut blob, 3);
        let chunked = chunked.expect("an archive without sparse files");
        Self {
            blob,
            digest: chunked.digest,
            compression: Compression::Zstd,
            annotations: chunked.annotations,
            ..self
        }
    }
}

impl LayerBuilder {
    /// An empty layer, to be compressed with gzip.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory.
    #[must_use]
    pub fn dir(self, path: impl AsRef<[u8]>, mode: u32) -> Self {
        let mut path = path.as_ref().to_vec();
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        self.add(&path, b'5', mode, |_| ())
    }

    /// Adds a regular file.
    #[must_use]
    pub fn file(self, path: impl AsRef<[u8]>, mode: u32, data: impl AsRef<[u8]>) -> Self {
        self.add(path.as_ref(), b'0', mode, |entry| {
            entry.data = data.as_ref().to_vec();
        })
    }

    /// Adds a symbolic link to `target`.
    #[must_use]
    pub fn symlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.add(path.as_ref(), b'2', 0o777, |entry| {
            entry.link = target.as_ref().to_vec();
        })
    }

    /// Adds a hard link to the archive member `target`.
    #[must_use]
    pub fn hardlink(self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.add(path.as_ref(), b'1', 0o644, |entry| {
            entry.link = target.as_ref().to_vec();
        })
    }

    /// Adds a character device node.
    #[must_use]
    pub fn device(self, path: impl AsRef<[u8]>, mode: u32, major: u32, minor: u32) -> Self {
        self.add(path.as_ref(), b'3', mode, |entry| {
            entry.device = (major, minor);
        })
    }

    /// Adds a block device node.
    #[must_use]
    pub fn block_device(self, path: impl AsRef<[u8]>, mode: u32, major: u32, minor: u32) -> Self {
        self.add(path.as_ref(), b'4', mode, |entry| {
            entry.device = (major, minor);
        })
    }

    /// Adds a named pipe.
    #[must_use]
    pub fn fifo(self, path: impl AsRef<[u8]>, mode: u32) -> Self {
        self.add(path.as_ref(), b'6', mode, |_| ())
    }

    /// Adds the marker that removes `path` of the layers below.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let marker = match path.rsplit_once('/') {
            Some((parent, name)) => format!("{parent}/.wh.{name}"),
            None => format!(".wh.{path}"),
        };
        self.file(marker, 0o644, "")
    }

    /// Adds the marker that hides what the layers below have in the directory `path`.
    #[must_use]
    pub fn opaque(self, path: &str) -> Self {
        self.file(format!("{path}/.wh..wh..opq"), 0o644, "")
    }

    /// Adds a sparse file in the old GNU format: `real_size` bytes, zero but for `segments`.
    ///
    /// Readers want every segment but the last to fill whole blocks, so each is filled up with
    /// zeros to a multiple of 512 bytes; a hole at the end gets an empty segment, as GNU tar does.
    #[must_use]
    pub fn sparse(self, path: impl AsRef<[u8]>, real_size: u64, segments: &[(u64, &[u8])]) -> Self {
        let mut data = Vec::new();
        let mut stored = Vec::new();
        for (index, (at, bytes)) in segments.iter().enumerate() {
            let start = data.len();
            data.extend_from_slice(bytes);
            if index + 1 < segments.len() {
                data.resize(data.len().next_multiple_of(512), 0);
            }
            stored.push((*at, (data.len() - start) as u64));
        }
        if stored
            .last()
            .is_none_or(|(at, length)| at + length < real_size)
        {
            stored.push((real_size, 0));
        }
        self.add(path.as_ref(), b'S', 0o644, |entry| {
            entry.data = data;
            entry.sparse = Some(Sparse {
                real_size,
                segments: stored,
            });
        })
    }

    /// Adds an entry of any type flag, with nothing else set: `7` contiguous file, `V` volume
    /// label, or one that does not exist.
    #[must_use]
    pub fn entry(self, path: impl AsRef<[u8]>, typeflag: u8, data: impl AsRef<[u8]>) -> Self {
        self.add(path.as_ref(), typeflag, 0o644, |entry| {
            entry.data = data.as_ref().to_vec();
        })
    }

    /// Adds a PAX record that holds for all later entries. Not an entry itself.
    #[must_use]
    pub fn pax_global(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        let records = BTreeMap::from([(key.to_owned(), value.as_ref().to_vec())]);
        self.items.push(Item::Global(records));
        self
    }

    /// Adds bytes as they are, at this place of the archive. Not an entry itself.
    #[must_use]
    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.items.push(Item::Raw(bytes.as_ref().to_vec()));
        self
    }

    /// Gives the last entry an extended attribute.
    #[must_use]
    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.change(|entry| {
            entry
                .xattrs
                .insert(name.to_owned(), value.as_ref().to_vec());
        })
    }

    /// Gives the last entry an owner; the default is root.
    #[must_use]
    pub fn owner(self, uid: u64, gid: u64) -> Self {
        self.change(|entry| entry.owner = (uid, gid))
    }

    /// Gives the last entry a modification time in seconds since 1970.
    #[must_use]
    pub fn mtime(self, seconds: u64) -> Self {
        self.change(|entry| entry.mtime = seconds)
    }

    /// Gives the last entry permission bits, type bits included if wanted.
    #[must_use]
    pub fn mode(self, mode: u32) -> Self {
        self.change(|entry| entry.mode = mode)
    }

    /// Makes the last entry's header lie about the length of what follows.
    #[must_use]
    pub fn claimed_size(self, bytes: u64) -> Self {
        self.change(|entry| entry.claimed_size = Some(bytes))
    }

    /// How names over 100 bytes are stored, for all entries added from here on.
    #[must_use]
    pub fn long_names(mut self, how: LongNames) -> Self {
        self.long_names = how;
        self
    }

    /// How the archive becomes the blob.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Leaves out the blocks that end an archive, as some archivers do.
    #[must_use]
    pub fn without_end(mut self) -> Self {
        self.no_end = true;
        self
    }

    /// Writes the archive, compresses it and computes both digests.
    #[must_use]
    pub fn build(&self) -> Layer {
        let mut archive = Vec::new();
        for item in &self.items {
            match item {
                Item::Entry(entry) => entry.write(&mut archive),
                Item::Global(records) => tar::write_global(&mut archive, records),
                Item::Raw(bytes) => archive.extend_from_slice(bytes),
            }
        }
        if !self.no_end {
            tar::write_end(&mut archive);
        }
        let blob = compress(&archive, self.compression);
        Layer {
            diff_id: Digest::of(&archive),
            digest: Digest::of(&blob),
            tar: archive,
            blob,
            compression: self.compression,
            annotations: BTreeMap::new(),
        }
    }

    fn add(mut self, path: &[u8], typeflag: u8, mode: u32, set: impl FnOnce(&mut Entry)) -> Self {
        let mut entry = Entry {
            path: path.to_vec(),
            typeflag,
            mode,
            owner: (0, 0),
            mtime: FIXED_MTIME,
            link: Vec::new(),
            device: (0, 0),
            xattrs: BTreeMap::new(),
            data: Vec::new(),
            sparse: None,
            claimed_size: None,
            long_names: self.long_names,
        };
        set(&mut entry);
        self.items.push(Item::Entry(Box::new(entry)));
        self
    }

    fn change(mut self, change: impl FnOnce(&mut Entry)) -> Self {
        match self.items.last_mut() {
            Some(Item::Entry(entry)) => change(entry),
            _ => panic!("a modifier must follow the entry that it modifies"),
        }
        self
    }
}

fn compress(archive: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => archive.to_vec(),
        Compression::Gzip => {
            let level = flate2::Compression::new(6);
            let mut encoder = flate2::GzBuilder::new().mtime(0).write(Vec::new(), level);
            encoder
                .write_all(archive)
                .and_then(|()| encoder.finish())
                .expect("invariant: writing to a vector cannot fail")
        }
        Compression::Zstd => zstd_stored(archive),
    }
}

/// RFC 8878 with raw blocks only: magic, a header that declares a window of 128 KiB and no
/// content size, then blocks of at most that size.
fn zstd_stored(data: &[u8]) -> Vec<u8> {
    const BLOCK_MAX: usize = 128 * 1024;
    let mut out = vec![0x28, 0xB5, 0x2F, 0xFD, 0x00, 7 << 3];
    let mut blocks = data.chunks(BLOCK_MAX).peekable();
    if blocks.peek().is_none() {
        out.extend_from_slice(&[1, 0, 0]);
    }
    while let Some(block) = blocks.next() {
        let last = u32::from(blocks.peek().is_none());
        let size = u32::try_from(block.len()).expect("invariant: chunks of 128 KiB");
        out.extend_from_slice(&((size << 3) | last).to_le_bytes()[..3]);
        out.extend_from_slice(block);
    }
    out
}
