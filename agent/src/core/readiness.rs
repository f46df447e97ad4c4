//! Modules that say themselves when they are ready: their monitors write it down, which is
//! noticed by inotify. Nothing is done for other modules.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use kobune_runtime::{ContainerState, TaskStatus, Timestamp};
use rustix::fs::inotify::WatchFlags;
use tokio::task::AbortHandle;

use super::{Core, Done, devices};
use crate::error_chain::chain;

/// How long modules of a higher startup order wait for one to be ready, as systemd waits.
const PATIENCE: Duration = Duration::from_secs(90);

/// Whose readiness is watched, and by whom.
#[derive(Default)]
pub(super) struct Readiness {
    watched: BTreeSet<PathBuf>,
    watcher: Option<AbortHandle>,
    /// It cannot be watched, which was said.
    unwatchable: bool,
}

impl Core {
    /// Watches what the running modules' monitors write: whether the watch is a new one, so that
    /// what was seen before it may be old.
    pub(super) fn watch_readiness(&mut self) -> bool {
        let tell = self.seen.values().filter(|seen| seen.notified.is_some());
        let directories: BTreeSet<PathBuf> = tell
            .map(|seen| self.parts.runtime.bundle(&seen.request.id))
            .collect();
        let ready = &mut self.readiness;
        let settled = ready.watcher.is_some() || ready.unwatchable || directories.is_empty();
        if directories == ready.watched && settled {
            return false;
        }
        if let Some(watcher) = ready.watcher.take() {
            watcher.abort();
        }
        ready.watched = directories;
        if ready.watched.is_empty() {
            return false;
        }
        // A record takes its name when it is whole.
        let watch = devices::watch(&ready.watched, WatchFlags::MOVED_TO);
        ready.unwatchable = watch.is_err();
        match watch {
            Ok(changes) => {
                let change = async move {
                    let _ = changes.readable().await;
                    Done::Readiness
                };
                ready.watcher = Some(self.work.spawn(change));
            }
            Err(error) => tracing::warn!(
                error = chain(&error),
                "cannot watch whether modules are ready: it is looked at every minute"
            ),
        }
        true
    }

    /// The watch has ended with the change that it saw; the next round sets another.
    pub(super) fn readiness_changed(&mut self) {
        self.readiness.watcher = None;
    }

    /// Startup orders of modules that are waited for until they are ready, and until when.
    pub(super) fn awaited(&self, now: Timestamp) -> impl Iterator<Item = (i64, Timestamp)> {
        self.seen.values().filter_map(move |container| {
            let until = awaited_until(container).filter(|until| *until > now)?;
            let spec = self.desired.modules.get(&container.request.id)?;
            Some((spec.startup_order.into(), until))
        })
    }
}

/// How long the module is waited for at most; not at all where it does not run, is ready, or
/// would not tell.
fn awaited_until(container: &ContainerState) -> Option<Timestamp> {
    let TaskStatus::Running { started_at, .. } = container.status else {
        return None;
    };
    let told = container.notified.as_ref()?;
    (!told.ready).then_some(started_at + PATIENCE)
}
