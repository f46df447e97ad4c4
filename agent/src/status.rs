//! What operators and hubs are told of a module. Pure.

mod human;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use kobune_runtime::{ContainerId, TaskStatus, Timestamp};
use serde::{Deserialize, Serialize};

use crate::deployment::{DesiredStatus, ImagePullPolicy, ModuleSpec, RestartPolicy, Warning};
use crate::health::Health;
use crate::plan::{CurrentModule, ModuleHistory};
use crate::restart::{self, Decision};

pub use human::span;

/// State of a module, in IoT Edge's words, which has none for [`ModuleStatus::Paused`]: see
/// [`ModuleStatus::reported`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleStatus {
    /// Nothing is known, or there is no container yet.
    Unknown,
    /// Ended, and waits to be started again.
    Backoff,
    /// Running.
    Running,
    /// Its processes stand still until they are allowed to go on.
    Paused,
    /// Running and not well.
    Unhealthy,
    /// Not running, and rightly so.
    Stopped,
    /// Ended with an error, and is not started again by itself.
    Failed,
    /// Its container is damaged.
    Dead,
}

/// A module as `list`, `inspect` and the hub show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleReport {
    /// Name.
    pub name: ContainerId,
    /// State.
    pub status: ModuleStatus,
    /// The state in words, such as `Up 3 minutes`.
    pub description: String,
    /// What the deployment wants; absent where it no longer has the module.
    pub desired_status: Option<DesiredStatus>,
    /// When to start it again; absent as `desired_status` is.
    pub restart_policy: Option<RestartPolicy>,
    /// Whether its image may be pulled; absent as `desired_status` is.
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Version that the deployment gave it.
    pub version: String,
    /// Main process while it runs.
    pub pid: Option<i32>,
    /// Exit code of the last run, where it ended.
    pub exit_code: Option<i32>,
    /// The last run ended, and the kernel had ended a process of it for want of memory.
    pub out_of_memory: bool,
    /// What its health checks say: `starting`, `healthy` or `unhealthy`; absent without any.
    pub health: Option<String>,
    /// Restarts since it last ran well.
    pub restart_count: u32,
    /// Last restart.
    pub last_restart: Option<Timestamp>,
    /// Start of the present or last run.
    pub last_start: Option<Timestamp>,
    /// End of the last run, where it ended.
    pub last_exit: Option<Timestamp>,
    /// Image as the deployment wrote it.
    pub image: String,
    /// Digest of the image's config, where it is on the device.
    pub image_id: Option<String>,
    /// What stands in the way: the last failure of a step.
    pub problem: Option<String>,
    /// Fields of the deployment that have no effect.
    pub warnings: Vec<Warning>,
}

/// What a report is made from.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// Name.
    pub name: &'a ContainerId,
    /// What is asked for; absent where the deployment no longer has the module.
    pub spec: Option<&'a ModuleSpec>,
    /// What is; absent where there is no container.
    pub current: Option<&'a CurrentModule>,
    /// What happened.
    pub history: &'a ModuleHistory,
    /// Digest of the image's config, where it is known.
    pub image_id: Option<&'a str>,
}

/// State of a module, as of `now`.
///
/// A container without a spec is on its way out and keeps the plain state of its process.
#[must_use]
pub fn runtime_status(
    spec: Option<&ModuleSpec>,
    current: Option<&CurrentModule>,
    history: &ModuleHistory,
    now: Timestamp,
) -> ModuleStatus {
    let refused = spec.is_some_and(ModuleSpec::is_refused);
    let Some(module) = current else {
        return if refused {
            ModuleStatus::Failed
        } else {
            ModuleStatus::Unknown
        };
    };
    if waits_for(spec, module, history, now).is_some() {
        return ModuleStatus::Backoff;
    }
    let exit = match module.status {
        TaskStatus::Running { .. } if module.vitals.paused => return ModuleStatus::Paused,
        TaskStatus::Running { .. } => {
            return match module.vitals.health {
                Some(Health::Unhealthy { .. }) => ModuleStatus::Unhealthy,
                _ => ModuleStatus::Running,
            };
        }
        TaskStatus::Created => return ModuleStatus::Stopped,
        TaskStatus::Exited(exit) => exit,
    };
    if history.stopped || history.held {
        return ModuleStatus::Stopped;
    }
    let ended = if exit.code == 0 {
        ModuleStatus::Stopped
    } else {
        ModuleStatus::Failed
    };
    match spec {
        Some(spec) if spec.status == DesiredStatus::Running => {
            match decision(spec, &module.status, history, now) {
                Decision::BackoffUntil(_) | Decision::StartNow => ModuleStatus::Backoff,
                Decision::GiveUp => ModuleStatus::Failed,
                Decision::Keep => ended,
            }
        }
        _ => ended,
    }
}

/// The device that keeps a module from starting which would be started else. IoT Edge has no
/// word of its own for that: the module is in [`ModuleStatus::Backoff`].
fn waits_for<'a>(
    spec: Option<&ModuleSpec>,
    module: &'a CurrentModule,
    history: &ModuleHistory,
    now: Timestamp,
) -> Option<&'a Path> {
    let spec = spec.filter(|spec| spec.status == DesiredStatus::Running && !spec.is_refused())?;
    let wanted = match &module.status {
        _ if history.held => false,
        TaskStatus::Running { .. } => false,
        TaskStatus::Created => true,
        TaskStatus::Exited(_) if history.stopped => true,
        ended => matches!(
            decision(spec, ended, history, now),
            Decision::StartNow | Decision::BackoffUntil(_)
        ),
    };
    let missing = module.vitals.missing_device.as_deref();
    missing.filter(|_| wanted)
}

/// What is said of a module that waits for the device `path`.
#[must_use]
pub fn waiting(path: &Path) -> String {
    format!("waits for device {}", path.display())
}

/// Everything there is to tell of a module, as of `now`.
#[must_use]
pub fn report(seen: &Observation<'_>, now: Timestamp) -> ModuleReport {
    let status = runtime_status(seen.spec, seen.current, seen.history, now);
    let task = seen.current.map(|module| module.status);
    let restart_count = task.map_or(seen.history.restart_count, |task| {
        restart::effective_restarts(seen.history.restart_count, &task, now)
    });
    let (pid, exit, last_start) = match task {
        Some(TaskStatus::Running { pid, started_at }) => (Some(pid), None, Some(started_at)),
        Some(TaskStatus::Exited(exit)) => (None, Some(exit), Some(exit.started_at)),
        Some(TaskStatus::Created) | None => (None, None, None),
    };
    ModuleReport {
        name: seen.name.clone(),
        status,
        description: human::describe(seen, status, now),
        desired_status: seen.spec.map(|spec| spec.status),
        restart_policy: seen.spec.map(|spec| spec.restart_policy),
        image_pull_policy: seen.spec.map(|spec| spec.image_pull_policy),
        version: seen
            .spec
            .map_or_else(String::new, |spec| spec.version.clone()),
        pid,
        exit_code: exit.map(|exit| exit.code),
        out_of_memory: exit.is_some() && seen.current.is_some_and(|m| m.vitals.out_of_memory),
        health: seen.current.and_then(|module| {
            let health = module.vitals.health.filter(|_| module.status.is_running());
            health.map(|health| health.as_str().to_owned())
        }),
        restart_count,
        last_restart: seen.history.last_restart,
        last_start,
        last_exit: exit.map(|exit| exit.exited_at),
        image: seen
            .spec
            .map_or_else(String::new, |spec| spec.image_text.clone()),
        image_id: seen.image_id.map(str::to_owned),
        problem: problem(seen, now),
        warnings: seen
            .spec
            .map_or_else(Vec::new, |spec| spec.warnings.clone()),
    }
}

/// Why the deployment cannot have it so, or the later of the failures that stand.
fn problem(seen: &Observation<'_>, now: Timestamp) -> Option<String> {
    if let Some(refusal) = seen.spec.and_then(refusal) {
        return Some(refusal);
    }
    let device = |module| waits_for(seen.spec, module, seen.history, now);
    if let Some(path) = seen.current.and_then(device) {
        return Some(waiting(path));
    }
    let history = seen.history;
    let failed = [&history.create, &history.start, &history.stop].into_iter();
    let last = failed
        .filter(|attempts| attempts.failures > 0)
        .max_by_key(|attempts| attempts.failed_at)?;
    Some(last.message.clone())
}

/// What a spec asks for and cannot have, in words.
#[must_use]
pub fn refusal(spec: &ModuleSpec) -> Option<String> {
    if !spec.is_refused() {
        return None;
    }
    let all: Vec<String> = spec.refusals.iter().map(ToString::to_string).collect();
    Some(format!("refused: {}", all.join("; ")))
}

fn decision(
    spec: &ModuleSpec,
    task: &TaskStatus,
    history: &ModuleHistory,
    now: Timestamp,
) -> Decision {
    let restarts = restart::effective_restarts(history.restart_count, task, now);
    restart::decide(spec.restart_policy, task, restarts, now)
}

impl ModuleStatus {
    /// What a hub is told, in words that it knows: docker's paused containers are stopped to
    /// IoT Edge.
    #[must_use]
    pub fn reported(self) -> Self {
        match self {
            Self::Paused => Self::Stopped,
            other => other,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Backoff => "backoff",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Unhealthy => "unhealthy",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Dead => "dead",
        }
    }
}

impl fmt::Display for ModuleStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
