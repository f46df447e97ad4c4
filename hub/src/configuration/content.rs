//! What a deployment says of modules.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Invalid;
use crate::identity::Id;
use crate::twin::{Object, check_patch};

/// The key of a module's whole desired properties, and the begin of those of its parts.
const DESIRED: &str = "properties.desired";
/// Whose desired properties make a deployment a base.
const AGENT: &str = "$edgeAgent";

/// Desired properties of modules, whole or in parts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Content {
    modules: BTreeMap<Id, Vec<Part>>,
}

/// A value, and where in a module's desired properties it goes: nowhere below for all of them.
#[derive(Debug, Clone, PartialEq)]
struct Part {
    path: Vec<String>,
    value: Value,
}

impl Content {
    /// Reads `{"modulesContent": {module: {"properties.desired[.path]": value}}}`.
    ///
    /// # Errors
    /// [`Invalid::Field`] with the field that is wrong.
    pub(crate) fn parse(content: &Object) -> Result<Self, Invalid> {
        let mut modules = BTreeMap::new();
        for (name, value) in content {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("modulesContent", Value::Object(all)) => {
                    for (module, parts) in all {
                        let field = format!("content.modulesContent.{module}");
                        let id = Id::try_from(module.as_str())
                            .map_err(|error| Invalid::field(&field, error))?;
                        modules.insert(id, module_parts(&field, parts)?);
                    }
                }
                ("deviceContent" | "moduleContent", _) => {
                    let reason = "only deployments to edge devices (modulesContent) are offered";
                    return Err(Invalid::field(format!("content.{name}"), reason));
                }
                _ => return Err(Invalid::field(format!("content.{name}"), "it is not known")),
            }
        }
        if modules.is_empty() {
            return Err(Invalid::field(
                "content.modulesContent",
                "it names no module",
            ));
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
fn put(target: &mut Object, path: &[String], value: &Value) {
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
