//! Devices and modules: made, changed, removed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kobune_iothub_auth::SharedAccessKey;
use ring::rand::{SecureRandom, SystemRandom};

use super::{Hub, HubError};
use crate::event::Action;
use crate::identity::{Id, Identity};
use crate::moment::Moment;
use crate::record::{Authentication, Entry, Key, Record, Thumbprint};
use crate::store::{Change, Start};

/// Most modules of one device, without those that the hub makes itself.
const MODULES_MAX: usize = 50;
/// Modules that every edge device has.
const EDGE_MODULES: [&str; 2] = ["$edgeAgent", "$edgeHub"];

/// What a device or module shall be; what is `None` stays, or is as usual for a new one.
#[derive(Debug, Clone, Default)]
pub(crate) struct IdentitySpec {
    pub(crate) enabled: Option<bool>,
    pub(crate) status_reason: Option<String>,
    pub(crate) authentication: Option<AuthenticationSpec>,
    pub(crate) managed_by: Option<String>,
    pub(crate) iot_edge: Option<bool>,
}

/// How it shall prove who it is.
#[derive(Debug, Clone)]
pub(crate) enum AuthenticationSpec {
    None,
    /// An absent key stays, or is made for a new identity; an empty one is made anew.
    Sas {
        primary: Option<String>,
        secondary: Option<String>,
    },
    SelfSigned {
        primary: Option<String>,
        secondary: Option<String>,
    },
}

/// What has to be so for a change to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// It is not there yet.
    Absent,
    /// It is there.
    Present,
    /// It is there, and its etag is this.
    Etag(String),
}

/// The etag of a revision, as it stands in JSON.
pub(crate) fn etag(revision: u64) -> String {
    STANDARD.encode(revision.to_string())
}

/// A new random key.
pub(super) fn new_key() -> Result<Key, HubError> {
    let mut bytes = vec![0; 32];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| HubError::Random)?;
    let key = SharedAccessKey::from_bytes(bytes);
    Ok(Key(key.expect("invariant: 32 bytes are not empty")))
}

impl Precondition {
    pub(super) fn check(&self, identity: &Identity, revision: u64) -> Result<(), HubError> {
        match self {
            Self::Absent => Err(HubError::Exists(identity.clone())),
            Self::Present => Ok(()),
            Self::Etag(given) if *given == etag(revision) => Ok(()),
            Self::Etag(_) => Err(HubError::EtagMismatch(identity.clone())),
        }
    }
}

impl AuthenticationSpec {
    fn apply(&self, current: Option<&Authentication>) -> Result<Authentication, HubError> {
        match self {
            Self::None => Ok(Authentication::None),
            Self::Sas { primary, secondary } => {
                let (first, second) = match current {
                    Some(Authentication::Sas { primary, secondary }) => {
                        (Some(primary), Some(secondary))
                    }
                    _ => (None, None),
                };
                Ok(Authentication::Sas {
                    primary: key("primaryKey", primary.as_deref(), first)?,
                    secondary: key("secondaryKey", secondary.as_deref(), second)?,
                })
            }
            Self::SelfSigned { primary, secondary } => {
                let thumbprint = |text: &Option<String>| {
                    let text = text.as_deref().filter(|text| !text.is_empty());
                    text.map(Thumbprint::try_from).transpose()
                };
                Ok(Authentication::SelfSigned {
                    primary: thumbprint(primary)?,
                    secondary: thumbprint(secondary)?,
                })
            }
        }
    }
}

fn key(name: &str, given: Option<&str>, current: Option<&Key>) -> Result<Key, HubError> {
    match (given, current) {
        (None, Some(current)) => Ok(current.clone()),
        (None | Some(""), _) => new_key(),
        (Some(text), _) => Key::try_from(text.to_owned())
            .map_err(|e| HubError::invalid(format!("authentication.symmetricKey.{name}"), e)),
    }
}

impl IdentitySpec {
    fn apply(&self, record: &mut Record, now: Moment) -> Result<(), HubError> {
        if let Some(authentication) = &self.authentication {
            record.authentication = authentication.apply(Some(&record.authentication))?;
        }
        if let Some(enabled) = self.enabled
            && enabled != record.enabled
        {
            record.enabled = enabled;
            record.status_updated = Some(now.rfc3339());
        }
        if self.status_reason.is_some() {
            record.status_reason.clone_from(&self.status_reason);
        }
        if self.managed_by.is_some() {
            record.managed_by.clone_from(&self.managed_by);
        }
        record.iot_edge = self.iot_edge.unwrap_or(record.iot_edge);
        Ok(())
    }
}

impl Hub {
    /// Makes or changes a device or module. An edge device gets its `$edgeAgent` and
    /// `$edgeHub` in the same transaction. Connections that would not be let in any more
    /// are closed.
    ///
    /// # Errors
    /// [`HubError::Exists`], [`HubError::NotFound`] (also of a module's device),
    /// [`HubError::EtagMismatch`], [`HubError::TooManyModules`], [`HubError::Invalid`].
    pub(crate) fn put_identity(
        &mut self,
        identity: &Identity,
        spec: &IdentitySpec,
        precondition: &Precondition,
        now: Moment,
    ) -> Result<Entry, HubError> {
        let before = self.store.get(identity)?;
        let mut record = match before.clone() {
            Some(mut record) => {
                precondition.check(identity, record.revision)?;
                spec.apply(&mut record, now)?;
                record.revision += 1;
                record
            }
            None if *precondition != Precondition::Absent => {
                return Err(HubError::NotFound(identity.clone()));
            }
            None => self.new_record(identity, spec, now)?,
        };
        if identity.module.is_some() {
            record.iot_edge = false;
        }
        let entry = Entry {
            identity: identity.clone(),
            record,
        };
        let mut changes = self.missing_edge_modules(&entry, now)?;
        changes.push(Change::Put(Box::new(entry.clone())));
        for (action, detail) in differences(before.as_ref(), &entry.record) {
            changes.push(self.event(action, &identity.to_string(), detail, now));
        }
        self.store.commit(&changes)?;
        self.close_if_refused(&identity.device, now);
        if identity.module.is_none() {
            self.align(&identity.device, now);
        }
        for change in &changes {
            if let Change::Put(entry) = change {
                self.settle(&entry.identity, now);
            }
        }
        Ok(entry)
    }

    fn new_record(
        &self,
        identity: &Identity,
        spec: &IdentitySpec,
        now: Moment,
    ) -> Result<Record, HubError> {
        if identity.module.is_some() {
            let device = Identity::device(identity.device.clone());
            self.record(&device)?;
            let modules = self.modules(&identity.device)?;
            let own = modules.iter().filter(|entry| !is_edge(&entry.identity));
            if !is_edge(identity) && own.count() >= MODULES_MAX {
                return Err(HubError::TooManyModules(identity.device.clone()));
            }
        }
        let usual = AuthenticationSpec::Sas {
            primary: None,
            secondary: None,
        };
        let authentication = spec.authentication.as_ref().unwrap_or(&usual).apply(None)?;
        let mut record = self.blank(authentication, now)?;
        let rest = IdentitySpec {
            authentication: None,
            ..spec.clone()
        };
        rest.apply(&mut record, now)?;
        Ok(record)
    }

    /// A record of a new generation.
    pub(super) fn blank(
        &self,
        authentication: Authentication,
        now: Moment,
    ) -> Result<Record, HubError> {
        let generation = self.store.next_generation(now.ticks())?;
        Ok(Record::new(generation, authentication, &now.rfc3339()))
    }

    /// What an edge device lacks of the modules that it has to have.
    fn missing_edge_modules(&self, device: &Entry, now: Moment) -> Result<Vec<Change>, HubError> {
        let mut changes = Vec::new();
        if !device.record.iot_edge {
            return Ok(changes);
        }
        for name in EDGE_MODULES {
            let module = Id::try_from(name).expect("invariant: the names of edge modules are ids");
            let identity = Identity::module(device.identity.device.clone(), module);
            if self.store.get(&identity)?.is_none() {
                let mut record = self.blank(Authentication::None, now)?;
                record.managed_by = Some("IotEdge".to_owned());
                changes.push(Change::Put(Box::new(Entry { identity, record })));
            }
        }
        Ok(changes)
    }

    /// Removes a device with all its modules, or a module, and closes their connections.
    ///
    /// # Errors
    /// [`HubError::NotFound`], [`HubError::EtagMismatch`].
    pub(crate) fn remove_identity(
        &mut self,
        identity: &Identity,
        precondition: &Precondition,
        now: Moment,
    ) -> Result<(), HubError> {
        precondition.check(identity, self.record(identity)?.revision)?;
        let mut changes = vec![Change::Remove(identity.clone())];
        if identity.module.is_none() {
            let modules = self.modules(&identity.device)?.into_iter();
            changes.extend(modules.map(|entry| Change::Remove(entry.identity)));
        }
        changes.push(self.event(Action::IdentityDeleted, &identity.to_string(), "", now));
        self.store.commit(&changes)?;
        self.close_if_refused(&identity.device, now);
        for change in &changes {
            if let Change::Remove(identity) = change {
                self.activity.remove(identity);
            }
        }
        Ok(())
    }

    /// The modules of a device, by name; none if there is no such device.
    pub(crate) fn modules(&self, device: &Id) -> Result<Vec<Entry>, HubError> {
        let mut entries = self.store.list(Some(device), Start::First, usize::MAX)?;
        entries.retain(|entry| entry.identity.module.is_some());
        Ok(entries)
    }
}

/// What a change of an identity is called in the event log.
fn differences(before: Option<&Record>, after: &Record) -> Vec<(Action, &'static str)> {
    let Some(before) = before else {
        let detail = if after.iot_edge { "edge device" } else { "" };
        return vec![(Action::IdentityCreated, detail)];
    };
    let mut found = Vec::new();
    if before.authentication != after.authentication {
        let detail = before.authentication.difference(&after.authentication);
        found.push((Action::IdentityKeysChanged, detail));
    }
    match (before.enabled, after.enabled) {
        (true, false) => found.push((Action::IdentityDisabled, "")),
        (false, true) => found.push((Action::IdentityEnabled, "")),
        _ => {}
    }
    if before.iot_edge != after.iot_edge {
        let detail = ["no edge device any more", "now an edge device"];
        found.push((Action::IdentityChanged, detail[usize::from(after.iot_edge)]));
    }
    if before.status_reason != after.status_reason || before.managed_by != after.managed_by {
        found.push((Action::IdentityChanged, ""));
    }
    found
}

fn is_edge(identity: &Identity) -> bool {
    let module = identity.module.as_ref().map(Id::as_str);
    module.is_some_and(|module| EDGE_MODULES.contains(&module))
}
