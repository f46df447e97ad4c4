//! What the hub keeps of a device or module.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kobune_iothub_auth::{InvalidKey, SharedAccessKey};
use serde::{Deserialize, Serialize};

use crate::configuration::{Settled, Standing};
use crate::identity::Identity;
use crate::twin::{Object, Section};

/// A device or module with its twin, as it lies in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// Another one for each life of the same id.
    pub(crate) generation: u64,
    /// Counts the changes of the identity; what `etag` is made of.
    pub(crate) revision: u64,
    pub(crate) enabled: bool,
    pub(crate) status_reason: Option<String>,
    /// RFC 3339, as all times here.
    pub(crate) status_updated: Option<String>,
    pub(crate) authentication: Authentication,
    pub(crate) managed_by: Option<String>,
    pub(crate) iot_edge: bool,
    /// Filters that outlast a connection, as clients that ask for no clean session rely on.
    #[serde(default)]
    pub(crate) subscriptions: BTreeSet<String>,
    /// Automatic deployments that the device matches; of modules only the agent's has them.
    #[serde(default)]
    pub(crate) configurations: BTreeMap<String, Standing>,
    /// Digest of what automatic deployments made of the device's modules, with a `!` before it
    /// if that could not be applied.
    #[serde(default)]
    pub(crate) deployed: Option<String>,
    /// What configurations of devices or of modules set in the twin.
    #[serde(default, skip_serializing_if = "Settled::is_nothing")]
    pub(crate) settled: Settled,
    /// Counts the changes of the twin by the service.
    pub(crate) twin_revision: u64,
    pub(crate) tags: Object,
    pub(crate) desired: Section,
    pub(crate) reported: Section,
}

/// How a device or module proves who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub(crate) enum Authentication {
    /// Not at all, until it gets a key: what a new `$edgeAgent` has.
    None,
    /// With a token signed by one of two keys.
    Sas { primary: Key, secondary: Key },
    /// With a TLS certificate of one of these thumbprints.
    SelfSigned {
        primary: Option<Thumbprint>,
        secondary: Option<Thumbprint>,
    },
}

/// A symmetric key that can be stored. Cannot be printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Key(pub(crate) SharedAccessKey);

/// SHA-1 or SHA-256 of a certificate's DER, as upper-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Thumbprint(String);

/// The text is no thumbprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a thumbprint has 40 or 64 hex digits")]
pub(crate) struct InvalidThumbprint;

impl Record {
    /// A new identity with an empty twin.
    pub(crate) fn new(generation: u64, authentication: Authentication, now: &str) -> Self {
        Self {
            generation,
            revision: 1,
            enabled: true,
            status_reason: None,
            status_updated: None,
            authentication,
            managed_by: None,
            iot_edge: false,
            subscriptions: BTreeSet::new(),
            configurations: BTreeMap::new(),
            deployed: None,
            settled: Settled::default(),
            twin_revision: 1,
            tags: Object::new(),
            desired: Section::new(now),
            reported: Section::new(now),
        }
    }
}

impl Authentication {
    /// The keys of token authentication, primary first.
    pub(crate) fn keys(&self) -> Vec<&SharedAccessKey> {
        match self {
            Self::Sas { primary, secondary } => vec![&primary.0, &secondary.0],
            Self::None | Self::SelfSigned { .. } => Vec::new(),
        }
    }

    /// What `after` has otherwise, in words that name no key.
    pub(crate) fn difference(&self, after: &Self) -> &'static str {
        match (self, after) {
            (
                Self::Sas { primary, secondary },
                Self::Sas {
                    primary: first,
                    secondary: second,
                },
            ) => match (primary != first, secondary != second) {
                (true, false) => "primary key",
                (false, true) => "secondary key",
                _ => "both keys",
            },
            (_, Self::Sas { .. }) => "keys now",
            (_, Self::SelfSigned { .. }) => "certificate",
            (_, Self::None) => "nothing any more",
        }
    }

    /// Whether a certificate of one of `thumbprints` will do.
    pub(crate) fn accepts(&self, thumbprints: &[Thumbprint]) -> bool {
        let Self::SelfSigned { primary, secondary } = self else {
            return false;
        };
        let known = [primary, secondary];
        known
            .into_iter()
            .flatten()
            .any(|known| thumbprints.contains(known))
    }
}

impl Thumbprint {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// SHA-256 and SHA-1 of a certificate: registered thumbprints are of either kind.
    pub(crate) fn of_certificate(der: &[u8]) -> Vec<Self> {
        let algorithms = [
            &ring::digest::SHA256,
            &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
        ];
        let hex = |digest: ring::digest::Digest| {
            let bytes = digest.as_ref().iter();
            bytes.map(|byte| format!("{byte:02X}")).collect()
        };
        algorithms
            .map(|algorithm| Self(hex(ring::digest::digest(algorithm, der))))
            .to_vec()
    }
}

impl TryFrom<&str> for Thumbprint {
    type Error = InvalidThumbprint;

    /// Takes colons and either case, as tools print them.
    fn try_from(text: &str) -> Result<Self, InvalidThumbprint> {
        let hex = text.replace(':', "").to_ascii_uppercase();
        if matches!(hex.len(), 40 | 64) && hex.chars().all(|c| c.is_ascii_hexdigit()) {
            return Ok(Self(hex));
        }
        Err(InvalidThumbprint)
    }
}

impl TryFrom<String> for Key {
    type Error = InvalidKey;

    fn try_from(text: String) -> Result<Self, InvalidKey> {
        SharedAccessKey::from_base64(&text).map(Self)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0.to_base64()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// A record with the name it is kept under.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) identity: Identity,
    pub(crate) record: Record,
}
