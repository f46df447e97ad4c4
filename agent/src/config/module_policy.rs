//! The owner's policy for modules: a TOML file of its own, read once at the daemon's start.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::raw::{Mistake, check, path as absolute};
use super::{ConfigError, invalid, read_toml};
use crate::deployment::{device_rule, is_device_name};
use crate::policy::{AllowedMount, HostNamespace, ModulePolicy, Pattern, Rule};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    #[serde(default)]
    rule: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    modules: Spanned<String>,
    #[serde(default)]
    privileged: bool,
    #[serde(default)]
    unconfined: bool,
    #[serde(default)]
    devices: Vec<Spanned<String>>,
    #[serde(default)]
    device_rules: Vec<Spanned<String>>,
    #[serde(default)]
    capabilities: Vec<Spanned<String>>,
    #[serde(default)]
    mounts: Vec<Spanned<String>>,
    #[serde(default)]
    host_namespaces: BTreeSet<HostNamespace>,
}

/// Reads the policy file `path`. Every complaint names file, line and key.
///
/// # Errors
/// [`ConfigError`]; there is no policy then, and nothing must be run.
pub fn load_module_policy(path: &Path) -> Result<ModulePolicy, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let raw: RawPolicy = read_toml(path, &text)?;
    let rules: Result<Vec<Rule>, Mistake> = raw.rule.into_iter().map(RawRule::validate).collect();
    rules
        .map(ModulePolicy::new)
        .map_err(|mistake| invalid(path, &text, mistake.offset, mistake.reason))
}

impl RawRule {
    fn validate(self) -> Result<Rule, Mistake> {
        Ok(Rule {
            modules: check(self.modules, name)?,
            privileged: self.privileged,
            unconfined: self.unconfined,
            devices: checked_all(self.devices, device)?,
            device_rules: checked_all(self.device_rules, |text| {
                device_rule(&text)
                    .ok_or_else(|| format!("{text:?} is no rule such as \"c 189:* rw\""))
            })?,
            capabilities: checked_all(self.capabilities, capability)?,
            mounts: checked_all(self.mounts, mount)?,
            host_namespaces: self.host_namespaces,
        })
    }
}

fn checked_all<T, C: FromIterator<T>>(
    all: Vec<Spanned<String>>,
    check_one: impl Fn(String) -> Result<T, String>,
) -> Result<C, Mistake> {
    all.into_iter().map(|one| check(one, &check_one)).collect()
}

fn name(text: String) -> Result<Pattern, String> {
    let is_known = |c: char| c.is_ascii_alphanumeric() || "*._-".contains(c);
    match !text.is_empty() && text.chars().all(is_known) {
        true => Ok(Pattern::new(text)),
        false => Err(format!(
            "{text:?} is no pattern of module names such as \"sensor-*\""
        )),
    }
}

fn device(text: String) -> Result<Pattern, String> {
    match text.starts_with('/') || is_device_name(&text.replace('*', "x")) {
        true => Ok(Pattern::new(text)),
        false => Err(format!(
            "{text:?} is neither an absolute path nor a name such as \"vendor.com/class=*\""
        )),
    }
}

#[allow(clippy::needless_pass_by_value)] // The other rules keep the text.
fn capability(text: String) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    let known = upper
        .bytes()
        .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
    match upper.as_str() {
        "" => Err("is empty".to_owned()),
        "ALL" => Ok(upper),
        _ if !known => Err(format!("{text:?} is no capability such as \"NET_ADMIN\"")),
        name if name.starts_with("CAP_") => Ok(upper),
        name => Ok(format!("CAP_{name}")),
    }
}

/// `/path` or `/path:ro`.
#[allow(clippy::needless_pass_by_value)] // The other rules keep the text.
fn mount(text: String) -> Result<AllowedMount, String> {
    let (path, read_only) = match text.strip_suffix(":ro") {
        Some(path) => (path, true),
        None => (text.as_str(), false),
    };
    Ok(AllowedMount {
        path: absolute(PathBuf::from(path))?,
        read_only,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<ModulePolicy, String> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("modules.toml");
        std::fs::write(&path, text).expect("written");
        load_module_policy(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_are_read_in_their_order() {
        let text = "[[rule]]\nmodules = \"sensor-*\"\ndevices = [\"/dev/i2c-*\"]\n\
            device_rules = [\"c 189:* rw\"]\ncapabilities = [\"net_admin\", \"CAP_SYS_TIME\"]\n\
            mounts = [\"/etc/ssl:ro\", \"/data\"]\nhost_namespaces = [\"network\"]\n\
            [[rule]]\nmodules = \"*\"\nprivileged = true\nunconfined = true\n";
        let mount = |path: &str, read_only| AllowedMount {
            path: path.into(),
            read_only,
        };
        let first = Rule {
            modules: Pattern::new("sensor-*".to_owned()),
            devices: vec![Pattern::new("/dev/i2c-*".to_owned())],
            device_rules: vec![device_rule("c 189:* rw").expect("a rule")],
            capabilities: ["CAP_NET_ADMIN", "CAP_SYS_TIME"].map(str::to_owned).into(),
            mounts: vec![mount("/etc/ssl", true), mount("/data", false)],
            host_namespaces: [HostNamespace::Network].into(),
            ..Rule::default()
        };
        let second = Rule {
            modules: Pattern::new("*".to_owned()),
            privileged: true,
            unconfined: true,
            ..Rule::default()
        };
        assert_eq!(load(text), Ok(ModulePolicy::new(vec![first, second])));
        assert_eq!(load(""), Ok(ModulePolicy::default()));
    }

    #[test]
    fn a_mistake_names_its_line_and_key() {
        let cases = [
            ("devices = [\"i2c\"]", "neither an absolute path"),
            ("device_rules = [\"c 1 r\"]", "is no rule"),
            ("capabilities = [\"a b\"]", "is no capability"),
            ("mounts = [\"data\"]", "absolute"),
            ("host_namespaces = [\"time\"]", "time"),
            ("device = []", "device"),
        ];
        for (line, reason) in cases {
            let said = load(&format!("[[rule]]\nmodules = \"*\"\n{line}\n")).unwrap_err();
            assert!(
                said.contains("line 3") && said.contains(reason),
                "{line}: {said}"
            );
        }
        let said = load("[[rule]]\nmodules = \"a b\"\n").unwrap_err();
        assert!(
            said.contains("line 2") && said.contains("pattern"),
            "{said}"
        );
    }
}
