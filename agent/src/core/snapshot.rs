//! What the core shows a hub.

use std::sync::Arc;

use kobune_runtime::Timestamp;

use super::Core;
use crate::command::{ModuleSnapshot, Snapshot};
use crate::status::ModuleReport;

impl Core {
    /// Publishes the snapshot, if it changed.
    pub(super) fn publish_snapshot(&self, now: Timestamp) {
        let reports = self.reports(now).into_iter();
        let modules = reports.map(|report| self.module_snapshot(report)).collect();
        let snapshot = Snapshot {
            desired_version: self.sources.desired_version(),
            state: self.deployment_state,
            problems: self.problems(),
            desired: Some(self.desired.clone()),
            modules,
        };
        self.parts.channels.snapshot.send_if_modified(|published| {
            let changed = **published != snapshot;
            if changed {
                *published = Arc::new(snapshot);
            }
            changed
        });
    }

    fn module_snapshot(&self, mut report: ModuleReport) -> ModuleSnapshot {
        let container = self.seen.get(&report.name);
        let spec = self.desired.modules.get(&report.name);
        let pulling = self.pulling.contains_key(&report.name);
        let pull_waits = self.waits.borrow().get(&report.name).cloned();
        report.description.clear();
        ModuleSnapshot {
            report,
            spec: spec.cloned(),
            running_image: container.map(|container| container.request.image.reference.clone()),
            pulling,
            pull_waits,
        }
    }
}
