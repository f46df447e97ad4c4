//! What configurations of devices and of modules set in the desired properties of twins. Pure.
//!
//! All that match a twin are put together, the highest priority last, and of equal ones the
//! newest; where two set the same path, or one of them what is around it, the later one counts.
//! What is set no more is removed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::content::{Part, put};
use super::{Configuration, Deployment, Standing};
use crate::query::Source;
use crate::twin::Object;

/// Desired properties by their paths, for twins of one kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    pub(super) of: Source,
    /// None of them without a path.
    pub(super) parts: Vec<Part>,
}

/// What configurations have set in a twin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settled {
    /// All that match it.
    pub(crate) standing: BTreeMap<String, Standing>,
    /// As a patch of its desired properties: null is a property that is removed.
    pub(crate) properties: Object,
}

impl Settings {
    /// The twins that they are for.
    pub(crate) fn of(&self) -> Source {
        self.of
    }

    /// Puts these over what `properties` has.
    pub(crate) fn put_over(&self, properties: &mut Object) {
        for part in &self.parts {
            put(properties, &part.path, &part.value);
        }
    }

    /// Whether `later` leave nothing of these.
    fn is_hidden_by(&self, later: &[(&Configuration, &Self)]) -> bool {
        let others = || later.iter().flat_map(|(_, settings)| &settings.parts);
        let mut own = self.parts.iter();
        own.all(|part| others().any(|other| part.path.starts_with(&other.path)))
    }
}

impl Settled {
    /// Whether no configuration has anything to do with the twin.
    pub(crate) fn is_nothing(&self) -> bool {
        self.standing.is_empty() && self.properties.is_empty()
    }

    /// The same with nothing of these configurations applied, and `before` still set.
    pub(crate) fn set_aside(mut self, before: &Self) -> Self {
        let all = self.standing.values_mut();
        all.for_each(|standing| *standing = Standing::Targeted);
        self.properties.clone_from(&before.properties);
        self
    }
}

/// What `matching`, all that a twin meets the conditions of, set in it.
pub(crate) fn settled<'d>(matching: impl IntoIterator<Item = &'d Deployment>) -> Settled {
    let matching = matching.into_iter();
    let mut all: Vec<_> = matching
        .filter_map(|one| Some((&one.configuration, one.content.settings()?)))
        .collect();
    all.sort_by_key(|(own, _)| (own.priority, own.generation));
    let mut settled = Settled::default();
    for (index, (own, settings)) in all.iter().enumerate() {
        settings.put_over(&mut settled.properties);
        let standing = match settings.is_hidden_by(&all[index + 1..]) {
            true => Standing::Targeted,
            false => Standing::Applied,
        };
        settled.standing.insert(own.id.clone(), standing);
    }
    settled
}

/// The patch of `actual`, in which `before` was set, that sets `now`: what is the same in both
/// is not touched, and what `now` lacks is removed, with the objects that are empty then.
pub(crate) fn transition(before: &Object, now: &Object, actual: &Object) -> Object {
    let mut patch = Object::new();
    for (name, old) in before {
        if !now.contains_key(name)
            && let Some(removed) = removal(old, actual.get(name))
        {
            patch.insert(name.clone(), removed);
        }
    }
    for (name, new) in now {
        match (before.get(name), new) {
            (Some(old), new) if old == new => {}
            (Some(Value::Object(old)), Value::Object(new)) => {
                let actual = actual.get(name).and_then(Value::as_object);
                let inner = transition(old, new, actual.unwrap_or(&Object::new()));
                if !inner.is_empty() {
                    patch.insert(name.clone(), inner.into());
                }
            }
            (_, new) => {
                patch.insert(name.clone(), new.clone());
            }
        }
    }
    patch
}

/// What removes `old` from `actual`; `None` if it is not there.
fn removal(old: &Value, actual: Option<&Value>) -> Option<Value> {
    let (old, actual) = match (old, actual?) {
        (Value::Null, _) => return None,
        (Value::Object(old), Value::Object(actual)) => (old, actual),
        _ => return Some(Value::Null),
    };
    let mut removed = Object::new();
    for (name, value) in old {
        if let Some(one) = removal(value, actual.get(name)) {
            removed.insert(name.clone(), one);
        }
    }
    if actual
        .keys()
        .all(|name| removed.get(name) == Some(&Value::Null))
    {
        return Some(Value::Null);
    }
    (!removed.is_empty()).then(|| removed.into())
}
