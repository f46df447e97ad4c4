//! What the core shows a hub.

use std::sync::Arc;

use kobune_runtime::{ContainerId, Timestamp};

use super::Core;
use crate::command::{ModuleSnapshot, Snapshot};
use crate::plan::CurrentModule;
use crate::status::{self, Observation};

impl Core {
    /// Publishes the snapshot, if it changed.
    pub(super) fn publish_snapshot(&self, now: Timestamp) {
        let current = self.current();
        let mut names: Vec<&ContainerId> =
            self.desired.modules.keys().chain(current.keys()).collect();
        names.sort();
        names.dedup();
        let modules = names
            .into_iter()
            .map(|name| self.module_snapshot(name, current.get(name), now))
            .collect();
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

    fn module_snapshot(
        &self,
        name: &ContainerId,
        current: Option<&CurrentModule>,
        now: Timestamp,
    ) -> ModuleSnapshot {
        let container = self.seen.get(name);
        let spec = self.desired.modules.get(name);
        let seen = Observation {
            name,
            spec,
            current,
            history: self.history.get(name),
            image_id: container.map(|container| container.request.image.id.as_str()),
        };
        let mut report = status::report(&seen, now);
        report.description.clear();
        ModuleSnapshot {
            report,
            spec: spec.cloned(),
            running_image: container.map(|container| container.request.image.reference.clone()),
            pulling: self.pulling.contains_key(name),
        }
    }
}
