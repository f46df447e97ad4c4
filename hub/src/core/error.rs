//! Why the hub refuses.

use kobune_iothub_auth::SasTokenError;

use crate::identity::{Id, Identity};
use crate::record::InvalidThumbprint;
use crate::store::StoreError;
use crate::twin::Violation;

/// Why an operation is refused or failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HubError {
    #[error("{0} is not registered")]
    NotFound(Identity),
    #[error("{0} is registered already")]
    Exists(Identity),
    #[error("{0} is not as the etag says")]
    EtagMismatch(Identity),
    #[error("device {0} has 50 modules, and that is the limit")]
    TooManyModules(Id),
    #[error("{field} is not valid: {reason}")]
    Invalid { field: String, reason: String },
    #[error("{field} breaks a limit")]
    Limit {
        field: String,
        #[source]
        source: Violation,
    },
    #[error("{what} has {size} bytes where {limit} are the limit")]
    TooLarge {
        what: &'static str,
        size: usize,
        limit: usize,
    },
    #[error("there is no configuration {0:?}")]
    NoConfiguration(String),
    #[error("there is a configuration {0:?} already")]
    ConfigurationExists(String),
    #[error("the configuration {0:?} is not as the etag says")]
    ConfigurationEtag(String),
    #[error("the configuration is not valid")]
    Configuration(#[from] crate::configuration::Invalid),
    #[error("{0} is not connected")]
    NotOnline(Identity),
    #[error("the store failed")]
    Store(#[from] StoreError),
    #[error("no random numbers are to be had")]
    Random,
    #[error("the hub is stopping")]
    Stopped,
}

/// Why someone is not let in. For the log: outside they all look alike.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denied {
    #[error("this hub is not called {0:?}")]
    Host(String),
    #[error("there is neither token nor certificate")]
    NoProof,
    #[error("{0} is not registered")]
    Unknown(Identity),
    #[error("{0} is disabled")]
    Disabled(Id),
    #[error("the token is refused")]
    Token(#[source] SasTokenError),
    #[error("the token is for {0:?}")]
    Resource(String),
    #[error("there is no policy {0:?} that allows this")]
    Policy(String),
    #[error("the certificate is not that of {0}")]
    Certificate(Identity),
    #[error("the store failed")]
    Store(#[source] Box<HubError>),
}

/// How the wire says why an operation is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// HTTP status, and that of an answer about a twin.
    pub(crate) status: u16,
    /// IoT Hub's own number, which starts with the status.
    pub(crate) code: u32,
    /// IoT Hub's own name for it.
    pub(crate) name: &'static str,
}

impl Denied {
    /// In one line, for the event log.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Token(error) => error.to_string(),
            other => other.to_string(),
        }
    }
}

impl HubError {
    /// How the wire says it.
    pub(crate) fn refusal(&self) -> Refusal {
        let (status, code, name) = match self {
            Self::NotFound(identity) if identity.module.is_some() => {
                (404, 404_010, "ModuleNotFound")
            }
            Self::NotFound(_) => (404, 404_001, "DeviceNotFound"),
            Self::Exists(identity) if identity.module.is_some() => {
                (409, 409_301, "ModuleAlreadyExistsOnDevice")
            }
            Self::Exists(_) => (409, 409_001, "DeviceAlreadyExists"),
            Self::NoConfiguration(_) => (404, 404_011, "ConfigurationNotFound"),
            Self::ConfigurationExists(_) => (409, 409_009, "ConfigurationAlreadyExists"),
            Self::EtagMismatch(_) | Self::ConfigurationEtag(_) => {
                (412, 412_001, "PreconditionFailed")
            }
            Self::TooManyModules(_) => (413, 413_003, "TooManyModulesOnDevice"),
            Self::Invalid { .. } | Self::Limit { .. } | Self::Configuration(_) => {
                (400, 400_004, "ArgumentInvalid")
            }
            Self::TooLarge { .. } => (413, 413_001, "MessageTooLarge"),
            Self::NotOnline(_) => (404, 404_103, "DeviceNotOnline"),
            Self::Store(_) | Self::Random => (500, 500_001, "ServerError"),
            Self::Stopped => (503, 503_001, "ServiceUnavailable"),
        };
        Refusal { status, code, name }
    }

    pub(crate) fn invalid(field: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Invalid {
            field: field.into(),
            reason: reason.to_string(),
        }
    }
}

impl From<InvalidThumbprint> for HubError {
    fn from(error: InvalidThumbprint) -> Self {
        Self::invalid("authentication.x509Thumbprint", error)
    }
}
