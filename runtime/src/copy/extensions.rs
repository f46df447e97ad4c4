//! What extension headers of an archive say of the member behind them, byte for byte.
//!
//! The `tar` crate has it too, but splits PAX records at line feeds, which attributes such as
//! `security.capability` may contain. So the headers' bytes are kept on their way to that crate
//! ([`Tap`]) and read once more here.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;

use tar::{EntryType, Header};

use crate::attributes::Attribute;

/// Namespace of extended attributes in PAX records, as GNU tar, Go and libarchive have it.
pub(super) const ATTRIBUTE: &str = "SCHILY.xattr.";
/// A header, and the unit of what follows it.
const BLOCK: usize = 512;
/// All headers of one member, as much as Go's `archive/tar` takes, and some.
const LONGEST: usize = 2 << 20;

/// What precedes one member.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    /// Its name, where the header has no room for it.
    pub(super) path: Option<Vec<u8>>,
    /// What it is a link to, likewise.
    pub(super) link: Option<Vec<u8>>,
    pub(super) attributes: Vec<Attribute>,
}

/// Passes an archive on, and keeps what passes while it is told to.
#[derive(Debug)]
pub(super) struct Tap<R> {
    from: R,
    kept: Kept,
}

/// What a [`Tap`] keeps.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept(Rc<RefCell<State>>);

#[derive(Debug, Default)]
struct State {
    /// Bytes that passed.
    passed: u64,
    /// Where the kept ones begin.
    since: u64,
    bytes: Option<Vec<u8>>,
}

impl<R> Tap<R> {
    pub(super) fn new(from: R) -> (Self, Kept) {
        let kept = Kept::default();
        let tap = Self {
            from,
            kept: kept.clone(),
        };
        (tap, kept)
    }
}

impl<R: Read> Read for Tap<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        let mut state = self.kept.0.borrow_mut();
        state.passed += count as u64;
        if let Some(bytes) = &mut state.bytes {
            if bytes.len() + count > LONGEST {
                return Err(io::Error::other("a member's headers are too long"));
            }
            bytes.extend_from_slice(&buffer[..count]);
        }
        Ok(count)
    }
}

impl Kept {
    /// To be called when all of a member was read: what passes now are headers of the next one.
    pub(super) fn begin(&self) {
        let mut state = self.0.borrow_mut();
        state.since = state.passed;
        state.bytes = Some(Vec::new());
    }

    /// Nothing is kept from here on.
    pub(super) fn pause(&self) {
        self.0.borrow_mut().bytes = None;
    }

    /// What was said of the member whose own header is at `header` of the archive.
    pub(super) fn end(&self, header: u64) -> io::Result<Extensions> {
        let mut state = self.0.borrow_mut();
        let bytes = state.bytes.take().unwrap_or_default();
        let at = |position: u64| usize::try_from(position.saturating_sub(state.since));
        // The padding of the member before comes first.
        let first = at(state.since.next_multiple_of(BLOCK as u64));
        match (first, at(header)) {
            (Ok(first), Ok(end)) => read(bytes.get(first..end).unwrap_or_default()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Reads extension headers, one after the other.
fn read(mut bytes: &[u8]) -> io::Result<Extensions> {
    let mut found = Extensions::default();
    let mut records = None;
    while let Some((block, rest)) = bytes.split_at_checked(BLOCK) {
        let header = Header::from_byte_slice(block);
        let size = usize::try_from(header.entry_size()?).unwrap_or(usize::MAX);
        let content = rest.get(..size).ok_or(io::ErrorKind::InvalidData)?;
        match header.entry_type() {
            EntryType::GNULongName => found.path = Some(until_zero(content)),
            EntryType::GNULongLink => found.link = Some(until_zero(content)),
            EntryType::XHeader => records = Some(content),
            _ => {}
        }
        bytes = rest.get(size.next_multiple_of(BLOCK)..).unwrap_or_default();
    }
    let mut records = records.unwrap_or_default();
    while !records.is_empty() {
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed PAX record");
        let (key, value, rest) = record(records).ok_or_else(malformed)?;
        match key {
            b"path" => found.path = found.path.or_else(|| Some(value.to_vec())),
            b"linkpath" => found.link = found.link.or_else(|| Some(value.to_vec())),
            _ => {
                if let Some(name) = key.strip_prefix(ATTRIBUTE.as_bytes()) {
                    found.attributes.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        records = rest;
    }
    Ok(found)
}

fn until_zero(content: &[u8]) -> Vec<u8> {
    let name = content.split(|byte| *byte == 0).next();
    name.unwrap_or_default().to_vec()
}

/// The first record, `<length> <key>=<value>\n` where the length counts all of it, and the rest.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    let (record, rest) = data.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], rest))
}
