//! How a container tells how it is, by the protocol of systemd's notifications.
//!
//! Where the options ask for it, a directory of the bundle is mounted in the container with a
//! datagram socket in it that everybody there may write to. The monitor listens, and writes what
//! it was told to [`NOTIFY_FILE`].

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::attach::through_directory;
use crate::record::{self, RecordError};

/// The directory of the bundle that is mounted.
pub const NOTIFY_DIR: &str = "notify";
/// Where it is mounted.
pub const NOTIFY_TARGET: &str = "/run/notify";
/// What was told, in the bundle directory.
pub const NOTIFY_FILE: &str = "notify.json";
/// Name of the socket.
const SOCKET: &str = "notify.sock";
/// Characters of a status at most.
const STATUS: usize = 200;

/// What a container told of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Notified {
    /// [`super::CONTRACT`] of the writer.
    pub contract: u32,
    /// Its start is done.
    pub ready: bool,
    /// The state in its own words.
    pub status: String,
}

impl Notified {
    /// Takes a message of `NAME=VALUE` lines in; what is not about the start or the state is
    /// passed over.
    pub fn hear(&mut self, message: &[u8]) {
        for line in String::from_utf8_lossy(message).lines() {
            match line.split_once('=') {
                Some(("READY", "1")) => self.ready = true,
                Some(("STATUS", text)) => {
                    let shown = text.chars().filter(|c| !c.is_control());
                    self.status = shown.take(STATUS).collect();
                }
                _ => {}
            }
        }
    }

    /// Writes the record, whole or not at all.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        record::write(path, self)
    }
}

/// The environment variable that names the socket inside.
pub(crate) fn variable() -> String {
    format!("NOTIFY_SOCKET={NOTIFY_TARGET}/{SOCKET}")
}

/// Makes directory and socket of a bundle.
///
/// # Errors
/// The system's.
pub fn listen(bundle: &Path) -> io::Result<UnixDatagram> {
    let dir = bundle.join(NOTIFY_DIR);
    let path = dir.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = through_directory(&dir, SOCKET, |path| UnixDatagram::bind(path))?;
    // Whoever the module runs as.
    fs::set_permissions(&path, Permissions::from_mode(0o666))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_and_state_are_heard_and_the_rest_is_not() {
        let mut notified = Notified::default();
        for (message, ready, status) in [
            ("MAINPID=7\nWATCHDOG=1", false, ""),
            ("READY=0\nSTATUS=loading", false, "loading"),
            ("STATUS=half\nREADY=1\n", true, "half"),
            ("RELOADING=1", true, "half"),
            ("STATUS=\u{1b}[1ma=b", true, "[1ma=b"),
            ("nothing", true, "[1ma=b"),
            ("STATUS=", true, ""),
        ] {
            notified.hear(message.as_bytes());
            assert_eq!((notified.ready, notified.status.as_str()), (ready, status));
        }
        notified.hear(format!("STATUS={}", "\u{e9}".repeat(1000)).as_bytes());
        assert_eq!(notified.status.chars().count(), STATUS);
        notified.hear(b"STATUS=\xff");
        assert_eq!(notified.status, "\u{fffd}");
    }
}
