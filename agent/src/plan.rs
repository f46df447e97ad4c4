//! What to do next: a pure comparison of what shall be, what is and what happened.
//!
//! Planning again when nothing changed gives no steps, so whoever executes may stop and
//! start over at any step. The executor's part of the contract: steps run in order; when a
//! step of a module fails, the failure is recorded in the [`History`] and the module's
//! later steps are dropped, those of other modules are not.

mod history;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use kobune_runtime::{ContainerId, TaskStatus, Timestamp};
use serde::{Deserialize, Serialize};

use crate::deployment::{
    Deployment, DesiredStatus, Fingerprint, ImagePullPolicy, ModuleSpec, RestartPolicy,
};
use crate::health::Health;
use crate::restart::{self, Decision};

pub use history::{Attempts, History, ModuleHistory, RETRY_MAX, RETRY_UNIT};

/// A module that exists on the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentModule {
    /// Fingerprint of the spec its container was created from; `None` where that is not
    /// known, which makes it anew.
    pub fingerprint: Option<Fingerprint>,
    /// State of its process.
    pub status: TaskStatus,
    /// What else is known of its processes.
    pub vitals: Vitals,
}

/// How a module's processes are, beyond whether they run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vitals {
    /// They stand still until they are allowed to go on.
    pub paused: bool,
    /// They ended, and the kernel had ended one for want of memory.
    pub out_of_memory: bool,
    /// What its checks say; absent where it has none.
    pub health: Option<Health>,
    /// Its state in its own words, where it was asked for them.
    pub told: Option<String>,
    /// It does not run, and this device that it maps is not there.
    pub missing_device: Option<PathBuf>,
    /// It runs, and this device of the host is another than the one that it was given.
    pub replaced_device: Option<PathBuf>,
}

/// Steps in the order to take them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// What to do: all pulls, then removals, then what shall not run is stopped, then the
    /// rest by startup order and name.
    pub steps: Vec<Step>,
    /// Earliest moment at which planning again could give another plan or another restart
    /// count, if nothing else happens.
    pub wake_at: Option<Timestamp>,
}

/// One action on one module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The module.
    pub module: ContainerId,
    /// What to do.
    pub action: Action,
    /// Why.
    #[serde(flatten)]
    pub reason: Reason,
}

/// What a [`Step`] does. Every action is safe to repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Bring the image onto the device.
    Pull,
    /// End the process.
    Stop,
    /// Delete the container; volumes stay.
    Remove,
    /// Make the container.
    Create,
    /// Start the process.
    Start,
}

/// Why a [`Step`] is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "reason")]
pub enum Reason {
    /// The deployment names the module, and it does not exist.
    Added,
    /// The module's spec is another one than its container was created from.
    Updated,
    /// The deployment no longer names the module.
    Removed,
    /// The deployment wants the module stopped.
    DesiredStopped,
    /// An operator stopped the module.
    Held,
    /// It asks for what it cannot have here.
    Refused,
    /// It shall run, and was never started since it was created or since the device booted.
    NotStarted,
    /// It shall run again after it was stopped on purpose.
    Resumed,
    /// A device was plugged in again and has another number: only a new run can use it.
    DeviceReplaced,
    /// It is unhealthy, and its restart policy wants another run.
    #[serde(rename_all = "camelCase")]
    Unhealthy {
        /// Number of this restart, from 1.
        restart: u32,
    },
    /// It ended, and its restart policy wants it back.
    #[serde(rename_all = "camelCase")]
    Ended {
        /// Exit code.
        code: i32,
        /// Number of this restart, from 1.
        restart: u32,
    },
}

/// Compares `desired` with `current`, as of `now`.
#[must_use]
pub fn plan(
    desired: &Deployment,
    current: &BTreeMap<ContainerId, CurrentModule>,
    history: &History,
    now: Timestamp,
) -> Plan {
    let mut planner = Planner {
        history,
        now,
        plan: Plan::default(),
        held_back: BTreeSet::new(),
    };
    planner.pull(desired, current);
    planner.remove(desired, current);
    planner.stop(desired, current);
    let mut in_order: Vec<(&ContainerId, &ModuleSpec)> = desired.modules.iter().collect();
    in_order.sort_by_key(|(id, spec)| (spec.startup_order, *id));
    for (id, spec) in in_order {
        match change(spec, current.get(id)) {
            Some(reason) if !planner.held_back.contains(id) => {
                planner.renew(id, spec, current.get(id), reason);
            }
            _ => planner.keep(id, spec, current.get(id)),
        }
    }
    planner.plan
}

/// Why the module needs a new container, if it does.
fn change(spec: &ModuleSpec, current: Option<&CurrentModule>) -> Option<Reason> {
    match current {
        None => Some(Reason::Added),
        Some(module) if module.fingerprint.as_ref() != Some(&spec.fingerprint()) => {
            Some(Reason::Updated)
        }
        Some(_) => None,
    }
}

struct Planner<'a> {
    history: &'a History,
    now: Timestamp,
    plan: Plan,
    /// Modules that need a new container but wait after a failure to make one, or whose spec
    /// is refused.
    held_back: BTreeSet<ContainerId>,
}

impl Planner<'_> {
    fn step(&mut self, module: &ContainerId, action: Action, reason: Reason) {
        self.plan.steps.push(Step {
            module: module.clone(),
            action,
            reason,
        });
    }

    fn wake(&mut self, at: Timestamp) {
        self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Whether the next attempt is due; if not, when it will be is noted.
    fn is_due(&mut self, attempts: &Attempts) -> bool {
        match attempts.wait_until(self.now) {
            Some(at) => {
                self.wake(at);
                false
            }
            None => true,
        }
    }

    fn pull(&mut self, desired: &Deployment, current: &BTreeMap<ContainerId, CurrentModule>) {
        for (id, spec) in &desired.modules {
            let Some(reason) = change(spec, current.get(id)) else {
                continue;
            };
            let history = self.history.get(id);
            if spec.is_refused() || !self.is_due(&history.create) || !self.is_due(&history.stop) {
                self.held_back.insert(id.clone());
            } else if spec.image_pull_policy == ImagePullPolicy::OnCreate {
                self.step(id, Action::Pull, reason);
            }
        }
    }

    fn remove(&mut self, desired: &Deployment, current: &BTreeMap<ContainerId, CurrentModule>) {
        for (id, module) in current {
            if !desired.modules.contains_key(id) && self.is_due(&self.history.get(id).stop) {
                if module.status.is_running() {
                    self.step(id, Action::Stop, Reason::Removed);
                }
                self.step(id, Action::Remove, Reason::Removed);
            }
        }
    }

    /// Stops what shall not run before anything starts, so that its ports and devices are free.
    fn stop(&mut self, desired: &Deployment, current: &BTreeMap<ContainerId, CurrentModule>) {
        for (id, spec) in &desired.modules {
            let Some(module) = current.get(id).filter(|m| m.status.is_running()) else {
                continue;
            };
            let renewed = change(spec, Some(module)).is_some() && !self.held_back.contains(id);
            let history = self.history.get(id);
            let reason = match spec.status {
                _ if renewed => continue,
                _ if spec.is_refused() && change(spec, Some(module)).is_none() => Reason::Refused,
                DesiredStatus::Stopped => Reason::DesiredStopped,
                DesiredStatus::Running if history.held => Reason::Held,
                DesiredStatus::Running => continue,
            };
            if self.is_due(&history.stop) {
                self.step(id, Action::Stop, reason);
            }
        }
    }

    /// Makes a new container in the place of the old one.
    fn renew(
        &mut self,
        id: &ContainerId,
        spec: &ModuleSpec,
        current: Option<&CurrentModule>,
        reason: Reason,
    ) {
        if let Some(module) = current {
            if module.status.is_running() {
                self.step(id, Action::Stop, reason);
            }
            self.step(id, Action::Remove, reason);
        }
        self.step(id, Action::Create, reason);
        if spec.status == DesiredStatus::Running {
            self.step(id, Action::Start, reason);
        }
    }

    /// Keeps a container as it is and starts its process where that is due.
    fn keep(&mut self, id: &ContainerId, spec: &ModuleSpec, current: Option<&CurrentModule>) {
        let history = self.history.get(id);
        let Some(module) = current else {
            return;
        };
        if spec.status == DesiredStatus::Stopped || history.held {
            return;
        }
        // An older container of it, which may run, goes on as it is.
        if spec.is_refused() && change(spec, current).is_none() {
            return;
        }
        let restarts = restart::effective_restarts(history.restart_count, &module.status, self.now);
        let reason = match module.status {
            TaskStatus::Running { started_at, .. } => {
                if restarts > 0 {
                    // The first nanosecond beyond the time of intensive care.
                    let instant = std::time::Duration::from_nanos(1);
                    self.wake(started_at + restart::INTENSIVE_CARE + instant);
                }
                if self.replug(id, spec, module) {
                    return;
                }
                return self.heal(id, spec, module, restarts);
            }
            TaskStatus::Created => Reason::NotStarted,
            TaskStatus::Exited(_) if history.stopped => Reason::Resumed,
            TaskStatus::Exited(exit) => {
                match restart::decide(spec.restart_policy, &module.status, restarts, self.now) {
                    Decision::Keep | Decision::GiveUp => return,
                    Decision::BackoffUntil(at) => return self.wake(at),
                    Decision::StartNow => Reason::Ended {
                        code: exit.code,
                        restart: restarts + 1,
                    },
                }
            }
        };
        // Started when the device comes; until then nothing fails and nothing is counted.
        if module.vitals.missing_device.is_none() && self.is_due(&history.start) {
            self.step(id, Action::Start, reason);
        }
    }
}

impl Planner<'_> {
    /// Starts a module anew whose device is another one now, unless it is one that runs once.
    fn replug(&mut self, id: &ContainerId, spec: &ModuleSpec, module: &CurrentModule) -> bool {
        let history = self.history.get(id);
        let wanted = module.vitals.replaced_device.is_some()
            && spec.restart_policy != RestartPolicy::Never
            && self.is_due(&history.stop)
            && self.is_due(&history.start);
        if wanted {
            self.step(id, Action::Stop, Reason::DeviceReplaced);
            self.step(id, Action::Start, Reason::DeviceReplaced);
        }
        wanted
    }

    /// Starts an unhealthy module anew where its policy wants that.
    fn heal(&mut self, id: &ContainerId, spec: &ModuleSpec, module: &CurrentModule, restarts: u32) {
        let Some(Health::Unhealthy { since }) = module.vitals.health else {
            return;
        };
        match restart::decide_unhealthy(spec.restart_policy, since, restarts, self.now) {
            Decision::Keep | Decision::GiveUp => {}
            Decision::BackoffUntil(at) => self.wake(at),
            Decision::StartNow => {
                let history = self.history.get(id);
                if self.is_due(&history.stop) && self.is_due(&history.start) {
                    let restart = restarts + 1;
                    self.step(id, Action::Stop, Reason::Unhealthy { restart });
                    self.step(id, Action::Start, Reason::Unhealthy { restart });
                }
            }
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pull => "pull",
            Self::Stop => "stop",
            Self::Remove => "remove",
            Self::Create => "create",
            Self::Start => "start",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added => f.write_str("the deployment added it"),
            Self::Updated => f.write_str("the deployment changed it"),
            Self::Removed => f.write_str("the deployment no longer has it"),
            Self::DesiredStopped => f.write_str("the deployment wants it stopped"),
            Self::Held => f.write_str("an operator stopped it"),
            Self::Refused => f.write_str("it asks for what it cannot have"),
            Self::NotStarted => f.write_str("it was not started yet"),
            Self::Resumed => f.write_str("it shall run again"),
            Self::DeviceReplaced => f.write_str("its device was plugged in again"),
            Self::Unhealthy { restart } => write!(
                f,
                "it is unhealthy: restart {restart} of {}",
                restart::MAX_RESTARTS
            ),
            Self::Ended { code, restart } => write!(
                f,
                "it ended with code {code}: restart {restart} of {}",
                restart::MAX_RESTARTS
            ),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.action, self.module, self.reason)
    }
}
