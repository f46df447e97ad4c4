//! What a configuration says: of the modules of edge devices, or of other twins.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Invalid, Settings};
use crate::identity::Id;
use crate::query::Source;
use crate::twin::{Object, check_patch};

/// The key of a module's whole desired properties, and the begin of those of its parts.
const DESIRED: &str = "properties.desired";
/// Whose desired properties make a deployment a base.
const AGENT: &str = "$edgeAgent";

/// What a configuration is about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    /// `modulesContent`: the modules of edge devices.
    Modules(ModulesContent),
    /// `deviceContent` and `moduleContent`: twins of devices or of modules.
    Settings(Settings),
}

/// Desired properties of modules, whole or in parts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ModulesContent {
    modules: BTreeMap<Id, Vec<Part>>,
}

/// A value, and where in a module's desired properties it goes: nowhere below for all of them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Part {
    pub(super) path: Vec<String>,
    pub(super) value: Value,
}

impl Content {
    /// Reads `{"modulesContent": {module: {"properties.desired[.path]": value}}}`, or
    /// `deviceContent` or `moduleContent` with `{"properties.desired[.path]": value}`.
    ///
    /// # Errors
    /// [`Invalid::Field`] with the field that is wrong.
    pub(crate) fn parse(content: &Object) -> Result<Self, Invalid> {
        let mut found = None;
        for (name, value) in content {
            let field = format!("content.{name}");
            match (name.as_str(), value) {
                (_, Value::Null) => continue,
                (_, Value::Object(all)) if all.is_empty() => continue,
                ("modulesContent" | "deviceContent" | "moduleContent", Value::Object(_)) => {}
                ("modulesContent" | "deviceContent" | "moduleContent", _) => {
                    return Err(Invalid::field(field, "it is no object"));
                }
                _ => return Err(Invalid::field(field, "it is not known")),
            }
            if let Some((other, _)) = found.replace((name.as_str(), value)) {
                let reason = format!("it cannot stand beside {other}");
                return Err(Invalid::field(field, reason));
            }
        }
        match found {
            Some(("modulesContent", all)) => ModulesContent::parse(all).map(Self::Modules),
            Some(("deviceContent", all)) => settings(Source::Devices, "deviceContent", all),
            Some((_, all)) => settings(Source::Modules, "moduleContent", all),
            None => {
                let reason = "it has none of modulesContent, deviceContent and moduleContent";
                Err(Invalid::field("content", reason))
            }
        }
    }

    /// The twins that it is for.
    pub(super) fn source(&self) -> Source {
        self.settings()
            .map_or(Source::Devices, |settings| settings.of)
    }

    pub(crate) fn modules(&self) -> Option<&ModulesContent> {
        match self {
            Self::Modules(modules) => Some(modules),
            Self::Settings(_) => None,
        }
    }

    pub(crate) fn settings(&self) -> Option<&Settings> {
        match self {
            Self::Modules(_) => None,
            Self::Settings(settings) => Some(settings),
        }
    }
}

impl ModulesContent {
    fn parse(all: &Value) -> Result<Self, Invalid> {
        let mut modules = BTreeMap::new();
        for (module, parts) in all.as_object().into_iter().flatten() {
            let field = format!("content.modulesContent.{module}");
            let id =
                Id::try_from(module.as_str()).map_err(|error| Invalid::field(&field, error))?;
            modules.insert(id, module_parts(&field, parts)?);
        }
        Ok(Self { modules })
    }

    /// Whether it has to be put over a base deployment.
    pub(crate) fn is_layered(&self) -> bool {
        let parts = || self.modules.values().flatten();
        let agent = self.modules.keys().any(|id| id.as_str() == AGENT);
        !agent || parts().any(|part| !part.path.is_empty())
    }

    /// Puts this over what `modules` have.
    pub(crate) fn put_over(&self, modules: &mut BTreeMap<Id, Object>) {
        for (id, parts) in &self.modules {
            let desired = modules.entry(id.clone()).or_default();
            for part in parts {
                put(desired, &part.path, &part.value);
            }
        }
    }
}

/// Whole desired properties are a part for each of them, so that those of others stay.
fn settings(of: Source, name: &str, content: &Value) -> Result<Content, Invalid> {
    let mut parts = Vec::new();
    for part in module_parts(&format!("content.{name}"), content)? {
        match part.value {
            Value::Object(all) if part.path.is_empty() => {
                parts.extend(all.into_iter().map(|(name, value)| Part {
                    path: vec![name],
                    value,
                }));
            }
            _ => parts.push(part),
        }
    }
    Ok(Content::Settings(Settings { of, parts }))
}

fn module_parts(field: &str, parts: &Value) -> Result<Vec<Part>, Invalid> {
    let Value::Object(parts) = parts else {
        return Err(Invalid::field(field, "it is no object"));
    };
    let mut read = Vec::new();
    for (key, value) in parts {
        let field = format!("{field}.{key}");
        let Some(rest) = key.strip_prefix(DESIRED) else {
            return Err(Invalid::field(
                field,
                format!("it does not begin with {DESIRED}"),
            ));
        };
        let path: Vec<String> = match rest.strip_prefix('.') {
            Some(path) => path.split('.').map(str::to_owned).collect(),
            None if rest.is_empty() => Vec::new(),
            None => return Err(Invalid::field(field, "it is not known")),
        };
        if path.iter().any(String::is_empty) {
            return Err(Invalid::field(field, "a name in the path is empty"));
        }
        if path.is_empty() && !value.is_object() {
            return Err(Invalid::field(field, "it is no object"));
        }
        let mut whole = Object::new();
        put(&mut whole, &path, value);
        check_patch(&whole).map_err(|error| Invalid::field(&field, error))?;
        let value = value.clone();
        read.push(Part { path, value });
    }
    // The whole comes before its parts, and a part before what is below it.
    read.sort_by_key(|part| part.path.len());
    Ok(read)
}

/// Replaces what is at `path`; whatever is no object on the way there makes room.
pub(super) fn put(target: &mut Object, path: &[String], value: &Value) {
    match path {
        [] => {
            if let Value::Object(whole) = value {
                target.clone_from(whole);
            }
        }
        [last] => {
            target.insert(last.clone(), value.clone());
        }
        [first, rest @ ..] => {
            let below = target.entry(first).or_insert(Value::Null);
            if !below.is_object() {
                *below = Value::Object(Object::new());
            }
            if let Value::Object(below) = below {
                put(below, rest, value);
            }
        }
    }
}
