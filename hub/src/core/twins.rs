//! Twins, from the service's side and from the device's.

use super::{Hub, HubError, Precondition};
use crate::event::{self, Action};
use crate::identity::Identity;
use crate::moment::Moment;
use crate::record::Entry;
use crate::store::Change;
use crate::topic;
use crate::twin::{self, Limit, Object, Violation};

/// A change of a twin by the service.
#[derive(Debug, Clone, Default)]
pub(crate) struct TwinUpdate {
    pub(crate) tags: Option<Object>,
    pub(crate) desired: Option<Object>,
    /// Whether tags and desired properties are replaced, instead of merged into.
    pub(crate) replace: bool,
}

impl Hub {
    /// Changes tags and desired properties, and tells the device if it is connected and has
    /// subscribed. A replacement without tags or desired properties empties them.
    ///
    /// # Errors
    /// [`HubError::NotFound`], [`HubError::EtagMismatch`], [`HubError::Limit`].
    pub(crate) fn update_twin(
        &mut self,
        identity: &Identity,
        update: &TwinUpdate,
        precondition: &Precondition,
        now: Moment,
    ) -> Result<Entry, HubError> {
        let mut entry = self.entry(identity)?;
        precondition.check(identity, entry.record.twin_revision)?;
        let (nothing, record) = (Object::new(), &mut entry.record);
        if update.replace {
            record.tags.clear();
        }
        if let Some(tags) = &update.tags {
            twin::check_patch(tags).map_err(limit("tags"))?;
            twin::merge_tags(&mut record.tags, tags);
            Limit::Tags.check(&record.tags).map_err(limit("tags"))?;
        }
        record.twin_revision += 1;
        let notice = match (&update.desired, update.replace) {
            (desired, true) => Some(desired.as_ref().unwrap_or(&nothing)),
            (desired, false) => desired.as_ref(),
        };
        match notice {
            Some(desired) if update.replace => replace_desired(&mut entry, desired, now)?,
            Some(desired) => patch_desired(&mut entry, desired, now)?,
            None => {}
        }
        let event = self.event(
            Action::TwinChanged,
            &identity.to_string(),
            &said(update),
            now,
        );
        let put = Change::Put(Box::new(entry.clone()));
        self.store.commit(&[put, event])?;
        if let Some(desired) = notice {
            self.notify_desired(identity, desired, entry.record.desired.version());
        }
        if identity.module.is_none() {
            self.align(&identity.device, now);
        }
        self.settle(identity, now);
        self.entry(identity)
    }

    /// Merges what a device reports; returns the version that it led to.
    ///
    /// # Errors
    /// [`HubError::NotFound`], [`HubError::Invalid`], [`HubError::Limit`].
    pub(super) fn report(
        &mut self,
        identity: &Identity,
        payload: &[u8],
        now: Moment,
    ) -> Result<u64, HubError> {
        let patch: Object = serde_json::from_slice(payload)
            .map_err(|error| HubError::invalid("reported properties", error))?;
        if let Some(name) = patch.keys().find(|name| name.starts_with('$')) {
            let name = name.chars().take(64).collect();
            return Err(limit("reported properties")(Violation::Name(name)));
        }
        twin::check_patch(&patch).map_err(limit("reported properties"))?;
        let mut record = self.record(identity)?;
        record.reported = record
            .reported
            .patched(&patch, Limit::Properties, &now.rfc3339())
            .map_err(limit("reported properties"))?;
        self.put(identity, &record)?;
        if identity.module.is_none() {
            self.align(&identity.device, now);
        }
        self.settle(identity, now);
        Ok(record.reported.version())
    }

    /// Both halves of a twin, as its device sees them.
    ///
    /// # Errors
    /// [`HubError::NotFound`].
    pub(super) fn device_twin(&self, identity: &Identity) -> Result<serde_json::Value, HubError> {
        let record = self.record(identity)?;
        Ok(serde_json::json!({
            "desired": record.desired.to_device(),
            "reported": record.reported.to_device(),
        }))
    }

    /// Tells the device of `desired`, if it listens; it learns by itself what it missed.
    pub(super) fn notify_desired(&mut self, identity: &Identity, desired: &Object, version: u64) {
        let body = twin::versioned(desired, version).to_string();
        let topic = topic::desired_patch(version);
        self.send_if(identity, topic::Filter::DesiredPatches, topic, body);
    }
}

/// Names of what a change of a twin is about; its values may be secrets.
fn said(update: &TwinUpdate) -> String {
    let parts = [("desired", &update.desired), ("tags", &update.tags)];
    let parts = parts.into_iter().filter_map(|(part, properties)| {
        let names = event::names(properties.as_ref()?.keys().map(String::as_str));
        Some(format!("{part}: {names}"))
    });
    let text = parts.collect::<Vec<_>>().join("; ");
    if update.replace {
        return format!("replaced {text}");
    }
    text
}

/// Replaces the desired properties of `entry`, one version on. What configurations have set
/// there is gone, until [`Hub::settle`] sets it again.
pub(super) fn replace_desired(
    entry: &mut Entry,
    desired: &Object,
    now: Moment,
) -> Result<(), HubError> {
    let field = || format!("desired properties of {}", entry.identity);
    twin::check_patch(desired).map_err(|source| limit(field())(source))?;
    entry.record.desired = entry
        .record
        .desired
        .replaced(desired, Limit::Properties, &now.rfc3339())
        .map_err(|source| limit(field())(source))?;
    entry.record.settled.properties.clear();
    Ok(())
}

/// Merges `patch` into the desired properties of `entry`, one version on.
pub(super) fn patch_desired(
    entry: &mut Entry,
    patch: &Object,
    now: Moment,
) -> Result<(), HubError> {
    let field = "desired properties";
    twin::check_patch(patch).map_err(limit(field))?;
    entry.record.desired = entry
        .record
        .desired
        .patched(patch, Limit::Properties, &now.rfc3339())
        .map_err(limit(field))?;
    Ok(())
}

fn limit(field: impl Into<String>) -> impl FnOnce(Violation) -> HubError {
    move |source| HubError::Limit {
        field: field.into(),
        source,
    }
}
