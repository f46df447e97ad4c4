//! Automatic deployments: for which devices they are, and what several of them make of one
//! device. Pure.
//!
//! A base deployment says all of a device's modules; of those that match, the one of the
//! highest priority is applied, and of equal ones the newest. A layered deployment changes
//! parts by dotted keys, or whole modules; those of a higher priority than the base are put
//! over it, the highest last. Configurations of other twins are in `settings`.

mod content;
mod settings;
mod target;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::identity::Id;
use crate::query::{QueryError, Source};
use crate::twin::Object;

pub(crate) use content::Content;
pub(crate) use settings::{Settings, Settled, settled, transition};
pub(crate) use target::Target;

/// An automatic deployment as it lies in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Configuration {
    pub(crate) id: String,
    /// Counts its changes; what `etag` is made of.
    pub(crate) revision: u64,
    /// The larger is the newer.
    pub(crate) generation: u64,
    pub(crate) schema_version: String,
    pub(crate) labels: Object,
    /// As it was sent.
    pub(crate) content: Object,
    pub(crate) target_condition: String,
    pub(crate) priority: u32,
    /// RFC 3339, as all times here.
    pub(crate) created: String,
    pub(crate) updated: String,
    /// Queries of the operator's own, by name.
    pub(crate) metrics: BTreeMap<String, String>,
}

/// What a deployment is to a device that its condition matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// The device's modules are made of it.
    Applied,
    /// Another one comes before it, or it has no base.
    Targeted,
}

/// An automatic deployment, understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Deployment {
    pub(crate) configuration: Configuration,
    pub(crate) target: Target,
    pub(crate) content: Content,
}

/// What the deployments that match a device make of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) standing: BTreeMap<String, Standing>,
    /// Desired properties of its modules; `None` without a base deployment.
    pub(crate) modules: Option<BTreeMap<Id, Object>>,
}

/// What is wrong with a deployment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("{field}: {reason}")]
    Field { field: String, reason: String },
    #[error("targetCondition")]
    Target(#[from] QueryError),
}

impl TryFrom<Configuration> for Deployment {
    type Error = Invalid;

    fn try_from(configuration: Configuration) -> Result<Self, Invalid> {
        let id = &configuration.id;
        let allowed = |c: char| {
            c.is_ascii_lowercase() || c.is_ascii_digit() || "-:+%_#*?!(),=@;$'".contains(c)
        };
        if !(1..=128).contains(&id.len()) || !id.chars().all(allowed) {
            let reason = "it has 1 to 128 lower-case letters, digits and -:+%_#*?!(),=@;$'";
            return Err(Invalid::field("id", reason));
        }
        let target = Target::parse(&configuration.target_condition)?;
        let content = Content::parse(&configuration.content)?;
        target.check(content.source())?;
        Ok(Self {
            target,
            content,
            configuration,
        })
    }
}

impl Configuration {
    /// The twins that it sets properties of; `None` if it is about the modules of edge devices.
    pub(crate) fn settings_of(&self) -> Option<Source> {
        let content = Content::parse(&self.content).ok()?;
        content.settings().map(Settings::of)
    }
}

impl Outcome {
    /// Nothing of it can be applied.
    pub(crate) fn set_aside(&mut self) {
        let all = self.standing.values_mut();
        all.for_each(|standing| *standing = Standing::Targeted);
    }
}

impl Invalid {
    pub(crate) fn field(field: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Field {
            field: field.into(),
            reason: reason.to_string(),
        }
    }
}

/// What `matching`, all that a device meets the conditions of, make of its modules.
pub(crate) fn outcome<'d>(matching: impl IntoIterator<Item = &'d Deployment>) -> Outcome {
    let matching = matching.into_iter();
    let mut all: Vec<_> = matching
        .filter_map(|one| Some((&one.configuration, one.content.modules()?)))
        .collect();
    all.sort_by_key(|(own, _)| (own.priority, own.generation));
    let mut outcome = Outcome::default();
    for (own, _) in &all {
        outcome.standing.insert(own.id.clone(), Standing::Targeted);
    }
    let base = all.iter().rfind(|(_, content)| !content.is_layered());
    let Some(base) = base else {
        return outcome;
    };
    let over = base.0.priority;
    let layers = all
        .iter()
        .filter(|(own, content)| content.is_layered() && own.priority > over);
    let mut modules = BTreeMap::new();
    for (own, content) in std::iter::once(base).chain(layers) {
        content.put_over(&mut modules);
        outcome.standing.insert(own.id.clone(), Standing::Applied);
    }
    outcome.modules = Some(modules);
    outcome
}

#[cfg(test)]
mod tests;
