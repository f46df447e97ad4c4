//! Devices that modules map and that come and go: noticed by inotify on their directories,
//! with no timer and no work while nothing is plugged.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use kobune_runtime::{ContainerId, TaskStatus, Timestamp, device_directories, missing_device};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use tokio::task::AbortHandle;

use super::{Core, Done};
use crate::deployment::{DesiredStatus, ModuleSpec};
use crate::error_chain::chain;
use crate::sys;

/// Time from a change in a directory to a look: whoever makes a node gives it its owner,
/// mode and links right after.
const SETTLE: Duration = Duration::from_millis(250);

/// What devices do.
const CHANGES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

/// What is known of the modules' devices.
#[derive(Default)]
pub(super) struct Devices {
    /// By module, a device that is not there.
    missing: BTreeMap<ContainerId, PathBuf>,
    /// By module and begin of its run, a device that is another one now.
    replaced: BTreeMap<ContainerId, (Timestamp, PathBuf)>,
    /// Directories that are watched, and who watches.
    watched: BTreeSet<PathBuf>,
    watcher: Option<AbortHandle>,
    /// They cannot be watched, which was said.
    unwatchable: bool,
    /// Whether those of running modules were looked at since the last change.
    compared: bool,
}

impl Devices {
    /// The device for want of which the module is not started.
    pub(super) fn missing(&self, module: &ContainerId, status: &TaskStatus) -> Option<PathBuf> {
        let missing = self.missing.get(module);
        missing.filter(|_| !status.is_running()).cloned()
    }

    /// The device that is another one than this run of the module was given.
    pub(super) fn replaced(&self, module: &ContainerId, status: &TaskStatus) -> Option<PathBuf> {
        let TaskStatus::Running { started_at, .. } = status else {
            return None;
        };
        let replaced = self.replaced.get(module);
        replaced
            .filter(|(run, _)| run == started_at)
            .map(|(_, path)| path.clone())
    }
}

impl Core {
    /// Watches the directories of the desired modules' devices, as they are now.
    pub(super) fn watch_devices(&mut self) {
        let specs = self.desired.modules.values();
        let directories: BTreeSet<PathBuf> = specs
            .flat_map(|spec| device_directories(&spec.options))
            .collect();
        let settled = self.devices.watcher.is_some() || self.devices.unwatchable;
        if directories == self.devices.watched && settled {
            return;
        }
        if let Some(watcher) = self.devices.watcher.take() {
            watcher.abort();
        }
        self.devices.watched = directories;
        if self.devices.watched.is_empty() {
            return;
        }
        let watch = watch(&self.devices.watched, CHANGES);
        // The watch before may have seen a change that it could not tell any more.
        self.look_at_descriptions();
        self.devices.unwatchable = watch.is_err();
        match watch {
            Ok(changes) => {
                let change = async move {
                    let _ = changes.readable().await;
                    tokio::time::sleep(SETTLE).await;
                    Done::Devices
                };
                self.devices.watcher = Some(self.work.spawn(change));
            }
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "cannot watch for devices: they are looked for every minute"
                );
            }
        }
    }

    /// The watch has ended with the change that it saw; the next round sets another.
    pub(super) fn devices_changed(&mut self) {
        self.devices.watcher = None;
        self.devices.compared = false;
        self.look_at_descriptions();
    }

    /// What was refused for want of a description may be described by now. What runs is not
    /// looked at: a driver's update may take its description away for a moment.
    fn look_at_descriptions(&mut self) {
        let lacks =
            |spec: &ModuleSpec| !spec.options.device_requests.is_empty() && spec.is_refused();
        if self.desired.modules.values().any(lacks) {
            self.desired = self.permitted();
        }
    }

    /// Finds out what is missing for modules that do not run, and, after a change, what is
    /// another one for those that do.
    pub(super) fn look_at_devices(&mut self) {
        let missing = self.desired.modules.iter().filter_map(|(id, spec)| {
            if self.is_running(id) {
                return None;
            }
            Some((id.clone(), missing_device(&spec.options)?))
        });
        let missing: BTreeMap<_, _> = missing.collect();
        for (module, path) in &missing {
            if !self.devices.missing.contains_key(module) {
                tracing::info!(%module, device = %path.display(), "waits for a device");
            }
        }
        self.devices.missing = missing;
        if !std::mem::replace(&mut self.devices.compared, true) {
            self.compare_devices();
        }
    }

    fn compare_devices(&mut self) {
        let mut replaced = BTreeMap::new();
        for (id, container) in &self.seen {
            let TaskStatus::Running { started_at, .. } = container.status else {
                continue;
            };
            let options = &container.request.options;
            if options.devices.is_empty() && options.device_requests.is_empty() {
                continue;
            }
            match self.parts.runtime.replaced_device(id) {
                Ok(None) => {}
                Ok(Some(path)) => {
                    tracing::info!(module = %id, device = %path.display(), "a device is another one now");
                    replaced.insert(id.clone(), (started_at, path));
                }
                Err(error) => {
                    tracing::warn!(module = %id, error = chain(&error), "cannot compare its devices");
                }
            }
        }
        self.devices.replaced = replaced;
    }

    /// The device that keeps a module from running which shall run.
    pub(super) fn waits_for(&self, module: &ContainerId, spec: &ModuleSpec) -> Option<PathBuf> {
        let wanted = spec.status == DesiredStatus::Running && !self.history.get(module).held;
        let status = self.status(module);
        self.devices.missing(module, &status).filter(|_| wanted)
    }
}

/// A descriptor that becomes readable with the first of `flags` in one of `directories`.
pub(super) fn watch(
    directories: &BTreeSet<PathBuf>,
    flags: WatchFlags,
) -> io::Result<tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>> {
    let changes = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    for directory in directories {
        match add_watch(&changes, directory, flags | WatchFlags::ONLYDIR) {
            // Gone meanwhile: its parent's turn comes with the next round.
            Ok(_) | Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    sys::register_stream(changes)
}
