//! What runs, as the plan is made from it.

use std::collections::BTreeMap;

use kobune_runtime::{ContainerId, ContainerState, TaskStatus, Timestamp};

use super::{Core, FINGERPRINT};
use crate::deployment::{Fingerprint, ModuleSpec};
use crate::plan::{self, CurrentModule, Plan, Vitals};

impl Core {
    pub(super) fn plan(&self, now: Timestamp) -> Plan {
        if !self.sources.is_known() {
            // A deployment that cannot be read is no reason to remove what runs.
            return Plan::default();
        }
        plan::plan(&self.desired, &self.current(), &self.history, now)
    }

    pub(super) fn current(&self) -> BTreeMap<ContainerId, CurrentModule> {
        let fingerprint = |container: &ContainerState| {
            let text = container.request.annotations.get(FINGERPRINT);
            text.map(|text| Fingerprint::from(text.as_str()))
        };
        // While its next image is on its way a container is as good as any: it is kept, and
        // restarted where it ends.
        let awaited = |id: &ContainerId| {
            let spec = self.desired.modules.get(id);
            spec.filter(|_| self.pulling.contains_key(id))
                .map(ModuleSpec::fingerprint)
        };
        let current = |(id, container): (&ContainerId, &ContainerState)| {
            let module = CurrentModule {
                fingerprint: awaited(id).or_else(|| fingerprint(container)),
                status: container.status,
                vitals: Vitals {
                    paused: container.paused,
                    out_of_memory: container.out_of_memory,
                    health: self.health_of(id),
                    told: container.notified.as_ref().map(|told| told.status.clone()),
                    missing_device: self.devices.missing(id, &container.status),
                    replaced_device: self.devices.replaced(id, &container.status),
                },
            };
            (id.clone(), module)
        };
        self.seen.iter().map(current).collect()
    }

    pub(super) fn is_running(&self, module: &ContainerId) -> bool {
        self.seen
            .get(module)
            .is_some_and(|container| container.status.is_running())
    }

    pub(super) fn status(&self, module: &ContainerId) -> TaskStatus {
        self.seen
            .get(module)
            .map_or(TaskStatus::Created, |container| container.status)
    }
}
