//! Flushing while a layer is still on its way, so that little is left to flush at its end.

use std::os::fd::OwnedFd;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::unistd::syncfs;

/// Time between flushes: behind a slow link the last one has this much of it to write. A layer that
/// comes faster is flushed once, at its end.
const EVERY: Duration = Duration::from_secs(5);

/// Flushes now and then, beside the unpacking. One that fails is made good by the last one, which
/// counts; being dropped waits for the one under way.
#[derive(Debug)]
pub(super) struct Flusher {
    root: OwnedFd,
    last: Instant,
    running: Option<JoinHandle<()>>,
}

impl Flusher {
    /// For the file system of the directory `root`.
    pub(super) fn new(root: OwnedFd) -> Self {
        Self {
            root,
            last: Instant::now(),
            running: None,
        }
    }

    /// Starts a flush if it is time for one and none is under way.
    pub(super) fn tick(&mut self) {
        let is_running = self.running.as_ref().is_some_and(|one| !one.is_finished());
        if self.last.elapsed() < EVERY || is_running {
            return;
        }
        self.last = Instant::now();
        let Ok(root) = self.root.try_clone() else {
            return;
        };
        let flush = move || {
            let _ = syncfs(&root);
        };
        let started = std::thread::Builder::new()
            .name("flush".into())
            .spawn(flush);
        self.running = started.ok();
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.join();
        }
    }
}
