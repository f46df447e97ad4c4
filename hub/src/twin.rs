//! One half of a twin: properties, their metadata and their version. Pure.

mod limits;

pub(crate) use limits::{Limit, Violation, check_patch};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// JSON object.
pub(crate) type Object = Map<String, Value>;

/// The desired or the reported properties of a twin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Section {
    properties: Object,
    metadata: Object,
    /// Counts the changes, from 1.
    version: u64,
}

impl Section {
    /// No properties yet; `now` is RFC 3339.
    pub(crate) fn new(now: &str) -> Self {
        let mut metadata = Object::new();
        stamp(&mut metadata, now);
        Self {
            properties: Object::new(),
            metadata,
            version: 1,
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// This section after `patch`, one version on: members that are null go, objects merge,
    /// all else replaces. Top-level `$` members of the patch are no properties.
    ///
    /// # Errors
    /// [`Violation`] if what comes out is larger than `limit`.
    pub(crate) fn patched(
        &self,
        patch: &Object,
        limit: Limit,
        now: &str,
    ) -> Result<Self, Violation> {
        let mut next = self.clone();
        merge(&mut next.properties, &mut next.metadata, patch, now);
        next.advance(limit)
    }

    /// This section with `properties` in place of its own, one version on.
    ///
    /// # Errors
    /// [`Violation`] if they are larger than `limit`.
    pub(crate) fn replaced(
        &self,
        properties: &Object,
        limit: Limit,
        now: &str,
    ) -> Result<Self, Violation> {
        let mut next = Self::new(now);
        next.version = self.version;
        merge(&mut next.properties, &mut next.metadata, properties, now);
        next.advance(limit)
    }

    fn advance(mut self, limit: Limit) -> Result<Self, Violation> {
        limit.check(&self.properties)?;
        self.version += 1;
        Ok(self)
    }

    /// As devices see it: the properties and `$version`.
    pub(crate) fn to_device(&self) -> Value {
        versioned(&self.properties, self.version)
    }

    /// As the service sees it: with `$metadata` besides.
    pub(crate) fn to_service(&self) -> Value {
        let mut all = self.properties.clone();
        all.insert("$metadata".into(), Value::Object(self.metadata.clone()));
        all.insert("$version".into(), self.version.into());
        Value::Object(all)
    }
}

/// `patch` with the `$version` that it led to, as devices are told of it.
pub(crate) fn versioned(patch: &Object, version: u64) -> Value {
    let mut all = patch.clone();
    all.retain(|name, _| !name.starts_with('$'));
    all.insert("$version".into(), version.into());
    Value::Object(all)
}

/// JSON merge patch of plain objects without metadata, as for tags.
pub(crate) fn merge_tags(tags: &mut Object, patch: &Object) {
    merge(tags, &mut Object::new(), patch, "");
}

fn merge(target: &mut Object, metadata: &mut Object, patch: &Object, now: &str) {
    stamp(metadata, now);
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        match value {
            Value::Null => {
                target.remove(name);
                metadata.remove(name);
            }
            Value::Object(inner) => {
                merge(child(target, name), child(metadata, name), inner, now);
            }
            plain => {
                target.insert(name.clone(), plain.clone());
                let mut leaf = Object::new();
                stamp(&mut leaf, now);
                metadata.insert(name.clone(), Value::Object(leaf));
            }
        }
    }
}

fn stamp(metadata: &mut Object, now: &str) {
    metadata.insert("$lastUpdated".into(), now.into());
}

/// The object below `name`; whatever else stood there makes room for it.
fn child<'a>(parent: &'a mut Object, name: &str) -> &'a mut Object {
    let slot = parent.entry(name).or_insert(Value::Null);
    if !slot.is_object() {
        *slot = Value::Object(Object::new());
    }
    slot.as_object_mut()
        .expect("invariant: the slot was made an object just above")
}

#[cfg(test)]
mod tests;
