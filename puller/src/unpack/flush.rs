//! Writing back while a layer is still on its way, so that little is left to flush at its end, and
//! giving back the page cache of what was written: an image of hundreds of megabytes would push out
//! of it what the running modules need.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::syncfs;

use crate::sys;

/// Time between flushes: behind a slow link the last one has this much of it to write. A layer that
/// comes faster is flushed once, at its end.
const EVERY: Duration = Duration::from_secs(5);
/// Smallest file that is worth two more system calls. Smaller ones stay in the page cache until the
/// kernel wants their room.
const LARGE: u64 = 64 << 10;
/// What is written back together: this much, or this many files, which stay open until then.
const BATCH: u64 = 8 << 20;
const BATCH_FILES: usize = 64;

/// Writes back now and then, beside the unpacking. What fails is made good by the last flush, which
/// counts; being dropped waits for the one under way, and writes back the rest.
#[derive(Debug)]
pub(super) struct Flusher {
    root: OwnedFd,
    last: Instant,
    running: Option<JoinHandle<()>>,
    /// Large files since the last batch.
    files: Vec<File>,
    /// Bytes in them.
    bytes: u64,
    /// Bytes of the file that is being written, since it was handed on.
    growing: u64,
}

impl Flusher {
    /// For the file system of the directory `root`.
    pub(super) fn new(root: OwnedFd) -> Self {
        Self {
            root,
            last: Instant::now(),
            running: None,
            files: Vec::new(),
            bytes: 0,
            growing: 0,
        }
    }

    /// Starts a flush if it is time for one and nothing is under way.
    pub(super) fn tick(&mut self) {
        if self.is_due() && self.running.as_ref().is_none_or(JoinHandle::is_finished) {
            self.start();
        }
    }

    /// `file` has so many bytes more.
    pub(super) fn grown(&mut self, file: &File, count: u64) {
        self.growing += count;
        if self.growing >= BATCH
            && let Ok(file) = file.try_clone()
        {
            self.add(file);
        }
    }

    /// `file` is complete. Waits while more than one batch is behind: then the device sets the pace.
    pub(super) fn written(&mut self, file: File) {
        if self.growing >= LARGE {
            self.add(file);
        } else {
            self.growing = 0;
        }
    }

    fn add(&mut self, file: File) {
        self.bytes += std::mem::take(&mut self.growing);
        self.files.push(file);
        if self.bytes >= BATCH || self.files.len() >= BATCH_FILES {
            self.start();
        }
    }

    fn is_due(&self) -> bool {
        self.last.elapsed() >= EVERY
    }

    /// Writes back the files collected, and everything else if it is time for that, in a thread.
    fn start(&mut self) {
        self.wait();
        let files = std::mem::take(&mut self.files);
        self.bytes = 0;
        let root = self.is_due().then(|| self.root.try_clone().ok()).flatten();
        if root.is_some() {
            self.last = Instant::now();
        }
        let work = move || {
            if let Some(root) = root {
                let _ = syncfs(&root);
            }
            files.iter().for_each(release);
        };
        let started = std::thread::Builder::new()
            .name("flush".into())
            .stack_size(64 << 10)
            .spawn(work);
        self.running = started.ok();
    }

    fn wait(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.wait();
        self.files.iter().for_each(release);
    }
}

/// Writes `file` to its device and gives its page cache back.
fn release(file: &File) {
    sys::write_back(file);
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}
