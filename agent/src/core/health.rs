//! Runs the modules' health checks when they are due. Nothing is done or kept for a module
//! without one.

use std::collections::BTreeMap;
use std::sync::Arc;

use kobune_runtime::{ContainerId, ExecRequest, TaskStatus, Timestamp};

use super::{Core, Done};
use crate::api::probe::{self, Outcome};
use crate::command::ModuleAccess;
use crate::crash;
use crate::health::{Check, Health, Watch};

/// Checks under way at a time.
const MAX_PROBES: usize = 4;

/// A run of a module with a check.
pub(super) struct Watched {
    check: Check,
    watch: Watch,
    /// A check is under way.
    probing: bool,
    /// What the last check that failed said.
    said: String,
}

/// A check that ended.
pub(super) struct ProbeDone {
    module: ContainerId,
    /// Begin of the run that it was about.
    started_at: Timestamp,
    /// Nothing where the module ended first.
    outcome: Option<Outcome>,
}

impl Core {
    /// Starts the checks that are due; returns when the next one is.
    pub(super) fn check_health(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.follow_runs();
        let mut under_way = self.health.values().filter(|w| w.probing).count();
        let mut next: Option<Timestamp> = None;
        let mut due = Vec::new();
        for (module, watched) in &mut self.health {
            let hindered = self.busy.contains_key(module)
                || self
                    .seen
                    .get(module)
                    .is_none_or(|container| container.paused);
            if watched.probing || hindered {
                continue;
            }
            if watched.watch.is_due(&watched.check, now) && under_way < MAX_PROBES {
                under_way += 1;
                watched.probing = true;
                due.push((
                    module.clone(),
                    watched.check.clone(),
                    watched.watch.started_at,
                ));
            } else {
                let at = watched.watch.due;
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        for (module, check, started_at) in due {
            let access = ModuleAccess {
                runtime: Arc::clone(&self.parts.runtime),
                id: module.clone(),
            };
            let request = ExecRequest {
                command: check.command,
                ..ExecRequest::default()
            };
            self.work.spawn(async move {
                Done::Probe(Box::new(ProbeDone {
                    module,
                    started_at,
                    outcome: probe::run(access, request, check.timeout).await,
                }))
            });
        }
        next
    }

    /// Watches every run of a module with a check, and no other.
    fn follow_runs(&mut self) {
        let mut before = std::mem::take(&mut self.health);
        let mut runs = BTreeMap::new();
        for (module, container) in &self.seen {
            let (TaskStatus::Running { started_at, .. }, Some(said)) =
                (container.status, &container.request.options.healthcheck)
            else {
                continue;
            };
            let known = before.remove(module);
            let watched = known.filter(|known| known.watch.started_at == started_at);
            let watched = watched.or_else(|| {
                let check = Check::new(said)?;
                Some(Watched {
                    watch: Watch::new(&check, started_at),
                    check,
                    probing: false,
                    said: String::new(),
                })
            });
            if let Some(watched) = watched {
                runs.insert(module.clone(), watched);
            }
        }
        self.health = runs;
    }

    pub(super) fn probe_done(&mut self, done: ProbeDone) {
        let Some(watched) = self.health.get_mut(&done.module) else {
            return;
        };
        if watched.watch.started_at != done.started_at {
            return;
        }
        watched.probing = false;
        let Some(outcome) = done.outcome else {
            return;
        };
        let before = watched.watch.health;
        let now = Timestamp::now();
        watched.watch.record(&watched.check, outcome.passed, now);
        watched.said = match outcome.passed {
            true => String::new(),
            false => outcome.output,
        };
        let after = watched.watch.health;
        if after.as_str() != before.as_str() {
            let (module, said) = (&done.module, &watched.said);
            match after {
                Health::Unhealthy { .. } => {
                    tracing::warn!(%module, said, "unhealthy");
                    if crash::is_kept(self.history.get(module).restart_count) {
                        self.save_log(module);
                    }
                }
                _ => tracing::info!(%module, "healthy"),
            }
        }
    }

    /// What is known of the module's health; `None` where it has no check and does not tell
    /// when it is ready.
    pub(super) fn health_of(&self, module: &ContainerId) -> Option<Health> {
        let checked = self.health.get(module).map(|watched| watched.watch.health);
        let told = self.seen.get(module)?.notified.as_ref();
        Health::with_readiness(checked, told.map(|told| told.ready))
    }

    /// What the last check said, if it failed.
    pub(super) fn health_output(&self, module: &ContainerId) -> Option<String> {
        let watched = self.health.get(module)?;
        Some(watched.said.clone()).filter(|said| !said.is_empty())
    }
}
