//! Keys that end a session and leave the process running.

use super::UsageError;

/// Docker's keys.
const DEFAULT: [u8; 2] = [0x10, 0x11];

/// A sequence of keys, and how much of it was typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

impl Default for DetachKeys {
    /// ctrl-p ctrl-q
    fn default() -> Self {
        Self {
            keys: DEFAULT.to_vec(),
            typed: 0,
        }
    }
}

impl DetachKeys {
    /// `ctrl-p,ctrl-q`, `a`, `ctrl-@,x`; `None` for an empty text: nothing detaches.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, UsageError> {
        if text.is_empty() {
            return Ok(None);
        }
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        match keys {
            Some(keys) => Ok(Some(Self { keys, typed: 0 })),
            None => Err(UsageError(format!(
                "invalid keys {text:?}: expected letters or ctrl-LETTER, separated by commas"
            ))),
        }
    }

    /// What of the typed `bytes` is for the process: a beginning of the sequence is kept
    /// back until it goes on otherwise. `None` when the sequence is complete.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut passed = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if byte != self.keys[self.typed] {
                passed.extend_from_slice(&self.keys[..self.typed]);
                self.typed = 0;
            }
            if byte != self.keys[self.typed] {
                passed.push(byte);
                continue;
            }
            self.typed += 1;
            if self.typed == self.keys.len() {
                return None;
            }
        }
        Some(passed)
    }
}

fn key(name: &str) -> Option<u8> {
    let single = |text: &str| match text.as_bytes() {
        [byte] if byte.is_ascii_graphic() => Some(*byte),
        _ => None,
    };
    match name.strip_prefix("ctrl-") {
        None => single(name),
        Some(letter) => {
            let letter = single(letter)?.to_ascii_uppercase();
            (b'@'..=b'_').contains(&letter).then(|| letter - b'@')
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_named_as_docker_names_them() {
        assert_eq!(
            DetachKeys::parse("ctrl-p,ctrl-q").unwrap(),
            Some(DetachKeys::default())
        );
        let keys = |text| DetachKeys::parse(text).unwrap().unwrap().keys;
        assert_eq!(keys("a,ctrl-@,ctrl-_,ctrl-["), [b'a', 0, 0x1f, 0x1b]);
        assert_eq!(DetachKeys::parse("").unwrap(), None);
        for bad in ["ctrl-", "ctrl-pp", "ab", ",", "ctrl-1", "a b"] {
            DetachKeys::parse(bad).unwrap_err();
        }
    }

    #[test]
    fn a_beginning_of_the_keys_is_kept_back_and_never_lost() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.pass(b"ab\x10").unwrap(), b"ab");
        assert_eq!(keys.pass(b"c").unwrap(), b"\x10c");
        assert_eq!(keys.pass(b"\x10\x10").unwrap(), b"\x10");
        assert_eq!(keys.pass(b"\x11"), None);
        let mut keys = DetachKeys::default();
        assert_eq!(keys.pass(b"x\x10\x11y"), None);
    }
}
