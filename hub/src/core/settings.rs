//! Configurations of devices and of modules, carried out on their twins.

use serde_json::Value;

use super::configurations::target_view;
use super::{Hub, HubError, twins};
use crate::configuration::{settled, transition};
use crate::identity::Identity;
use crate::moment::Moment;
use crate::query::Source;
use crate::record::Entry;
use crate::store::Change;
use crate::twin::Object;

/// A twin as it shall be, and what its device is told.
#[derive(Debug)]
struct Settlement {
    entry: Entry,
    notice: Option<Object>,
}

impl Hub {
    /// Sets in one twin what configurations say. What led here is done already, so a failure
    /// is only logged: the next start of the hub tries it again.
    pub(super) fn settle(&mut self, identity: &Identity, now: Moment) {
        if let Err(error) = self.settle_all(std::slice::from_ref(identity), now) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(%identity, error, "carrying out configurations");
        }
    }

    /// The same for several, in one transaction; idempotent. Who is not there is passed over.
    pub(super) fn settle_all(
        &mut self,
        identities: &[Identity],
        now: Moment,
    ) -> Result<(), HubError> {
        let (mut changes, mut notices) = (Vec::new(), Vec::new());
        for identity in identities {
            let Some(Settlement { entry, notice }) = self.settlement(identity, now)? else {
                continue;
            };
            if let Some(notice) = notice {
                let version = entry.record.desired.version();
                notices.push((identity, notice, version));
            }
            changes.push(Change::Put(Box::new(entry)));
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.store.commit(&changes)?;
        for (identity, notice, version) in notices {
            self.notify_desired(identity, &notice, version);
        }
        Ok(())
    }

    /// Those of `page` that configurations may have to do with, before or now.
    pub(super) fn to_settle(&self, page: &[Entry]) -> Vec<Identity> {
        let any = self.has_settings();
        let page = page.iter();
        page.filter(|entry| any || !entry.record.settled.is_nothing())
            .map(|entry| entry.identity.clone())
            .collect()
    }

    fn has_settings(&self) -> bool {
        let mut all = self.deployments.iter();
        all.any(|one| one.content.settings().is_some())
    }

    /// What has to change for a twin, if anything.
    fn settlement(&self, identity: &Identity, now: Moment) -> Result<Option<Settlement>, HubError> {
        let Some(record) = self.store.get(identity)? else {
            return Ok(None);
        };
        if record.settled.is_nothing() && !self.has_settings() {
            return Ok(None);
        }
        let identity = identity.clone();
        let mut entry = Entry { identity, record };
        let twin = target_view(&entry);
        let kind = match entry.identity.module {
            Some(_) => Source::Modules,
            None => Source::Devices,
        };
        let matching = self.deployments.iter();
        let matching = matching.filter(|one| {
            let settings = one.content.settings();
            settings.is_some_and(|settings| settings.of() == kind) && one.target.meets(&twin)
        });
        let mut wanted = settled(matching);
        if wanted == entry.record.settled {
            return Ok(None);
        }
        let notice = match patched(&mut entry, &wanted.properties, now) {
            Err(error @ HubError::Limit { .. }) => {
                wanted = wanted.set_aside(&entry.record.settled);
                if wanted == entry.record.settled {
                    return Ok(None);
                }
                let identity = &entry.identity;
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%identity, error, "the configurations together are too much");
                None
            }
            patched => patched?,
        };
        entry.record.settled = wanted;
        Ok(Some(Settlement { entry, notice }))
    }
}

/// Changes the desired properties of `entry` to those with `wanted` set; by what, if at all.
fn patched(entry: &mut Entry, wanted: &Object, now: Moment) -> Result<Option<Object>, HubError> {
    let Value::Object(actual) = entry.record.desired.to_device() else {
        return Ok(None);
    };
    let patch = transition(&entry.record.settled.properties, wanted, &actual);
    if patch.is_empty() {
        return Ok(None);
    }
    twins::patch_desired(entry, &patch, now)?;
    Ok(Some(patch))
}
