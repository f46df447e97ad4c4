//! Headers of an archive: ustar, with PAX records for what does not fit in.

use std::fs::Metadata;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

use nix::libc::{major, minor};
use tar::{EntryType, Header};

/// Size of a header and unit of padding.
const BLOCK: usize = 512;
/// Bytes of a name or target that the header itself has room for.
const NAME: usize = 100;

/// What an entry makes.
pub(super) enum Kind {
    /// Of so many bytes.
    File(u64),
    Directory,
    /// With its target.
    Symlink(Vec<u8>),
    /// With the name of the other.
    HardLink(Vec<u8>),
    CharacterDevice,
    BlockDevice,
    Fifo,
}

/// One member of the archive.
pub(super) struct Entry<'a> {
    name: &'a [u8],
    kind: Kind,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Seconds since 1970 and nanoseconds.
    mtime: (i64, i64),
    device: u64,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<'a> Entry<'a> {
    pub(super) fn new(
        name: &'a [u8],
        kind: Kind,
        metadata: &Metadata,
        attributes: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Self {
        Self {
            name,
            kind,
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            device: metadata.rdev(),
            attributes,
        }
    }

    /// An empty file that means something by its name.
    pub(super) fn mark(name: &'a [u8]) -> Self {
        Self {
            name,
            kind: Kind::File(0),
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            device: 0,
            attributes: Vec::new(),
        }
    }

    /// Its headers; content and padding of a file come next.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let records = self.records();
        if !records.is_empty() {
            let mut header = Header::new_ustar();
            header.set_entry_type(EntryType::XHeader);
            header.set_size(records.len() as u64);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            put(&mut header.as_old_mut().name, b"././@PaxHeader");
            header.set_cksum();
            out.write_all(header.as_bytes())?;
            out.write_all(&records)?;
            pad(out, records.len() as u64)?;
        }
        let header = self.header()?;
        out.write_all(header.as_bytes())
    }

    fn header(&self) -> io::Result<Header> {
        let mut header = Header::new_ustar();
        put(&mut header.as_old_mut().name, self.name);
        put(&mut header.as_old_mut().linkname, self.link());
        header.set_mode(self.mode);
        header.set_uid(self.uid.into());
        header.set_gid(self.gid.into());
        header.set_mtime(u64::try_from(self.mtime.0).unwrap_or(0));
        header.set_size(match self.kind {
            Kind::File(size) => size,
            _ => 0,
        });
        header.set_entry_type(match self.kind {
            Kind::File(_) => EntryType::Regular,
            Kind::Directory => EntryType::Directory,
            Kind::Symlink(_) => EntryType::Symlink,
            Kind::HardLink(_) => EntryType::Link,
            Kind::CharacterDevice => EntryType::Char,
            Kind::BlockDevice => EntryType::Block,
            Kind::Fifo => EntryType::Fifo,
        });
        if matches!(self.kind, Kind::CharacterDevice | Kind::BlockDevice) {
            header.set_device_major(major(self.device))?;
            header.set_device_minor(minor(self.device))?;
        }
        header.set_cksum();
        Ok(header)
    }

    fn link(&self) -> &[u8] {
        match &self.kind {
            Kind::Symlink(target) | Kind::HardLink(target) => target,
            _ => b"",
        }
    }

    /// PAX records for what the header cannot say.
    fn records(&self) -> Vec<u8> {
        let mut records = Vec::new();
        if self.name.len() > NAME {
            record(&mut records, b"path", self.name);
        }
        if self.link().len() > NAME {
            record(&mut records, b"linkpath", self.link());
        }
        let (seconds, nanoseconds) = self.mtime;
        if seconds < 0 || nanoseconds != 0 {
            record(&mut records, b"mtime", decimal(self.mtime).as_bytes());
        }
        for (name, value) in &self.attributes {
            record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        records
    }
}

/// Fills up to the next block behind `size` bytes.
pub(super) fn pad(out: &mut impl Write, size: u64) -> io::Result<()> {
    let padding = size.next_multiple_of(BLOCK as u64) - size;
    let padding = usize::try_from(padding).unwrap_or(0);
    out.write_all(&[0; BLOCK][..padding])
}

/// As much of a name as there is room for; all of a longer one is in a record.
fn put(field: &mut [u8; NAME], name: &[u8]) {
    let length = name.len().min(NAME);
    field[..length].copy_from_slice(&name[..length]);
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    for part in [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

/// Seconds with a fraction. Nanoseconds count forward, also before 1970.
fn decimal((seconds, nanoseconds): (i64, i64)) -> String {
    match seconds {
        ..0 if nanoseconds > 0 => {
            let fraction = 1_000_000_000 - nanoseconds;
            format!("-{}.{fraction:09}", -(seconds + 1))
        }
        _ => format!("{seconds}.{nanoseconds:09}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_itself() {
        for length in [1, 2, 3, 90, 91, 92, 93, 94, 95, 991, 992, 993] {
            let mut records = Vec::new();
            record(&mut records, b"k", &vec![b'v'; length]);
            let text = String::from_utf8(records.clone()).expect("text");
            let (said, _) = text.split_once(' ').expect("a length");
            assert_eq!(said.parse::<usize>().expect("a number"), records.len());
        }
    }

    #[test]
    fn times_before_1970_are_what_they_are() {
        assert_eq!(decimal((5, 20)), "5.000000020");
        assert_eq!(decimal((-5, 0)), "-5.000000000");
        assert_eq!(decimal((-5, 250_000_000)), "-4.750000000");
        assert_eq!(decimal((-1, 999_999_999)), "-0.000000001");
    }
}
