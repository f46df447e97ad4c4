//! The contract between a monitor and those who attach to its container.
//!
//! The monitor serves a stream socket in the bundle, [`ATTACH_FILE`], which only root may
//! use. Both ends send frames: a byte that tells the kind, the length of the content in
//! four bytes, the highest first, and the content of at most [`CONTENT_LIMIT`] bytes. The
//! agent has no part in it, so a session outlives it.
//!
//! A client gets the output from when it came, then the exit code. One that does not read
//! is cut off rather than let the container wait; the log misses nothing.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The socket in the bundle directory.
pub const ATTACH_FILE: &str = "attach";
/// Bytes of a frame's content at most.
pub const CONTENT_LIMIT: usize = 64 << 10;
/// Bytes of a frame before its content.
pub const HEADER: usize = 5;

/// Kinds of frames. Unknown ones are passed over.
pub mod kind {
    /// For the standard input.
    pub const INPUT: u8 = 0;
    /// The client's input ended.
    pub const INPUT_END: u8 = 1;
    /// Rows and columns of the terminal, as text.
    pub const RESIZE: u8 = 2;
    /// Number of a signal for the main process, as text.
    pub const SIGNAL: u8 = 3;
    /// From the standard output or the terminal.
    pub const STDOUT: u8 = 16;
    /// From the standard error.
    pub const STDERR: u8 = 17;
    /// Exit code, or 128 + signal, as text. The last frame.
    pub const EXIT: u8 = 18;
    /// Why the monitor does not serve this client.
    pub const FAILED: u8 = 19;
}

/// Where to attach to a running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachPoint {
    /// The socket.
    pub socket: PathBuf,
    /// The main process has a terminal.
    pub terminal: bool,
    /// It has a standard input.
    pub stdin: bool,
}

/// The first bytes of a frame with `length` bytes of content.
///
/// # Panics
/// Where `length` is above [`CONTENT_LIMIT`].
#[must_use]
pub fn header(kind: u8, length: usize) -> [u8; HEADER] {
    assert!(length <= CONTENT_LIMIT, "invariant: a frame's content fits");
    let [_, second, third, fourth] = u32::try_from(length).unwrap_or(0).to_be_bytes();
    [kind, 0, second, third, fourth]
}

/// The frame that `bytes` begin with: kind and length of the content; `None` where more
/// bytes are needed.
///
/// # Errors
/// A content above the limit.
pub fn frame(bytes: &[u8]) -> io::Result<Option<(u8, usize)>> {
    let Some((kind, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let Some(length) = rest.first_chunk().map(|length| u32::from_be_bytes(*length)) else {
        return Ok(None);
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > CONTENT_LIMIT {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((bytes.len() >= HEADER + length).then_some((*kind, length)))
}

/// Makes the socket of a bundle.
///
/// # Errors
/// The system's.
pub fn listen(bundle: &Path) -> io::Result<UnixListener> {
    let listener = through_directory(bundle, ATTACH_FILE, |path| {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        UnixListener::bind(path)
    })?;
    std::fs::set_permissions(bundle.join(ATTACH_FILE), Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Connects to the socket at `path`.
///
/// # Errors
/// The system's.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    through_directory(dir, name, |path| UnixStream::connect(path))
}

/// Names a file in `dir` in few characters: a socket's address has room for 108.
pub fn through_directory<T>(
    dir: &Path,
    name: &str,
    use_it: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let dir = File::open(dir)?;
    use_it(Path::new(&format!(
        "/proc/self/fd/{}/{name}",
        dir.as_raw_fd()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_known_when_all_of_it_is_there() {
        let mut bytes = header(kind::INPUT, 3).to_vec();
        bytes.extend_from_slice(b"abc");
        for length in 0..bytes.len() {
            assert_eq!(frame(&bytes[..length]).unwrap(), None, "{length}");
        }
        bytes.push(b'x');
        assert_eq!(frame(&bytes).unwrap(), Some((kind::INPUT, 3)));
        assert_eq!(header(kind::STDERR, CONTENT_LIMIT), [17, 0, 1, 0, 0]);
        frame(&[0, 0, 1, 0, 1]).unwrap_err();
        frame(&[0xff; 5]).unwrap_err();
    }

    #[test]
    fn a_long_path_is_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        for _ in 0..2 {
            // What an earlier run left does not matter.
            let listener = listen(&deep).unwrap();
            connect(&deep.join(ATTACH_FILE)).unwrap();
            listener.accept().unwrap();
        }
    }
}
