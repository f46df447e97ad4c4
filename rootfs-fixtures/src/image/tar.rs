//! A tar writer that writes what it is told, including what no honest archiver would.
//!
//! It knows ustar headers, both ways to store a long name, PAX records and GNU sparse files. It
//! checks nothing: judging an archive is the reader's work, and hostile archives are the point.

use std::collections::BTreeMap;

/// Every header and every payload is padded to this.
const BLOCK: usize = 512;

/// How a name that does not fit a ustar header is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LongNames {
    /// A PAX `path` or `linkpath` record before the entry (POSIX 2001).
    #[default]
    Pax,
    /// A GNU `L` or `K` entry before the entry.
    Gnu,
}

/// One archive entry, stored as it stands.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) path: Vec<u8>,
    pub(super) typeflag: u8,
    pub(super) mode: u32,
    pub(super) owner: (u64, u64),
    pub(super) mtime: u64,
    pub(super) link: Vec<u8>,
    pub(super) device: (u32, u32),
    pub(super) xattrs: BTreeMap<String, Vec<u8>>,
    pub(super) data: Vec<u8>,
    pub(super) sparse: Option<Sparse>,
    /// What the header says instead of the payload's real length.
    pub(super) claimed_size: Option<u64>,
    pub(super) long_names: LongNames,
}

/// Where the stored bytes of a sparse file belong: (offset, length), in ascending order.
#[derive(Clone, Debug)]
pub(super) struct Sparse {
    pub(super) real_size: u64,
    pub(super) segments: Vec<(u64, u64)>,
}

impl Entry {
    /// Appends the entry, with the headers that it needs before it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut records = BTreeMap::new();
        for (name, value) in &self.xattrs {
            records.insert(format!("SCHILY.xattr.{name}"), value.clone());
        }
        for (long, record, gnu) in [(&self.path, "path", b'L'), (&self.link, "linkpath", b'K')] {
            if long.len() <= 100 {
                continue;
            }
            match self.long_names {
                LongNames::Pax => {
                    records.insert(record.to_owned(), long.clone());
                }
                LongNames::Gnu => {
                    let mut name = long.clone();
                    name.push(0);
                    write_helper(out, gnu, b"././@LongLink", &name);
                }
            }
        }
        if !records.is_empty() {
            write_helper(out, b'x', b"PaxHeaders/entry", &pax_records(&records));
        }

        out.extend_from_slice(&self.header());
        if let Some(sparse) = &self.sparse {
            write_sparse_extension(out, sparse);
        }
        write_padded(out, &self.data);
    }

    fn header(&self) -> [u8; BLOCK] {
        let mut header = [0; BLOCK];
        put(&mut header, 0, 100, &self.path);
        number(&mut header, 100, 8, u64::from(self.mode));
        number(&mut header, 108, 8, self.owner.0);
        number(&mut header, 116, 8, self.owner.1);
        number(
            &mut header,
            124,
            12,
            self.claimed_size.unwrap_or(self.data.len() as u64),
        );
        number(&mut header, 136, 12, self.mtime);
        header[156] = self.typeflag;
        put(&mut header, 157, 100, &self.link);
        if matches!(self.typeflag, b'3' | b'4') {
            number(&mut header, 329, 8, u64::from(self.device.0));
            number(&mut header, 337, 8, u64::from(self.device.1));
        }
        if let Some(sparse) = &self.sparse {
            put(&mut header, 257, 8, b"ustar  \0");
            for (slot, (offset, length)) in sparse.segments.iter().take(4).enumerate() {
                number(&mut header, 386 + slot * 24, 12, *offset);
                number(&mut header, 398 + slot * 24, 12, *length);
            }
            header[482] = u8::from(sparse.segments.len() > 4);
            number(&mut header, 483, 12, sparse.real_size);
        } else {
            put(&mut header, 257, 8, b"ustar\x0000");
        }
        checksum(&mut header);
        header
    }
}

/// Appends a PAX header that holds for all following entries.
pub(super) fn write_global(out: &mut Vec<u8>, records: &BTreeMap<String, Vec<u8>>) {
    write_helper(out, b'g', b"PaxHeaders/global", &pax_records(records));
}

/// Appends the two empty blocks that end an archive.
pub(super) fn write_end(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; 2 * BLOCK]);
}

fn write_helper(out: &mut Vec<u8>, typeflag: u8, name: &[u8], data: &[u8]) {
    let mut header = [0; BLOCK];
    put(&mut header, 0, 100, name);
    for (at, width, value) in [(100, 8, 0o644), (108, 8, 0), (116, 8, 0), (136, 12, 0)] {
        number(&mut header, at, width, value);
    }
    number(&mut header, 124, 12, data.len() as u64);
    header[156] = typeflag;
    put(&mut header, 257, 8, b"ustar\x0000");
    checksum(&mut header);
    out.extend_from_slice(&header);
    write_padded(out, data);
}

/// Old GNU sparse files keep four segments in the header and 21 in each block after it.
fn write_sparse_extension(out: &mut Vec<u8>, sparse: &Sparse) {
    let mut rest = sparse
        .segments
        .get(4..)
        .unwrap_or_default()
        .chunks(21)
        .peekable();
    while let Some(segments) = rest.next() {
        let mut block = [0; BLOCK];
        for (slot, (offset, length)) in segments.iter().enumerate() {
            number(&mut block, slot * 24, 12, *offset);
            number(&mut block, slot * 24 + 12, 12, *length);
        }
        block[504] = u8::from(rest.peek().is_some());
        out.extend_from_slice(&block);
    }
}

fn write_padded(out: &mut Vec<u8>, data: &[u8]) {
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn pax_records(records: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in records {
        let bare = key.len() + value.len() + 3;
        let mut length = bare;
        while length != bare + length.to_string().len() {
            length = bare + length.to_string().len();
        }
        out.extend_from_slice(format!("{length} {key}=").as_bytes());
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out
}

fn put(header: &mut [u8; BLOCK], at: usize, width: usize, bytes: &[u8]) {
    let length = bytes.len().min(width);
    header[at..at + length].copy_from_slice(&bytes[..length]);
}

/// Octal with a closing NUL, or GNU's base 256 where the digits do not suffice.
fn number(header: &mut [u8; BLOCK], at: usize, width: usize, value: u64) {
    let octal = format!("{value:0digits$o}", digits = width - 1);
    if octal.len() < width {
        put(header, at, width, octal.as_bytes());
        return;
    }
    let bytes = value.to_be_bytes();
    header[at] = 0x80;
    let used = bytes.len().min(width - 1);
    header[at + width - used..at + width].copy_from_slice(&bytes[bytes.len() - used..]);
}

fn checksum(header: &mut [u8; BLOCK]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}
