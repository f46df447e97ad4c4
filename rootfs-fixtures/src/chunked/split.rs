//! An archive's framing in the format of tar-split, a JSON document in each line.

use std::io::{self, Read};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

const FILE: u8 = 1;
const SEGMENT: u8 = 2;
/// The polynomial of ISO 3309, lowest bit first.
const POLYNOMIAL: u64 = 0xD800_0000_0000_0000;

/// Lines so far.
#[derive(Default)]
pub(super) struct Split {
    lines: String,
    position: u64,
}

/// Computes the checksum of what is read through it.
pub(super) struct Checked<R> {
    inner: R,
    table: [u64; 256],
    sum: u64,
}

impl Split {
    /// Bytes of the archive as they are.
    pub(super) fn segment(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.line(json!({"type": SEGMENT, "payload": BASE64_STANDARD.encode(bytes)}));
        }
    }

    /// A member, whose content follows if it has any.
    pub(super) fn file(&mut self, name: &[u8], size: u64, checksum: Option<u64>) {
        let mut line = json!({"type": FILE});
        match std::str::from_utf8(name) {
            Ok(name) => line["name"] = json!(name),
            Err(_) => line["name_raw"] = json!(BASE64_STANDARD.encode(name)),
        }
        if size > 0 {
            line["size"] = json!(size);
        }
        let encode = |sum: u64| BASE64_STANDARD.encode(sum.to_be_bytes());
        line["payload"] = json!(checksum.map(encode));
        self.line(line);
    }

    pub(super) fn into_lines(self) -> Vec<u8> {
        self.lines.into_bytes()
    }

    fn line(&mut self, mut line: Value) {
        line["position"] = json!(self.position);
        self.position += 1;
        self.lines.push_str(&line.to_string());
        self.lines.push('\n');
    }
}

impl<R> Checked<R> {
    pub(super) fn new(inner: R) -> Self {
        let mut table = [0; 256];
        for (entry, start) in table.iter_mut().zip(0_u64..) {
            *entry = (0..8).fold(start, |sum, _| (sum >> 1) ^ (POLYNOMIAL * (sum & 1)));
        }
        Self {
            inner,
            table,
            sum: !0,
        }
    }

    pub(super) fn checksum(&self) -> u64 {
        !self.sum
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        for byte in &buffer[..count] {
            let low = self.sum.to_le_bytes()[0] ^ byte;
            self.sum = (self.sum >> 8) ^ self.table[usize::from(low)];
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_published_one() {
        let mut checked = Checked::new(b"123456789".as_slice());
        io::copy(&mut checked, &mut io::sink()).expect("in memory");
        // CRC-64/GO-ISO of the usual check string.
        assert_eq!(checked.checksum(), 0xb909_56c7_75a4_1001);
    }
}
