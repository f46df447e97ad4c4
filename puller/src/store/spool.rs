//! The beginning of a compressed layer, kept on disk while the rest is fetched.
//!
//! What is here is not trusted: it is hashed again with what follows, and removed when the digest of
//! the whole is not what it should be. It is not flushed either: after a power loss what the kernel
//! had written is used, all but the last half minute or so. A layer that comes within [`YOUNG`] costs
//! the device no byte more than its files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use oci_spec::image::Digest;

use super::{Store, StoreError, failed, lock};

/// How long a layer that nobody goes on fetching is kept.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// A flush writes all that the file system has, spools included. It waits for those that were opened
/// less than this ago, since behind a fast link they may be gone soon; once, and no longer than this.
const YOUNG: Duration = Duration::from_secs(5);

/// One layer's beginning. Stays on disk when dropped.
#[derive(Debug)]
pub(crate) struct Spool {
    store: Store,
    path: PathBuf,
    file: File,
    length: u64,
    opened: Instant,
}

/// When the spools that are open were opened.
#[derive(Debug, Default)]
pub(super) struct Spools {
    opened: Mutex<Vec<Instant>>,
    closed: Condvar,
}

impl Store {
    /// The beginning of the blob `digest` of `size` bytes, empty if there is none. Blocking.
    pub(crate) fn spool(&self, digest: &Digest, size: u64) -> Result<Spool, StoreError> {
        let path = self.path("spool").join(digest.digest());
        let mut options = File::options();
        options.read(true).append(true).create(true).mode(0o600);
        let file = options.open(&path).map_err(failed("open", &path))?;
        let mut length = file.metadata().map_err(failed("look at", &path))?.len();
        if length > size {
            file.set_len(0).map_err(failed("empty", &path))?;
            length = 0;
        }
        let opened = Instant::now();
        lock(&self.inner.spools.opened).push(opened);
        Ok(Spool {
            store: self.clone(),
            path,
            file,
            length,
            opened,
        })
    }

    /// Removes what nobody went on fetching for a week.
    pub(super) fn sweep_spool(&self) -> Result<(), StoreError> {
        let directory = self.path("spool");
        let now = SystemTime::now();
        for entry in fs::read_dir(&directory).map_err(failed("list", &directory))? {
            let path = entry.map_err(failed("list", &directory))?.path();
            let written = fs::metadata(&path).and_then(|metadata| metadata.modified());
            let age = written
                .ok()
                .and_then(|written| now.duration_since(written).ok());
            if age.is_some_and(|age| age > KEPT) {
                self.remove_tree(&path)?;
            }
        }
        Ok(())
    }
}

impl Spools {
    /// Waits until none that is open is young. Blocking, for [`YOUNG`] at most.
    pub(super) fn settle(&self) {
        let young = |opened: &mut Vec<Instant>| opened.iter().any(|at| at.elapsed() < YOUNG);
        let opened = lock(&self.opened);
        let waited = self.closed.wait_timeout_while(opened, YOUNG, young);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Spool {
    /// Bytes it had when it was opened.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Reads the next bytes from its beginning.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, StoreError> {
        let read = self.file.read_exact(buffer);
        read.map(|()| buffer.len())
            .map_err(failed("read", &self.path))
    }

    /// Adds bytes to its end.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.store.disk().append(&mut self.file, &self.path, bytes)
    }

    /// Removes it. What cannot be removed now goes with a sweep.
    pub(crate) fn remove(self) {
        let _ = self.store.disk().remove(&self.path);
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let spools = &self.store.inner.spools;
        let mut opened = lock(&spools.opened);
        if let Some(at) = opened.iter().position(|at| *at == self.opened) {
            opened.swap_remove(at);
        }
        spools.closed.notify_all();
    }
}
