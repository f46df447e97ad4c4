//! The signature policy: a TOML file of its own, so that it can have another owner and be replaced
//! by itself. Read once at the daemon's start, with the keys it names.

use std::path::{Path, PathBuf};

use kobune_puller::{ImagePattern, PublicKey, Requirement, SignaturePolicy, SignedBy, Signer};
use serde::Deserialize;
use toml::Spanned;

use super::raw::{Field, Mistake, check, checked, path as absolute};
use super::{ConfigError, invalid, read_toml};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    default: Default,
    #[serde(default)]
    rule: Vec<RawRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Default {
    Accept,
    Reject,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRule {
    images: Spanned<String>,
    require: Spanned<Require>,
    #[serde(default)]
    keys: Vec<Spanned<PathBuf>>,
    identity: Field<String>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Require {
    Accept,
    Reject,
    SignedBy,
}

/// Reads the policy file `path` and the keys it names. Every complaint names file, line and key.
///
/// # Errors
/// [`ConfigError`]; there is no policy then, and nothing must be pulled.
pub fn load_policy(path: &Path) -> Result<SignaturePolicy, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let raw: RawPolicy = read_toml(path, &text)?;
    raw.validate()
        .map_err(|mistake| invalid(path, &text, mistake.offset, mistake.reason))
}

impl RawPolicy {
    fn validate(self) -> Result<SignaturePolicy, Mistake> {
        let default = match self.default {
            Default::Accept => Requirement::Accept,
            Default::Reject => Requirement::Reject,
        };
        let mut rules: Vec<(ImagePattern, Requirement)> = Vec::new();
        for rule in self.rule {
            let offset = rule.images.span().start;
            let (pattern, requirement) = rule.validate()?;
            if rules.iter().any(|(known, _)| *known == pattern) {
                let reason = format!("there are two rules for {:?}", pattern.shown());
                return Err(Mistake { offset, reason });
            }
            rules.push((pattern, requirement));
        }
        Ok(SignaturePolicy::new(default, rules))
    }
}

impl RawRule {
    fn validate(self) -> Result<(ImagePattern, Requirement), Mistake> {
        let offset = self.require.span().start;
        let pattern = |text: String| ImagePattern::parse(&text).map_err(|error| error.to_string());
        let images = check(self.images, pattern)?;
        let has_keys = !self.keys.is_empty();
        let wants_keys = *self.require.get_ref() == Require::SignedBy;
        if has_keys != wants_keys || (self.identity.is_some() && !wants_keys) {
            let reason =
                "\"signed-by\" goes together with keys, and nothing else with keys or identity";
            return Err(Mistake {
                offset,
                reason: reason.to_owned(),
            });
        }
        let requirement = match self.require.into_inner() {
            Require::Accept => Requirement::Accept,
            Require::Reject => Requirement::Reject,
            Require::SignedBy => Requirement::Signed(SignedBy {
                keys: self
                    .keys
                    .into_iter()
                    .map(|path| check(path, key))
                    .collect::<Result<_, _>>()?,
                signer: checked(self.identity, signer)?.unwrap_or(Signer::SameRepository),
            }),
        };
        Ok((images, requirement))
    }
}

fn key(path: PathBuf) -> Result<PublicKey, String> {
    let path = absolute(path)?;
    let pem = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    PublicKey::from_pem(&pem).map_err(|error| format!("{}: {error}", path.display()))
}

#[allow(clippy::needless_pass_by_value)] // The other rules give the text back.
fn signer(text: String) -> Result<Signer, String> {
    if text == "*" {
        return Ok(Signer::Anything);
    }
    match ImagePattern::parse(&text) {
        Ok(pattern) if !pattern.is_group() => Ok(Signer::Repository(pattern.shown())),
        _ => Err(format!(
            "{text:?} is no repository (\"host/name\") and not \"*\""
        )),
    }
}

#[cfg(test)]
mod tests;
