//! Deployments to one device: the desired properties of its modules, all at once.

use std::collections::BTreeMap;

use super::{Hub, HubError, twins};
use crate::event::{self, Action};
use crate::identity::{Id, Identity};
use crate::moment::Moment;
use crate::record::{Authentication, Entry};
use crate::store::Change;
use crate::twin::Object;

impl Hub {
    /// Replaces the desired properties of the named modules of `device`, and of the device
    /// itself if `own` is given, in one transaction. Modules that are not there are made,
    /// without a key: their device sets one. Where an automatic deployment applies to the
    /// device, it takes its modules back at once.
    ///
    /// # Errors
    /// [`HubError::NotFound`], [`HubError::Invalid`] where it is no edge device,
    /// [`HubError::Limit`]; nothing has changed then.
    pub(crate) fn deploy(
        &mut self,
        device: &Id,
        modules: &BTreeMap<Id, Object>,
        own: Option<&Object>,
        now: Moment,
    ) -> Result<(), HubError> {
        let root = Identity::device(device.clone());
        let mut record = self.record(&root)?;
        if !modules.is_empty() && !record.iot_edge {
            let reason = format!("{device} is not an edge device");
            return Err(HubError::invalid("modulesContent", reason));
        }
        let mut entries = Vec::new();
        // What an automatic deployment said is so no more.
        let was_automatic = record.deployed.take().is_some();
        if own.is_some() || was_automatic {
            let identity = root;
            entries.push((Entry { identity, record }, own));
        }
        for (module, desired) in modules {
            entries.push((self.deployable(device, module, now)?, Some(desired)));
        }
        let mut changes = Vec::new();
        for (entry, desired) in &mut entries {
            if let Some(desired) = desired {
                twins::replace_desired(entry, desired, now)?;
            }
            changes.push(Change::Put(Box::new(entry.clone())));
        }
        let names = event::names(modules.keys().map(Id::as_str));
        changes.push(self.event(Action::DeviceDeployed, device.as_str(), &names, now));
        self.store.commit(&changes)?;
        for (entry, desired) in &entries {
            if let Some(desired) = desired {
                let version = entry.record.desired.version();
                self.notify_desired(&entry.identity, desired, version);
            }
        }
        if was_automatic {
            self.align(device, now);
        }
        let deployed = entries.into_iter().map(|(entry, _)| entry.identity);
        self.settle_all(&deployed.collect::<Vec<_>>(), now)
    }

    /// A module to deploy to. One that is not there has no key: its device sets one.
    pub(super) fn deployable(
        &self,
        device: &Id,
        module: &Id,
        now: Moment,
    ) -> Result<Entry, HubError> {
        let identity = Identity::module(device.clone(), module.clone());
        let record = match self.store.get(&identity)? {
            Some(record) => record,
            None => {
                let mut record = self.blank(Authentication::None, now)?;
                record.managed_by = Some("IotEdge".to_owned());
                record
            }
        };
        Ok(Entry { identity, record })
    }
}
