//! A device in memory: executes plans by the executor's contract, with trouble on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kobune_runtime::{ContainerId, ExitStatus, TaskStatus, Timestamp};

use super::super::{Action, CurrentModule, History, Plan, Reason, Step, plan};
use crate::deployment::{Deployment, DesiredStatus, ModuleSpec};

pub(super) struct World {
    pub(super) modules: BTreeMap<ContainerId, CurrentModule>,
    pub(super) history: History,
    pub(super) now: Timestamp,
    /// Consumed one by one: what goes wrong next.
    troubles: Vec<u8>,
}

impl World {
    pub(super) fn new(troubles: Vec<u8>) -> Self {
        Self {
            modules: BTreeMap::new(),
            history: History::default(),
            now: Timestamp::from_unix(1_800_000_000, 0),
            troubles,
        }
    }

    /// Nothing goes wrong any more.
    pub(super) fn calm(&mut self) {
        self.troubles.clear();
    }

    /// Plans and executes up to `rounds` times, waiting as the plans say.
    pub(super) fn follow(&mut self, desired: &Deployment, rounds: usize) {
        for _ in 0..rounds {
            self.disturb();
            let planned = plan(desired, &self.modules, &self.history, self.now);
            self.execute(&planned, desired);
            self.now = match planned.wake_at {
                Some(at) if planned.steps.is_empty() => at,
                _ => self.now + Duration::from_secs(1),
            };
        }
    }

    /// Lets a running module end, sometimes well.
    fn disturb(&mut self) {
        let Some(trouble) = self.troubles.pop().filter(|t| t % 3 == 0) else {
            return;
        };
        let running = |module: &&mut CurrentModule| module.status.is_running();
        if let Some(module) = self.modules.values_mut().find(running) {
            module.status = ended(&module.status, i32::from(trouble % 2), self.now);
        }
    }

    fn execute(&mut self, planned: &Plan, desired: &Deployment) {
        let mut dropped = BTreeSet::new();
        for step in &planned.steps {
            if dropped.contains(&step.module) {
                continue;
            }
            if self.troubles.pop().is_some_and(|trouble| trouble % 4 == 0) {
                let message = format!("{} failed", step.action);
                self.history
                    .record_failure(&step.module, step.action, message, self.now);
                dropped.insert(step.module.clone());
            } else {
                self.take(step, desired);
            }
        }
    }

    fn take(&mut self, step: &Step, desired: &Deployment) {
        let id = &step.module;
        match step.action {
            Action::Pull => {}
            Action::Create => {
                let spec = &desired.modules[id];
                let module = CurrentModule {
                    fingerprint: Some(spec.fingerprint()),
                    status: TaskStatus::Created,
                    vitals: crate::plan::Vitals::default(),
                };
                let replaced = self.modules.insert(id.clone(), module);
                assert_eq!(
                    replaced, None,
                    "a container is removed before the next is made"
                );
                self.history.record_created(id);
            }
            Action::Remove => {
                let removed = self
                    .modules
                    .remove(id)
                    .expect("only what exists is removed");
                assert!(
                    !removed.status.is_running(),
                    "{id} is stopped before it is removed"
                );
                if step.reason == Reason::Removed {
                    self.history.forget(id);
                }
            }
            Action::Stop => {
                let module = self
                    .modules
                    .get_mut(id)
                    .expect("only what exists is stopped");
                assert!(module.status.is_running());
                module.status = ended(&module.status, 143, self.now);
                self.history.record_stopping(id);
                self.history.record_stopped(id);
            }
            Action::Start => self.start(step),
        }
    }

    fn start(&mut self, step: &Step) {
        let module = self
            .modules
            .get_mut(&step.module)
            .expect("only what exists is started");
        assert!(!module.status.is_running());
        match step.reason {
            Reason::Ended { .. } => {
                self.history
                    .record_restart(&step.module, &module.status, self.now);
            }
            _ => self.history.record_started(&step.module),
        }
        module.status = TaskStatus::Running {
            pid: 1,
            started_at: self.now,
        };
    }

    /// Every module is as `desired` has it; one that ended may have been right to.
    pub(super) fn assert_is(&self, desired: &Deployment) {
        assert!(self.modules.keys().eq(desired.modules.keys()));
        for (id, spec) in &desired.modules {
            let module = &self.modules[id];
            assert_eq!(module.fingerprint, Some(spec.fingerprint()), "{id}");
            assert!(is_as_desired(spec, &module.status), "{id}: {module:?}");
        }
    }
}

fn is_as_desired(spec: &ModuleSpec, status: &TaskStatus) -> bool {
    use crate::deployment::RestartPolicy::{Always, Never};
    match (spec.status, status) {
        (DesiredStatus::Stopped, status) => !status.is_running(),
        (DesiredStatus::Running, TaskStatus::Running { .. }) => true,
        (DesiredStatus::Running, TaskStatus::Created) => false,
        (DesiredStatus::Running, TaskStatus::Exited(exit)) => match spec.restart_policy {
            Never => true,
            Always => false,
            _ => exit.code == 0,
        },
    }
}

fn ended(status: &TaskStatus, code: i32, now: Timestamp) -> TaskStatus {
    let TaskStatus::Running { started_at, .. } = *status else {
        panic!("only what runs can end");
    };
    TaskStatus::Exited(ExitStatus {
        code,
        started_at,
        exited_at: now,
    })
}
