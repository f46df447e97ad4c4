//! Where a layer's descriptor says that its table of contents is (zstd:chunked). A hint only: what
//! makes no sense is as good as nothing, and the layer is then fetched as a whole.

use std::collections::HashMap;
use std::ops::Range;

use oci_spec::image::Digest;

use crate::digest::is_supported;

const TOC_DIGEST: &str = "io.github.containers.zstd-chunked.manifest-checksum";
const TOC_POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
const SPLIT_POSITION: &str = "io.github.containers.zstd-chunked.tarsplit-position";
/// The only kind of table there is.
const TOC_KIND: u64 = 1;

/// Most compressed bytes of a table or of the framing: both are held in memory.
const MAX_PACKED: u64 = 8 << 20;
/// Most bytes they are unpacked; they are read as streams.
const MAX_PLAIN: u64 = 256 << 20;
/// The table and the framing follow each other in the blob, nearly.
const MAX_BETWEEN: u64 = 4 << 10;

/// The parts of a blob by which single files of it can be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunked {
    /// The table of contents: each file's digest, and where it is.
    pub(crate) toc: Part,
    /// Of the table as it is in the blob.
    pub(crate) toc_digest: Digest,
    /// Everything in the archive but the files' content, in the format of tar-split.
    pub(crate) split: Part,
}

/// A compressed part of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// Bytes of the blob.
    pub(crate) range: Range<u64>,
    /// Its length when it is unpacked.
    pub(crate) length: u64,
}

impl Chunked {
    /// Reads a descriptor's annotations; nothing unless both parts are there, within a blob of
    /// `size` bytes, and neither large nor far from each other.
    pub(super) fn read(annotations: &HashMap<String, String>, size: u64) -> Option<Self> {
        let (toc, kind) = part(annotations.get(TOC_POSITION)?)?;
        let (split, nothing) = part(annotations.get(SPLIT_POSITION)?)?;
        let toc_digest = Digest::try_from(annotations.get(TOC_DIGEST)?.as_str()).ok()?;
        let chunked = Self {
            toc,
            toc_digest,
            split,
        };
        let span = chunked.span();
        let parts = chunked.toc.packed() + chunked.split.packed();
        let good = kind == Some(TOC_KIND)
            && nothing.is_none()
            && is_supported(&chunked.toc_digest)
            && span.end <= size
            && span.end - span.start <= parts + MAX_BETWEEN;
        good.then_some(chunked)
    }

    /// Bytes of the blob that hold both.
    pub(crate) fn span(&self) -> Range<u64> {
        let (toc, split) = (&self.toc.range, &self.split.range);
        toc.start.min(split.start)..toc.end.max(split.end)
    }
}

impl Part {
    fn packed(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// `<offset>:<length>:<length when unpacked>`, with a kind behind it for tables.
fn part(text: &str) -> Option<(Part, Option<u64>)> {
    let numbers: Result<Vec<u64>, _> = text.split(':').map(str::parse).collect();
    let (offset, packed, length, kind) = match numbers.ok()?[..] {
        [offset, packed, length] => (offset, packed, length, None),
        [offset, packed, length, kind] => (offset, packed, length, Some(kind)),
        _ => return None,
    };
    let range = offset..offset.checked_add(packed)?;
    let good = (1..=MAX_PACKED).contains(&packed) && length <= MAX_PLAIN;
    good.then_some((Part { range, length }, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toc: &str, split: &str, digest: &str) -> Option<Chunked> {
        let pairs = [
            (TOC_POSITION, toc),
            (SPLIT_POSITION, split),
            (TOC_DIGEST, digest),
        ];
        let annotations = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Chunked::read(&annotations.into(), 1000)
    }

    #[test]
    fn positions_within_the_blob_are_taken_and_all_others_ignored() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let read = |toc: &str, split: &str| read(toc, split, &digest);
        let good = read("700:100:5000:1", "808:100:6000").expect("good");
        assert_eq!(good.span(), 700..908);
        assert_eq!((good.toc.length, good.split.length), (5000, 6000));
        for (toc, split) in [
            ("700:100:5000:2", "808:100:6000"),
            ("700:100:5000", "808:100:6000"),
            ("700:100:5000:1", "808:100:6000:1"),
            ("700:100:5000:1", "901:100:6000"),
            ("700:0:5000:1", "808:100:6000"),
            ("700:-1:5000:1", "808:100:6000"),
            ("18446744073709551615:100:5000:1", "808:100:6000"),
            ("700:100:5000:1", "808:18446744073709551615:6000"),
            ("700:100:18446744073709551615:1", "808:100:6000"),
            ("", "808:100:6000"),
            ("1:2:3:4:5", "808:100:6000"),
        ] {
            assert_eq!(read(toc, split), None, "{toc} {split}");
        }
        let strange = format!("blake3:{}", "a".repeat(64));
        assert_eq!(
            super::tests::read("700:100:5000:1", "808:100:6000", &strange),
            None
        );
    }
}
