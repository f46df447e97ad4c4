//! The framing of a tar stream: headers, PAX records, GNU long names and sparse maps become
//! [`Entry`] values, in bounded memory. Touches no file.
//!
//! Fields of a header block are decoded by the `tar` crate. The framing around them is here because
//! that crate reads long names and PAX records of any length into memory, and splits PAX records at
//! line feeds, which binary attributes such as `security.capability` may contain. Where
//! implementations differ, this one does what Go's `archive/tar` does, since docker, containerd and
//! umoci read layers with it: the same archive must be the same tree here.

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use super::error::{UnpackError, lossy};
use super::pax;

/// Size of a header and unit of padding.
const BLOCK: u64 = 512;
/// Largest PAX header or GNU long name, as in Go's `archive/tar`.
const MAX_EXTENSION: u64 = 1 << 20;
/// Most entries in one layer; the largest images in use have some hundred thousand files.
const MAX_ENTRIES: u64 = 2_000_000;
/// Most data segments of one sparse file.
const MAX_SEGMENTS: usize = 65_536;
/// Largest file, holes included.
const MAX_FILE: u64 = 1 << 40;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharacterDevice,
    BlockDevice,
    Fifo,
}

/// A point in time as the kernel wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: i64,
}

/// Bytes of a file that are present in the archive; between segments are holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// One member of the archive, its extension headers applied.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    /// Target of a hard link or symlink.
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) device: (u32, u32),
    /// Length of a file, holes included.
    pub(crate) size: u64,
    pub(crate) segments: Vec<Segment>,
    pub(crate) attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A tar stream, read forward only.
#[derive(Debug)]
pub(crate) struct Archive<R> {
    stream: R,
    /// Data of the current entry that was not read yet.
    remaining: u64,
    /// Padding behind it.
    padding: u64,
    entries: u64,
    done: bool,
}

/// What extension headers said about the entry they precede.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: pax::Overrides,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(stream: R) -> Self {
        Self {
            stream,
            remaining: 0,
            padding: 0,
            entries: 0,
            done: false,
        }
    }

    /// Entries returned so far.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// The next entry, or nothing at the end of the archive. Data of the previous entry that was
    /// not read is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = self.field(&header, "size", header.entry_size())?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let records = self.extension(&header, size)?;
                    extensions.pax = pax::Overrides::parse(&records)
                        .map_err(|what| self.malformed(&header, what))?;
                }
                EntryType::GNULongName => extensions.path = Some(self.long_name(&header, size)?),
                EntryType::GNULongLink => extensions.link = Some(self.long_name(&header, size)?),
                // Describes the archive, not a file; docker ignores it as well.
                EntryType::XGlobalHeader => self.frame(size),
                _ => return self.entry(&header, size, extensions).map(Some),
            }
        }
    }

    /// Reads data of the current entry; 0 at its end. A stream that ends before is an error.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.remaining).map_or(buffer.len(), |n| n.min(buffer.len()));
        if want == 0 {
            return Ok(0);
        }
        let count = self.stream.read(&mut buffer[..want])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.remaining -= count as u64;
        Ok(count)
    }

    fn entry(
        &mut self,
        header: &Header,
        size: u64,
        extensions: Extensions,
    ) -> Result<Entry, UnpackError> {
        self.entries += 1;
        let Extensions { path, link, pax } = extensions;
        let path = path
            .or(pax.path)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        if self.entries > MAX_ENTRIES {
            return Err(limit(&path, "entries in one layer", MAX_ENTRIES));
        }
        let kind = kind(header, &path)?;
        let size = pax.size.unwrap_or(size);
        // Entries that are only a header carry no data, whatever their size field says.
        self.frame(if kind == Kind::File { size } else { 0 });
        let (size, segments) = match kind {
            Kind::File if header.entry_type() == EntryType::GNUSparse => self.sparse(header)?,
            Kind::File => (
                size,
                vec![Segment {
                    offset: 0,
                    length: size,
                }],
            ),
            _ => (0, Vec::new()),
        };
        if size > MAX_FILE {
            return Err(limit(&path, "file size", MAX_FILE));
        }
        let seconds = self.field(header, "mtime", header.mtime())?;
        let owner = |pax: Option<u64>, own: io::Result<u64>| {
            let id = pax.map_or(own, Ok)?;
            u32::try_from(id).map_err(io::Error::other)
        };
        let major = self.field(header, "device number", header.device_major());
        let minor = self.field(header, "device number", header.device_minor());
        let device = match kind {
            Kind::CharacterDevice | Kind::BlockDevice => (major?.unwrap_or(0), minor?.unwrap_or(0)),
            _ => (0, 0),
        };
        Ok(Entry {
            link: link
                .or(pax.link)
                .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
                .unwrap_or_default(),
            kind,
            mode: self.field(header, "mode", header.mode())? & 0o7777,
            uid: self.field(header, "uid", owner(pax.uid, header.uid()))?,
            gid: self.field(header, "gid", owner(pax.gid, header.gid()))?,
            mtime: pax.mtime.unwrap_or(Time {
                seconds: i64::try_from(seconds).unwrap_or(0),
                nanoseconds: 0,
            }),
            device,
            size,
            segments,
            attributes: pax.attributes,
            path,
        })
    }

    /// The segments of a file in GNU's sparse format, and its real size. Continuation blocks of the
    /// map stand before the data.
    fn sparse(&mut self, header: &Header) -> Result<(u64, Vec<Segment>), UnpackError> {
        let bad = |this: &Self| this.malformed(header, "sparse map");
        let gnu = header.as_gnu().ok_or_else(|| bad(self))?;
        let mut segments = Vec::new();
        add_segments(&gnu.sparse, &mut segments).ok_or_else(|| bad(self))?;
        let mut extended = gnu.is_extended();
        while extended {
            let mut block = GnuExtSparseHeader::new();
            self.fill(block.as_mut_bytes())?;
            add_segments(&block.sparse, &mut segments).ok_or_else(|| bad(self))?;
            extended = block.is_extended();
        }
        let real = gnu.real_size().map_err(|_| bad(self))?;
        let stored = segments.iter().map(|segment| segment.length).sum::<u64>();
        let end = segments.last().map_or(0, |last| last.offset + last.length);
        if stored != self.remaining || end > real {
            return Err(bad(self));
        }
        Ok((real, segments))
    }

    /// The next header block, or nothing at the end: a block of zeros, or the end of the stream.
    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        if self.done {
            return Ok(None);
        }
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let first = loop {
            match self.stream.read(block) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(|source| self.unreadable(source))?,
            }
        };
        if first == 0 {
            self.done = true;
            return Ok(None);
        }
        self.fill(&mut block[first..])?;
        if block.iter().all(|byte| *byte == 0) {
            self.done = true;
            return Ok(None);
        }
        let sum: u32 = block.iter().enumerate().fold(0, |sum, (at, byte)| {
            let counted = if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            };
            sum + u32::from(counted)
        });
        if header.cksum().ok() != Some(sum) {
            return Err(self.malformed(&header, "header checksum"));
        }
        Ok(Some(header))
    }

    /// The data of an extension header.
    fn extension(&mut self, header: &Header, size: u64) -> Result<Vec<u8>, UnpackError> {
        let length = usize::try_from(size)
            .ok()
            .filter(|_| size <= MAX_EXTENSION)
            .ok_or_else(|| limit(&header.path_bytes(), "extension header", MAX_EXTENSION))?;
        let mut data = vec![0; length];
        self.frame(size);
        self.fill(&mut data)?;
        self.remaining = 0;
        Ok(data)
    }

    fn long_name(&mut self, header: &Header, size: u64) -> Result<Vec<u8>, UnpackError> {
        let mut name = self.extension(header, size)?;
        let end = name.iter().position(|byte| *byte == 0);
        name.truncate(end.unwrap_or(name.len()));
        Ok(name)
    }

    fn frame(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK;
    }

    fn skip(&mut self) -> Result<(), UnpackError> {
        let rest = self
            .remaining
            .saturating_add(std::mem::take(&mut self.padding));
        self.remaining = 0;
        let skipped = io::copy(&mut (&mut self.stream).take(rest), &mut io::sink())
            .map_err(|source| self.unreadable(source))?;
        if skipped == rest {
            return Ok(());
        }
        Err(self.unreadable(io::ErrorKind::UnexpectedEof.into()))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), UnpackError> {
        let outcome = self.stream.read_exact(buffer);
        outcome.map_err(|source| self.unreadable(source))
    }

    fn field<T>(
        &self,
        header: &Header,
        what: &'static str,
        value: io::Result<T>,
    ) -> Result<T, UnpackError> {
        value.map_err(|_| self.malformed(header, what))
    }

    fn unreadable(&self, source: io::Error) -> UnpackError {
        UnpackError::Read {
            entries: self.entries,
            source,
        }
    }

    fn malformed(&self, header: &Header, what: &'static str) -> UnpackError {
        UnpackError::Malformed {
            name: lossy(&header.path_bytes()),
            entries: self.entries,
            what,
        }
    }
}

fn kind(header: &Header, path: &[u8]) -> Result<Kind, UnpackError> {
    Ok(match header.entry_type() {
        // Archives from before POSIX mark a directory by its name alone.
        EntryType::Regular if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Char => Kind::CharacterDevice,
        EntryType::Block => Kind::BlockDevice,
        EntryType::Fifo => Kind::Fifo,
        other => {
            return Err(UnpackError::Kind {
                name: lossy(path),
                kind: char::from(other.as_byte()),
            });
        }
    })
}

/// Appends a part of a sparse map; nothing if segments overlap, run backwards or are too many.
fn add_segments(map: &[GnuSparseHeader], segments: &mut Vec<Segment>) -> Option<()> {
    for part in map.iter().filter(|part| !part.is_empty()) {
        let (offset, length) = (part.offset().ok()?, part.length().ok()?);
        let free = segments.last().map_or(0, |last| last.offset + last.length);
        let end = offset.checked_add(length)?;
        if offset < free || end > MAX_FILE || segments.len() == MAX_SEGMENTS {
            return None;
        }
        segments.push(Segment { offset, length });
    }
    Some(())
}

fn limit(name: &[u8], what: &'static str, limit: u64) -> UnpackError {
    UnpackError::Limit {
        name: lossy(name),
        what,
        limit,
    }
}
