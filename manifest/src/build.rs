//! From a template to a manifest.

use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::credentials::{Credential, each_text};
use crate::placeholder::{self, Placeholder};
use crate::problem::{Problem, Problems};
use crate::{create_options, module_file};

/// The first version of templates that is not known.
const VERSION_END: u32 = 5;

/// What a template needs beside itself.
#[expect(missing_debug_implementations, reason = "it has functions")]
pub struct Inputs<'a> {
    /// For which platform images are meant that name none, such as `arm32v7`.
    pub platform: Option<&'a str>,
    /// The value of a variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The text of a `module.json`, or why it cannot be read, with its path.
    pub module_file: &'a dyn Fn(&ModuleDir) -> Result<String, String>,
}

/// The directory of a module's source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModuleDir {
    /// Of `${MODULES.name}`: one of the solution's modules.
    Named(String),
    /// Of `${MODULEDIR<path>}`: relative to the template.
    Path(PathBuf),
}

/// The manifest of `template`: without `$schema-template`, with variables and images filled
/// in, and createOptions as text. Credentials of registries stay variables.
///
/// # Errors
/// Everything that is wrong, such as variables that are not set, modules and platforms that
/// are not there, and passwords in clear.
pub fn build(template: Value, inputs: &Inputs<'_>) -> Result<Value, Problems> {
    let single = |reason: &str| Problems(vec![Problem::new("", reason)]);
    let Value::Object(mut manifest) = template else {
        return Err(single("a template is a JSON object"));
    };
    if let Some(version) = manifest.remove("$schema-template") {
        check_version(&version).map_err(|reason| single(&reason))?;
    }
    if !manifest.get("modulesContent").is_some_and(Value::is_object) {
        return Err(single("the template has no object modulesContent"));
    }
    let mut problems = Vec::new();
    let mut manifest = Value::Object(manifest);
    each_text(
        &mut manifest,
        "",
        &mut |place, text| match expand_field(place, text, inputs) {
            Ok(expanded) => *text = expanded,
            Err(reason) => problems.push(Problem::new(place, reason)),
        },
    );
    check_names(&manifest, "", &mut problems);
    each_settings(
        &mut manifest["modulesContent"],
        "modulesContent",
        &mut |settings, place| {
            create_options::cut(settings, place, &mut problems);
        },
    );
    Problems::or(problems, manifest)
}

/// Placeholders are for values: one in a name would stay there unseen.
fn check_names(value: &Value, place: &str, problems: &mut Vec<Problem>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| check_names(one, place, problems)),
        Value::Object(all) => {
            for (name, one) in all {
                let place = format!("{place}.{name}").trim_start_matches('.').to_owned();
                if name.contains("${") {
                    problems.push(Problem::new(&place, "is a name with a placeholder in it"));
                }
                check_names(one, &place, problems);
            }
        }
        _ => {}
    }
}

fn check_version(version: &Value) -> Result<(), String> {
    let major = version
        .as_str()
        .and_then(|text| text.split('.').next()?.parse().ok());
    match major {
        Some(1..VERSION_END) => Ok(()),
        _ => Err(format!(
            "$schema-template is {version}; known are 1.0.0 to 4.0.0"
        )),
    }
}

fn expand_field(place: &str, text: &str, inputs: &Inputs<'_>) -> Result<String, String> {
    if let Some(credential) = Credential::at(place) {
        credential.check(text)?;
        return Ok(text.to_owned());
    }
    placeholder::expand(text, |found| {
        match found.braced.then(|| Reference::parse(found.name)).flatten() {
            Some(reference) => reference.image(inputs),
            None => variable(found, inputs),
        }
    })
}

fn variable(found: &Placeholder<'_>, inputs: &Inputs<'_>) -> Result<String, String> {
    match (inputs.variable)(found.name) {
        Some(value) => Ok(value),
        None if found.is_meant() => Err(format!(
            "needs the variable {}, which is not set",
            found.name
        )),
        None => Ok(found.text.to_owned()),
    }
}

/// What names a module's image.
struct Reference<'n> {
    /// As the template has it.
    name: &'n str,
    dir: ModuleDir,
    /// Empty, `debug`, or a platform, perhaps with `.debug` behind it.
    suffix: &'n str,
}

impl<'n> Reference<'n> {
    fn parse(name: &'n str) -> Option<Self> {
        let (dir, suffix) = if let Some(rest) = name.strip_prefix("MODULES.") {
            let (module, suffix) = rest.split_once('.').unwrap_or((rest, ""));
            (ModuleDir::Named(module.to_owned()), suffix)
        } else {
            let (path, suffix) = name.strip_prefix("MODULEDIR<")?.split_once('>')?;
            (ModuleDir::Path(path.into()), suffix.trim_start_matches('.'))
        };
        Some(Self { name, dir, suffix })
    }

    fn image(&self, inputs: &Inputs<'_>) -> Result<String, String> {
        let wrong = |reason: String| format!("needs ${{{}}}: {reason}", self.name);
        let platform = match (self.suffix, inputs.platform) {
            ("", Some(platform)) => platform.to_owned(),
            ("debug", Some(platform)) => format!("{platform}.debug"),
            ("" | "debug", None) => return Err(wrong("no platform is given".to_owned())),
            (named, _) => named.to_owned(),
        };
        let text = (inputs.module_file)(&self.dir).map_err(wrong)?;
        let expand = |text: &str| placeholder::expand(text, |found| variable(found, inputs));
        let image = module_file::image(&text, &platform, expand);
        image.map_err(|reason| wrong(format!("its module.json {reason}")))
    }
}

/// Visits every object in `value` that has createOptions, with its place.
fn each_settings(
    value: &mut Value,
    place: &str,
    visit: &mut dyn FnMut(&mut Map<String, Value>, &str),
) {
    let Value::Object(all) = value else { return };
    if all.contains_key("createOptions") {
        visit(all, place);
        return;
    }
    for (name, one) in all.iter_mut() {
        each_settings(one, &format!("{place}.{name}"), visit);
    }
}

#[cfg(test)]
mod tests;
