//! The framing of an archive in the format of tar-split: all its bytes but the content of files, a
//! JSON document in each line.

use std::io::{self, BufRead};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

/// Longest line: a header with the largest extensions that are unpacked, in base64.
const MAX_LINE: u64 = 4 << 20;
/// The bytes are here.
const SEGMENT: u8 = 2;
/// An entry of the archive, whose content is elsewhere.
const FILE: u8 = 1;

/// What comes next in the archive.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// These bytes.
    Framing(Vec<u8>),
    /// The content of the next file that is not empty, of so many bytes.
    Content(u64),
}

#[derive(Deserialize)]
struct Line {
    r#type: u8,
    #[serde(default)]
    size: u64,
    payload: Option<String>,
}

/// The next piece; nothing at the end.
pub(super) fn next(lines: &mut impl BufRead) -> io::Result<Option<Piece>> {
    loop {
        let mut line = Vec::new();
        let read = io::Read::take(&mut *lines, MAX_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(None);
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let line: Line = serde_json::from_slice(&line)?;
        match (line.r#type, line.payload) {
            (SEGMENT, Some(payload)) => {
                let bytes = BASE64_STANDARD.decode(payload).map_err(io::Error::other)?;
                return Ok(Some(Piece::Framing(bytes)));
            }
            (FILE, _) if line.size > 0 => return Ok(Some(Piece::Content(line.size))),
            (FILE, _) | (SEGMENT, None) => {}
            (other, _) => {
                return Err(io::Error::other(format!(
                    "the framing has a piece of the unknown type {other}"
                )));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut lines: &[u8]) -> io::Result<Vec<Piece>> {
        std::iter::from_fn(|| next(&mut lines).transpose()).collect()
    }

    #[test]
    fn segments_and_files_come_in_order() {
        let lines = br#"{"type":2,"payload":"YWI=","position":0}
{"type":1,"name":"d/","payload":null,"position":1}
{"type":1,"name":"f","size":5,"payload":"AAAAAAAAAAA=","position":2}

{"type":2,"payload":"YwA=","position":3}"#;
        let expected = [
            Piece::Framing(b"ab".to_vec()),
            Piece::Content(5),
            Piece::Framing(b"c\0".to_vec()),
        ];
        assert_eq!(all(lines).expect("good"), expected);
    }

    #[test]
    fn what_is_no_framing_is_refused() {
        for lines in [
            "{\"type\":3}",
            "{\"type\":2,\"payload\":\"!\"}",
            "{\"type\":1,\"size\":-1}",
            "x",
            "{\"type\":2,\"payload\":\"YWI=\"",
            "{}",
        ] {
            all(lines.as_bytes()).expect_err(lines);
        }
        let long = format!("{{\"type\":2,\"payload\":\"{}\"}}\n", "A".repeat(5 << 20));
        all(long.as_bytes()).expect_err("too long");
    }
}
