//! Files of `/proc`.

use std::io;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read};

/// Most of these files are shorter.
const USUAL: usize = 4 << 10;

/// Reads a file whose size is not known before it is read, as none is that the kernel makes up:
/// the standard library asks for it and then for a few bytes at a time.
///
/// # Errors
/// The kernel's; `InvalidData` where it is no text.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    let file = open(
        path.as_ref(),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut text = Vec::with_capacity(USUAL);
    loop {
        text.reserve(USUAL);
        match read(&file, spare_capacity(&mut text)) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    String::from_utf8(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_any_length_are_read_whole() {
        let long = tempfile::NamedTempFile::new().unwrap();
        for length in [0, 1, USUAL, 3 * USUAL + 1] {
            let text = "x".repeat(length);
            std::fs::write(long.path(), &text).unwrap();
            assert_eq!(read_text(long.path()).unwrap(), text);
        }
        assert!(read_text("/proc/self/status").unwrap().contains("SigIgn:"));
        let missing = read_text("/proc/self/none").unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
