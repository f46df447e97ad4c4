//! Which images must be signed, and by whom. Pure.

use std::cmp::Reverse;

use oci_spec::distribution::Reference;
use thiserror::Error;

use super::claim::Refusal;
use super::key::PublicKey;
use crate::reference::parse_reference;

/// What is wanted of images. The default accepts all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignaturePolicy {
    default: Requirement,
    /// Most particular first.
    rules: Vec<(ImagePattern, Requirement)>,
}

/// What is wanted of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing.
    #[default]
    Accept,
    /// It is not to be used.
    Reject,
    /// A signature.
    Signed(SignedBy),
}

/// Which signatures count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedBy {
    /// The keys; one of them is enough.
    pub keys: Vec<PublicKey>,
    /// What the signed statement has to name beside the digest.
    pub signer: Signer,
}

/// The repository that a signed statement has to name. Where a statement names a tag too, the
/// image has to be asked for by that tag, or by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signer {
    /// The one the image is pulled from.
    SameRepository,
    /// This one, for images that were copied from there, as `host/repository`.
    Repository(String),
    /// Any or none: the digest is enough, as in the statements of cosign's bundles.
    Anything,
}

/// Repositories: one by its name, all below a name (`host/*`, `host/path/*`), or all (`*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePattern {
    /// `host/repository`; of a group what all its names begin with, up to a slash.
    name: String,
    is_group: bool,
}

/// A text that is no pattern.
#[derive(Debug, Error)]
#[error(
    "{text:?} names no repository (\"host/name\") and no group of them (\"host/*\", \"host/path/*\", \"*\")"
)]
pub struct InvalidPattern {
    text: String,
}

impl SignaturePolicy {
    /// The most particular rule counts: a repository before groups, a longer group before a
    /// shorter one. Of two rules for one pattern the first counts.
    pub fn new(default: Requirement, mut rules: Vec<(ImagePattern, Requirement)>) -> Self {
        rules.sort_by_key(|(pattern, _)| (pattern.is_group, Reverse(pattern.name.len())));
        Self { default, rules }
    }

    /// What is wanted of `reference`, and the name of the rule that says so.
    pub(super) fn requirement(&self, reference: &Reference) -> (String, &Requirement) {
        let name = name(reference);
        let rule = self.rules.iter().find(|(pattern, _)| pattern.covers(&name));
        match rule {
            Some((pattern, requirement)) => (format!("rule {:?}", pattern.shown()), requirement),
            None => ("default".to_owned(), &self.default),
        }
    }
}

impl SignedBy {
    /// Whether a statement that names `identity` speaks of the image asked for as `reference`.
    pub(super) fn check_identity(
        &self,
        reference: &Reference,
        identity: Option<&str>,
    ) -> Result<(), Refusal> {
        let wanted = match &self.signer {
            Signer::Anything => return Ok(()),
            Signer::SameRepository => name(reference),
            Signer::Repository(name) => name.clone(),
        };
        let Some(identity) = identity else {
            return Err(Refusal::NoIdentity { wanted });
        };
        let other = || Refusal::Identity {
            wanted: wanted.clone(),
            found: identity.to_owned(),
        };
        let parsed = parse_reference(identity).map_err(|_| other())?;
        // A name without a tag is read as `latest`, which it does not say.
        let names_tag = identity
            .rsplit('/')
            .next()
            .is_some_and(|last| last.contains(':'));
        let same_tag = match (names_tag, reference.digest(), reference.tag()) {
            (false, _, _) | (true, Some(_), None) => true,
            (true, _, asked) => parsed.tag() == asked,
        };
        if name(&parsed) == wanted && same_tag {
            return Ok(());
        }
        Err(other())
    }
}

impl ImagePattern {
    /// Reads `host/repository`, `host/*`, `host/path/*` or `*`, with docker's short names.
    ///
    /// # Errors
    /// [`InvalidPattern`] for anything else, tags and digests included.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = || InvalidPattern {
            text: text.to_owned(),
        };
        if text == "*" {
            return Ok(Self {
                name: String::new(),
                is_group: true,
            });
        }
        let (probe, is_group) = match text.strip_suffix("/*") {
            // What stands below it shows whether it is a host.
            Some(group) => (format!("{group}/below"), true),
            None => (text.to_owned(), false),
        };
        let reference = parse_reference(&probe).map_err(|_| invalid())?;
        let last = probe.rsplit('/').next().unwrap_or_default();
        if last.contains(':') || reference.digest().is_some() {
            return Err(invalid());
        }
        let name = name(&reference);
        let name = match is_group {
            true => name.trim_end_matches("below").to_owned(),
            false => name,
        };
        Ok(Self { name, is_group })
    }

    fn covers(&self, name: &str) -> bool {
        match self.is_group {
            true => name.starts_with(&self.name),
            false => name == self.name,
        }
    }

    /// Whether it stands for more than one repository.
    pub fn is_group(&self) -> bool {
        self.is_group
    }

    /// As it is written in a policy.
    pub fn shown(&self) -> String {
        match self.is_group {
            true => format!("{}*", self.name),
            false => self.name.clone(),
        }
    }
}

/// `host/repository`.
pub(super) fn name(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}
