//! Automatic deployments: kept, and carried out on the devices that they are for.

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::registry::etag;
use super::{Hub, HubError, Precondition, twins};
use crate::configuration::{Configuration, Content, Deployment, outcome};
use crate::event::Action;
use crate::identity::{Id, Identity};
use crate::moment::Moment;
use crate::record::Entry;
use crate::store::Change;
use crate::twin::{Limit, Object};

/// Most automatic deployments of a hub.
const CONFIGURATIONS_MAX: usize = 100;
/// The module whose twin says, besides the device's, which deployments apply.
const AGENT: &str = "$edgeAgent";

/// What an automatic deployment shall be.
#[derive(Debug, Clone)]
pub(crate) struct ConfigurationSpec {
    pub(crate) id: String,
    pub(crate) schema_version: Option<String>,
    pub(crate) labels: Object,
    /// Needed for a new one; afterwards it cannot change.
    pub(crate) content: Option<Object>,
    pub(crate) target_condition: String,
    pub(crate) priority: u32,
    pub(crate) metrics: BTreeMap<String, String>,
}

/// What has to change for a device to be as its deployments say.
#[derive(Debug, Default)]
struct Alignment {
    entries: Vec<Entry>,
    /// Desired properties that are new, by the place of their module in `entries`.
    notices: Vec<(usize, Object)>,
}

impl Hub {
    /// All automatic deployments, by id.
    pub(crate) fn configurations(&self) -> Vec<Configuration> {
        let all = self.deployments.iter();
        all.map(|one| one.configuration.clone()).collect()
    }

    /// # Errors
    /// [`HubError::NoConfiguration`].
    pub(crate) fn configuration(&self, id: &str) -> Result<Configuration, HubError> {
        let mut all = self.deployments.iter().map(|one| &one.configuration);
        let found = all.find(|configuration| configuration.id == id);
        found
            .cloned()
            .ok_or_else(|| HubError::NoConfiguration(id.to_owned()))
    }

    /// Makes or changes an automatic deployment. Devices are as it says once
    /// [`Hub::align_some`] went through them.
    ///
    /// # Errors
    /// [`HubError::NoConfiguration`], [`HubError::ConfigurationExists`],
    /// [`HubError::ConfigurationEtag`], [`HubError::Configuration`], [`HubError::Invalid`].
    pub(crate) fn put_configuration(
        &mut self,
        spec: ConfigurationSpec,
        precondition: &Precondition,
        now: Moment,
    ) -> Result<Configuration, HubError> {
        let id = spec.id.clone();
        let current = self.configuration(&id).ok();
        let action = match current {
            Some(_) => Action::ConfigurationChanged,
            None => Action::ConfigurationCreated,
        };
        let configuration = match (current, precondition) {
            (Some(_), Precondition::Absent) => return Err(HubError::ConfigurationExists(id)),
            (Some(current), _) => {
                check_etag(&current, precondition)?;
                changed(&current, spec, now)?
            }
            (None, Precondition::Absent) => self.made(spec, now)?,
            (None, _) => return Err(HubError::NoConfiguration(id)),
        };
        let deployment = Deployment::try_from(configuration.clone())?;
        check_size(&deployment)?;
        let put = Change::PutConfiguration(Box::new(configuration.clone()));
        let detail = format!(
            "priority {}, target condition {:?}",
            configuration.priority, configuration.target_condition
        );
        let event = self.event(action, &id, &detail, now);
        self.store.commit(&[put, event])?;
        self.deployments.retain(|one| one.configuration.id != id);
        self.deployments.push(deployment);
        self.deployments
            .sort_by(|a, b| a.configuration.id.cmp(&b.configuration.id));
        Ok(configuration)
    }

    fn made(&self, spec: ConfigurationSpec, now: Moment) -> Result<Configuration, HubError> {
        if self.deployments.len() >= CONFIGURATIONS_MAX {
            let reason = format!("the hub has {CONFIGURATIONS_MAX}, and that is the limit");
            return Err(HubError::invalid("configuration", reason));
        }
        let content = spec.content;
        Ok(Configuration {
            id: spec.id,
            revision: 1,
            generation: self.store.next_generation(now.ticks())?,
            schema_version: spec.schema_version.unwrap_or_else(|| "1.0".to_owned()),
            labels: spec.labels,
            content: content.ok_or_else(|| HubError::invalid("content", "it is missing"))?,
            target_condition: spec.target_condition,
            priority: spec.priority,
            created: now.rfc3339(),
            updated: now.rfc3339(),
            metrics: spec.metrics,
        })
    }

    /// Removes an automatic deployment. Devices take the next one that matches, once
    /// [`Hub::align_some`] went through them; where none does their modules stay.
    ///
    /// # Errors
    /// [`HubError::NoConfiguration`], [`HubError::ConfigurationEtag`].
    pub(crate) fn remove_configuration(
        &mut self,
        id: &str,
        precondition: &Precondition,
        now: Moment,
    ) -> Result<(), HubError> {
        check_etag(&self.configuration(id)?, precondition)?;
        let event = self.event(Action::ConfigurationDeleted, id, "", now);
        let remove = Change::RemoveConfiguration(id.to_owned());
        self.store.commit(&[remove, event])?;
        self.deployments.retain(|one| one.configuration.id != id);
        Ok(())
    }

    /// Makes the `limit` records after `after` what configurations say, in one transaction for
    /// edge devices' modules and one for other twins; idempotent. Returns where to go on, `None` at the end.
    pub(crate) fn align_some(
        &mut self,
        after: Option<&Identity>,
        limit: usize,
        now: Moment,
    ) -> Result<Option<Identity>, HubError> {
        let page = self.page(after, limit)?;
        let last = page.last().map(|entry| entry.identity.clone());
        let settled = self.to_settle(&page);
        let mut alignments = Vec::new();
        for entry in page {
            alignments.extend(self.alignment(entry, now)?);
        }
        self.carry_out(alignments, now)?;
        self.settle_all(&settled, now)?;
        Ok(last)
    }

    /// Makes one device what its deployments say. What led here is done already, so a
    /// failure is only logged: the next start of the hub tries it again.
    pub(super) fn align(&mut self, device: &Id, now: Moment) {
        let aligned = self
            .entry(&Identity::device(device.clone()))
            .and_then(|entry| self.alignment(entry, now))
            .and_then(|alignment| self.carry_out(alignment, now));
        if let Err(error) = aligned {
            let error = &error as &dyn std::error::Error;
            tracing::error!(%device, error, "carrying out automatic deployments");
        }
    }

    fn carry_out(
        &mut self,
        alignments: impl IntoIterator<Item = Alignment>,
        now: Moment,
    ) -> Result<(), HubError> {
        let (mut changes, mut notices) = (Vec::new(), Vec::new());
        for alignment in alignments {
            for (place, desired) in alignment.notices {
                let entry = &alignment.entries[place];
                let version = entry.record.desired.version();
                notices.push((entry.identity.clone(), desired, version));
            }
            let entries = alignment.entries.into_iter();
            changes.extend(entries.map(|entry| Change::Put(Box::new(entry))));
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.store.commit(&changes)?;
        for (identity, desired, version) in &notices {
            self.notify_desired(identity, desired, *version);
        }
        let replaced = notices.into_iter().map(|(identity, ..)| identity);
        self.settle_all(&replaced.collect::<Vec<_>>(), now)
    }

    /// What has to change for `root`; nothing for what is no edge device.
    fn alignment(&self, mut root: Entry, now: Moment) -> Result<Option<Alignment>, HubError> {
        if root.identity.module.is_some() || !root.record.iot_edge {
            return Ok(None);
        }
        let twin = target_view(&root);
        let matching = self.deployments.iter();
        let mut outcome = outcome(matching.filter(|one| one.target.meets(&twin)));
        let mut deployed = outcome.modules.as_ref().map(content_digest);
        let refused = deployed.as_ref().map(|digest| format!("!{digest}"));
        let mut alignment = Alignment::default();
        if deployed.is_some() && root.record.deployed == refused {
            outcome.set_aside();
            deployed = refused;
        } else if root.record.deployed != deployed
            && let Some(modules) = outcome.modules.take()
        {
            match self.replacements(&root.identity.device, modules, now) {
                Ok(replaced) => alignment = replaced,
                Err(error @ HubError::Limit { .. }) => {
                    let device = &root.identity.device;
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(%device, error, "the layers together are too much");
                    outcome.set_aside();
                    deployed = refused;
                }
                Err(error) => return Err(error),
            }
        }
        let record = &root.record;
        if record.deployed == deployed && record.configurations == outcome.standing {
            return Ok(None);
        }
        root.record.deployed = deployed;
        root.record.configurations.clone_from(&outcome.standing);
        self.tell_agent(&mut alignment, &root, now)?;
        alignment.entries.push(root);
        Ok(Some(alignment))
    }

    fn replacements(
        &self,
        device: &Id,
        modules: BTreeMap<Id, Object>,
        now: Moment,
    ) -> Result<Alignment, HubError> {
        let mut alignment = Alignment::default();
        for (module, desired) in modules {
            let mut entry = self.deployable(device, &module, now)?;
            twins::replace_desired(&mut entry, &desired, now)?;
            alignment.notices.push((alignment.entries.len(), desired));
            alignment.entries.push(entry);
        }
        Ok(alignment)
    }

    /// Has the agent's twin say as the device's does which deployments apply: metrics ask it.
    fn tell_agent(
        &self,
        alignment: &mut Alignment,
        root: &Entry,
        now: Moment,
    ) -> Result<(), HubError> {
        let id = Id::try_from(AGENT).expect("invariant: the agent's name is an id");
        let agent = Identity::module(root.identity.device.clone(), id.clone());
        let place = alignment
            .entries
            .iter()
            .position(|entry| entry.identity == agent);
        let place = match place {
            Some(place) => place,
            None => {
                let entry = self.deployable(&root.identity.device, &id, now)?;
                alignment.entries.push(entry);
                alignment.entries.len() - 1
            }
        };
        let record = &mut alignment.entries[place].record;
        record
            .configurations
            .clone_from(&root.record.configurations);
        Ok(())
    }
}

fn changed(
    current: &Configuration,
    spec: ConfigurationSpec,
    now: Moment,
) -> Result<Configuration, HubError> {
    if spec
        .content
        .is_some_and(|content| content != current.content)
    {
        let reason = "it cannot be changed: make another deployment of a higher priority";
        return Err(HubError::invalid("content", reason));
    }
    Ok(Configuration {
        revision: current.revision + 1,
        labels: spec.labels,
        target_condition: spec.target_condition,
        priority: spec.priority,
        updated: now.rfc3339(),
        metrics: spec.metrics,
        ..current.clone()
    })
}

fn check_etag(current: &Configuration, precondition: &Precondition) -> Result<(), HubError> {
    match precondition {
        Precondition::Etag(given) if *given != etag(current.revision) => {
            Err(HubError::ConfigurationEtag(current.id.clone()))
        }
        _ => Ok(()),
    }
}

/// No twin may get more than it can have, already by this configuration alone.
fn check_size(deployment: &Deployment) -> Result<(), HubError> {
    let check = |field: String, desired: &Object| {
        let checked = Limit::Properties.check(desired);
        checked.map_err(|source| HubError::Limit { field, source })
    };
    match &deployment.content {
        Content::Modules(content) => {
            let mut modules = BTreeMap::new();
            content.put_over(&mut modules);
            let mut modules = modules.iter();
            modules.try_for_each(|(module, desired)| {
                check(format!("content.modulesContent.{module}"), desired)
            })
        }
        Content::Settings(settings) => {
            let mut properties = Object::new();
            settings.put_over(&mut properties);
            check("content".to_owned(), &properties)
        }
    }
}

/// What target conditions look at.
pub(super) fn target_view(entry: &Entry) -> Value {
    json!({
        "deviceId": entry.identity.device.as_str(),
        "moduleId": entry.identity.module.as_ref().map(Id::as_str),
        "tags": entry.record.tags,
        "properties": { "reported": entry.record.reported.to_device() },
    })
}

fn content_digest(modules: &BTreeMap<Id, Object>) -> String {
    let all: BTreeMap<_, _> = modules.iter().map(|(id, own)| (id.as_str(), own)).collect();
    let text = json!(all).to_string();
    let bytes = digest(&SHA256, text.as_bytes());
    bytes
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
