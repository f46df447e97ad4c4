//! The table of contents of a zstd:chunked layer: the content of each file, and where it is in the
//! blob. Reads a stream, and keeps what is needed of it; names are not.

use std::fmt;
use std::io::Read;

use oci_spec::image::Digest;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::digest::Sha256;

/// Most files: kept in memory, 64 bytes each.
const MAX_FILES: usize = 200_000;

/// The content of one regular file that is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) sha256: Sha256,
    /// Bytes it has.
    pub(super) size: u64,
    /// Where its compressed frames are in the blob.
    pub(super) offset: u64,
    pub(super) end: u64,
}

/// The files in the order of the archive.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Toc {
    pub(super) contents: Vec<Content>,
    /// Of the framing as it is in the blob, if the table says.
    pub(super) split_digest: Option<Digest>,
}

/// An entry, as far as it is of interest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    r#type: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    end_offset: u64,
}

impl Toc {
    /// Reads a table of a blob whose files end before `limit`.
    pub(super) fn read(json: impl Read, limit: u64) -> Result<Self, serde_json::Error> {
        let mut json = serde_json::Deserializer::from_reader(json);
        let toc = (&mut json).deserialize_map(TocVisitor { limit })?;
        json.end()?;
        Ok(toc)
    }
}

struct TocVisitor {
    limit: u64,
}

impl<'de> Visitor<'de> for TocVisitor {
    type Value = Toc;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of contents")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Toc, A::Error> {
        let mut toc = Toc::default();
        let mut version = None;
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "version" => version = Some(map.next_value::<u64>()?),
                "entries" => {
                    map.next_value_seed(Entries {
                        contents: &mut toc.contents,
                        limit: self.limit,
                    })?;
                }
                "tarSplitDigest" => {
                    let text = map.next_value::<String>()?;
                    let digest = Digest::try_from(text).map_err(A::Error::custom)?;
                    toc.split_digest = Some(digest);
                }
                _ => {
                    let _ = map.next_value::<IgnoredAny>()?;
                }
            }
        }
        match version {
            Some(1) => Ok(toc),
            other => Err(A::Error::custom(format!("its version is {other:?}, not 1"))),
        }
    }
}

struct Entries<'a> {
    contents: &'a mut Vec<Content>,
    limit: u64,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("entries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut end = 0;
        while let Some(entry) = seq.next_element::<Entry>()? {
            // A file in several chunks has one entry for its whole, and those behind it.
            if entry.r#type != "reg" || entry.size == 0 {
                continue;
            }
            if self.contents.len() == MAX_FILES {
                return Err(A::Error::custom("it has too many files"));
            }
            let sha256 = entry.digest.strip_prefix("sha256:");
            let content = Content {
                sha256: sha256
                    .and_then(|hex| parse_hex(hex.as_bytes()))
                    .ok_or_else(|| A::Error::custom("a file has no sha256"))?,
                size: entry.size,
                offset: entry.offset,
                end: entry.end_offset,
            };
            // In the order of the archive, so that they can be fetched as it is put together.
            if content.offset < end || content.end <= content.offset || content.end > self.limit {
                return Err(A::Error::custom("the place of a file is impossible"));
            }
            end = content.end;
            self.contents.push(content);
        }
        Ok(())
    }
}

/// A sha256 in hexadecimal digits.
fn parse_hex(hex: &[u8]) -> Option<Sha256> {
    if hex.len() != 64 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let mut sha256 = [0; 32];
    for (byte, digits) in sha256.iter_mut().zip(hex.chunks_exact(2)) {
        let value = digit(digits[0])? << 4 | digit(digits[1])?;
        *byte = u8::try_from(value).ok()?;
    }
    Some(sha256)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn file(digest: char, size: u64, offset: u64, end: u64) -> Value {
        let digest = format!("sha256:{}", digest.to_string().repeat(64));
        json!({"type": "reg", "name": "a", "mode": 420, "size": size, "digest": digest,
               "offset": offset, "endOffset": end})
    }

    fn read(entries: &[Value]) -> Result<Toc, serde_json::Error> {
        let table = json!({"version": 1, "entries": entries});
        Toc::read(table.to_string().as_bytes(), 1000)
    }

    #[test]
    fn files_with_content_are_kept() {
        let chunk = json!({"type": "chunk", "name": "a", "offset": 20, "chunkOffset": 5});
        let empty = json!({"type": "reg", "name": "b"});
        let directory = json!({"type": "dir", "name": "c/", "mode": 493});
        let toc = read(&[
            directory,
            file('a', 9, 10, 30),
            chunk,
            empty,
            file('b', 1, 30, 31),
        ]);
        let toc = toc.expect("good");
        assert_eq!(toc.contents.len(), 2);
        let content = Content {
            sha256: [0xaa; 32],
            size: 9,
            offset: 10,
            end: 30,
        };
        assert_eq!(toc.contents[0], content);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let good = file('a', 9, 10, 30);
        let mut nameless = good.clone();
        nameless["digest"] = "sha256:abc".into();
        let mut signed = good.clone();
        signed["digest"] = format!("sha256:{}", "+1".repeat(32)).into();
        for entries in [
            vec![file('a', 9, 30, 30)],
            vec![file('a', 9, 30, 10)],
            vec![file('a', 9, 10, 1001)],
            vec![good.clone(), file('b', 9, 29, 40)],
            vec![nameless],
            vec![signed],
            vec![json!({"name": "a"})],
            vec![json!({"type": "reg", "size": -1})],
        ] {
            read(&entries).expect_err("refused");
        }
        for table in [
            json!({"version": 2, "entries": [good]}),
            json!({"entries": []}),
            json!([]),
        ] {
            Toc::read(table.to_string().as_bytes(), 1000).expect_err("refused");
        }
        Toc::read(br#"{"version":1,"entries":[]} x"#.as_slice(), 1000).expect_err("more behind it");
    }
}
