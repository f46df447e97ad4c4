//! What happened to modules, as far as it bears on what to do next.

use std::collections::BTreeMap;
use std::time::Duration;

use kobune_runtime::{ContainerId, TaskStatus, Timestamp};
use serde::{Deserialize, Serialize};

use super::Action;
use crate::restart;

/// Wait after the first failure of a step; every further one doubles it.
pub const RETRY_UNIT: Duration = Duration::from_secs(10);
/// Longest wait after a failure. IoT Edge has no bound and gives up; a device that is
/// offline for a day shall not.
pub const RETRY_MAX: Duration = Duration::from_secs(300);

/// History of every module, to be kept on disk by whoever executes plans. Modules without
/// one have the empty one.
///
/// After a step that worked: [`record_created`](Self::record_created) after Create,
/// [`record_stopping`](Self::record_stopping) before and
/// [`record_stopped`](Self::record_stopped) after Stop, [`forget`](Self::forget) after a
/// Remove for [`Reason::Removed`](super::Reason::Removed), and after Start
/// [`record_restart`](Self::record_restart) for
/// [`Reason::Ended`](super::Reason::Ended) or [`record_started`](Self::record_started) for
/// any other. After one that failed: [`record_failure`](Self::record_failure).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct History {
    modules: BTreeMap<ContainerId, ModuleHistory>,
}

/// History of a module's container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModuleHistory {
    /// Restarts since it last ran well, as recorded: see
    /// [`restart::effective_restarts`](crate::restart::effective_restarts).
    pub restart_count: u32,
    /// Last restart.
    pub last_restart: Option<Timestamp>,
    /// An operator stopped it; it stays so until it is released or its spec changes.
    pub held: bool,
    /// It was stopped on purpose since it last started.
    pub stopped: bool,
    /// Failures to pull its image or to create its container.
    pub create: Attempts,
    /// Failures to start it.
    pub start: Attempts,
    /// Failures to stop it or to remove its container.
    pub stop: Attempts,
}

/// Failed attempts since the last one that worked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Attempts {
    /// How many.
    pub failures: u32,
    /// When the last one failed.
    pub failed_at: Option<Timestamp>,
    /// What the last one failed with, in words for an operator.
    pub message: String,
}

impl Attempts {
    fn fail(&mut self, message: String, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        self.failed_at = Some(now);
        self.message = message;
    }

    /// When to try again, where that is later than `now`. A clock that was set back to
    /// before the failure ends the wait.
    #[must_use]
    pub fn wait_until(&self, now: Timestamp) -> Option<Timestamp> {
        let failed_at = self.failed_at?;
        let times = self.failures.saturating_sub(1);
        let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
        let wait = RETRY_UNIT.saturating_mul(factor).min(RETRY_MAX);
        let elapsed = now.since(failed_at)?;
        (elapsed < wait).then(|| failed_at + wait)
    }
}

const NO_ATTEMPTS: Attempts = Attempts {
    failures: 0,
    failed_at: None,
    message: String::new(),
};

/// The empty history, to lend.
static NOTHING: ModuleHistory = ModuleHistory {
    restart_count: 0,
    last_restart: None,
    held: false,
    stopped: false,
    create: NO_ATTEMPTS,
    start: NO_ATTEMPTS,
    stop: NO_ATTEMPTS,
};

impl History {
    /// History of a module.
    #[must_use]
    pub fn get(&self, module: &ContainerId) -> &ModuleHistory {
        self.modules.get(module).unwrap_or(&NOTHING)
    }

    fn entry(&mut self, module: &ContainerId) -> &mut ModuleHistory {
        self.modules.entry(module.clone()).or_default()
    }

    /// A new container was made: what happened to the old one no longer counts.
    pub fn record_created(&mut self, module: &ContainerId) {
        self.modules.remove(module);
    }

    /// A step of it failed; `message` says why, in words for an operator.
    pub fn record_failure(
        &mut self,
        module: &ContainerId,
        action: Action,
        message: String,
        now: Timestamp,
    ) {
        let history = self.entry(module);
        let attempts = match action {
            Action::Pull | Action::Create => &mut history.create,
            Action::Start => &mut history.start,
            Action::Stop | Action::Remove => &mut history.stop,
        };
        attempts.fail(message, now);
    }

    /// It was started for another reason than that it had ended.
    pub fn record_started(&mut self, module: &ContainerId) {
        let history = self.entry(module);
        history.stopped = false;
        history.start = Attempts::default();
    }

    /// It was started because it had ended; `ended` is the state before.
    pub fn record_restart(&mut self, module: &ContainerId, ended: &TaskStatus, now: Timestamp) {
        let history = self.entry(module);
        history.restart_count =
            restart::effective_restarts(history.restart_count, ended, now).saturating_add(1);
        history.last_restart = Some(now);
        self.record_started(module);
    }

    /// It is about to be stopped on purpose. To be kept on disk before the stop, so that
    /// its exit is not taken for a failure after a power loss.
    pub fn record_stopping(&mut self, module: &ContainerId) {
        self.entry(module).stopped = true;
    }

    /// It was stopped on purpose.
    pub fn record_stopped(&mut self, module: &ContainerId) {
        let history = self.entry(module);
        history.stopped = true;
        history.stop = Attempts::default();
    }

    /// An operator wants it stopped.
    pub fn hold(&mut self, module: &ContainerId) {
        self.entry(module).held = true;
    }

    /// An operator wants it to run: nothing that happened before stands against it. Unless
    /// it runs, the next plan starts it, whatever its restart policy; to restart one that
    /// runs, stop it as well.
    pub fn release(&mut self, module: &ContainerId, status: &TaskStatus) {
        let released = ModuleHistory {
            last_restart: self.get(module).last_restart,
            stopped: !status.is_running(),
            ..ModuleHistory::default()
        };
        self.modules.insert(module.clone(), released);
    }

    /// A new deployment was accepted: what failed before is tried again at once.
    pub fn clear_failures(&mut self) {
        for history in self.modules.values_mut() {
            history.create = Attempts::default();
            history.start = Attempts::default();
            history.stop = Attempts::default();
        }
    }

    /// The module was removed.
    pub fn forget(&mut self, module: &ContainerId) {
        self.modules.remove(module);
    }
}
