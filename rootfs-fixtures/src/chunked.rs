//! Layers that can be fetched file by file: archives packed as zstd:chunked.
//!
//! The blob is a zstd stream that any client unpacks to the same archive. Each file's content has
//! frames of its own; behind the last are, in frames that decoders skip, a table of contents with
//! every file's place and digest, the archive's framing in the format of tar-split, and a footer.
//! Where they are is also said in annotations of the layer's descriptor. The same archive gives the
//! same blob; nothing is read but the archive.

mod blob;
mod layout;
mod member;
mod split;

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

use serde_json::{Value, json};

use self::blob::Blob;
pub use self::layout::{ChunkError, Report, chunk_layout};
use self::member::{Member, members};
use self::split::Split;
use crate::Digest;

/// What annotations of the layer's descriptor begin with.
const ANNOTATION: &str = "io.github.containers.zstd-chunked.";
/// The only kind of table there is.
const TOC_KIND: u64 = 1;
/// Ends the footer.
const MAGIC: u64 = u64::from_le_bytes(*b"GNUlInUx");

/// An archive that was packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunked {
    /// The digest of the blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// The digest of the archive.
    pub diff_id: Digest,
    /// What the layer's descriptor has to say besides, for files to be found.
    pub annotations: BTreeMap<String, String>,
}

/// Packs `archive` into `out`, with the compression `level` of zstd (19 is the last one whose window
/// every client reads).
///
/// # Errors
/// When `archive` is no tar archive or has sparse files, which tables cannot describe, and when
/// reading or writing fails. `out` has some bytes then.
pub fn chunk<R: Read + Seek>(mut archive: R, out: impl Write, level: i32) -> io::Result<Chunked> {
    let members = members(&mut archive)?;
    archive.seek(SeekFrom::Start(0))?;
    let mut packing = Packing {
        archive: blob::Hashed::new(archive),
        blob: Blob::new(out, level),
        split: Split::default(),
        position: 0,
    };
    let mut entries = Vec::new();
    for member in members {
        entries.push(packing.add(member)?);
    }
    packing.finish(&entries)
}

/// An archive on its way.
struct Packing<R, W> {
    archive: blob::Hashed<R>,
    blob: Blob<W>,
    split: Split,
    /// Bytes of the archive that were read.
    position: u64,
}

impl<R: Read, W: Write> Packing<R, W> {
    /// Packs a member with what is before its content; gives its entry in the table.
    fn add(&mut self, member: Member) -> io::Result<Value> {
        let mut framing = Vec::new();
        let before = member.data.saturating_sub(self.position);
        self.archive
            .by_ref()
            .take(before)
            .read_to_end(&mut framing)?;
        self.position = member.data + member.size;
        self.blob.framing(&framing);
        self.split.segment(&framing);
        let mut entry = member.entry;
        let mut checksum = None;
        if member.size > 0 {
            let mut content = split::Checked::new((&mut self.archive).take(member.size));
            let (range, digest) = self.blob.content(&mut content, member.size)?;
            checksum = Some(content.checksum());
            entry["digest"] = json!(digest.as_str());
            entry["offset"] = json!(range.start);
            entry["endOffset"] = json!(range.end);
        }
        self.split.file(&member.name, member.size, checksum);
        Ok(entry)
    }

    fn finish(mut self, entries: &[Value]) -> io::Result<Chunked> {
        let mut rest = Vec::new();
        self.archive.read_to_end(&mut rest)?;
        self.split.segment(&rest);
        self.blob.framing(&rest);
        let split = self.split.into_lines();
        let packed_split = self.blob.pack(&split)?;
        let toc = json!({
            "version": 1,
            "entries": entries,
            "tarSplitDigest": Digest::of(&packed_split).as_str(),
        })
        .to_string();
        let packed_toc = self.blob.pack(toc.as_bytes())?;
        let toc_at = self.blob.skippable(&packed_toc)?;
        let split_at = self.blob.skippable(&packed_split)?;
        let (toc_length, split_length) = (packed_toc.len() as u64, packed_split.len() as u64);
        let toc_place = [toc_at, toc_length, toc.len() as u64, TOC_KIND];
        let split_place = [split_at, split_length, split.len() as u64];
        let numbers = toc_place.iter().chain(&split_place).chain([&MAGIC]);
        let footer: Vec<u8> = numbers.flat_map(|number| number.to_le_bytes()).collect();
        self.blob.skippable(&footer)?;
        let joined = |numbers: &[u64]| {
            let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
            words.join(":")
        };
        let annotations = [
            (
                "manifest-checksum",
                Digest::of(&packed_toc).as_str().to_owned(),
            ),
            ("manifest-position", joined(&toc_place)),
            ("tarsplit-position", joined(&split_place)),
        ];
        let annotations = annotations.map(|(name, value)| (format!("{ANNOTATION}{name}"), value));
        let (digest, size) = self.blob.finish()?;
        Ok(Chunked {
            digest,
            size,
            diff_id: self.archive.digest(),
            annotations: annotations.into(),
        })
    }
}

#[cfg(test)]
mod tests;
