//! Keeps what is left of runs that ended badly.

use std::sync::Arc;

use kobune_runtime::{ContainerId, TaskStatus, Timestamp};

use super::Core;
use crate::crash::{self, Crash};
use crate::error_chain::chain;

impl Core {
    /// Records each run that ended badly and was not stopped on purpose, once.
    pub(super) fn record_crashes(&mut self) {
        let mut ended: Vec<(ContainerId, Timestamp, Crash)> = Vec::new();
        for (module, container) in &self.seen {
            let TaskStatus::Exited(exit) = container.status else {
                continue;
            };
            let history = self.history.get(module);
            let went_well = exit.code == 0 && !container.out_of_memory;
            let on_purpose = went_well || history.stopped || history.held;
            let known = self.crashed.get(module) == Some(&exit.exited_at);
            if on_purpose || known || self.busy.contains_key(module) {
                continue;
            }
            let crash = Crash {
                started_at: exit.started_at,
                exited_at: exit.exited_at,
                exit_code: exit.code,
                out_of_memory: container.out_of_memory,
                restart_count: history.restart_count,
                image: container.request.image.reference.clone(),
                image_id: container.request.image.id.clone(),
                log: String::new(),
            };
            ended.push((module.clone(), exit.exited_at, crash));
        }
        for (module, exited_at, crash) in ended {
            self.crashed.insert(module.clone(), exited_at);
            if !crash::is_kept(crash.restart_count) {
                continue;
            }
            // Few milliseconds, before another step can remove the log.
            let log = self.parts.runtime.log_dir(&module);
            if let Err(error) = crash::record(&self.parts.state_dir, &module, crash, &log) {
                tracing::error!(%module, error = chain(&error), "cannot keep its last words");
            }
            self.save_log(&module);
        }
    }

    /// Has a log that is in memory saved on the disk, since its module has failed.
    pub(super) fn save_log(&self, module: &ContainerId) {
        let runtime = Arc::clone(&self.parts.runtime);
        let module = module.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = runtime.save_log(&module) {
                tracing::error!(%module, error = chain(&error), "its log is in memory alone");
            }
        });
    }
}
