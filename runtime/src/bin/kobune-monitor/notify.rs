//! What the container tells of itself, written down for the agent.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kobune_runtime::shim::CONTRACT;
use kobune_runtime::shim::notify::{NOTIFY_FILE, Notified};

/// Messages that are read at a time.
const MESSAGES: usize = 16;
/// Bytes of a message that are read.
const MESSAGE: usize = 4096;
/// Least time between two records, so that a container that tells much does not keep the agent
/// busy; that it is ready is told at once.
const PAUSE: Duration = Duration::from_secs(1);

pub(crate) struct Notify {
    socket: UnixDatagram,
    file: PathBuf,
    told: Notified,
    written: Notified,
    /// When the next record may be written.
    next: Instant,
}

impl Notify {
    pub(crate) fn new(socket: UnixDatagram, bundle: &Path) -> Self {
        let nothing = Notified {
            contract: CONTRACT,
            ..Notified::default()
        };
        Self {
            socket,
            file: bundle.join(NOTIFY_FILE),
            told: nothing.clone(),
            written: nothing,
            next: Instant::now(),
        }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Reads what is there.
    pub(crate) fn receive(&mut self) {
        let mut message = [0; MESSAGE];
        for _ in 0..MESSAGES {
            match self.socket.recv(&mut message) {
                Ok(count) => self.told.hear(&message[..count]),
                Err(_) => break,
            }
        }
    }

    /// When there is something to write.
    pub(crate) fn due(&self) -> Option<Instant> {
        (self.told != self.written).then_some(self.next)
    }

    /// Writes what is new, if it is time; what cannot be written is tried again.
    pub(crate) fn tell(&mut self) {
        let now = Instant::now();
        let urgent = self.told.ready != self.written.ready;
        if self.told == self.written || now < self.next && !urgent {
            return;
        }
        self.next = now + PAUSE;
        if self.told.write(&self.file).is_ok() {
            self.written = self.told.clone();
        }
    }
}
