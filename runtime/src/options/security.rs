//! Confinement beside capabilities and devices.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Confinement beside capabilities and devices; the default is Docker's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Security {
    /// No program gives its user more than its caller had, set-user-id or not.
    pub no_new_privileges: bool,
    /// System call filter.
    pub seccomp: SeccompChoice,
    /// `AppArmor` profile to run under, which must be loaded; none where absent.
    pub apparmor: Option<String>,
    /// Paths that look empty instead of Docker's; relevant to privileged containers too.
    pub masked_paths: Option<Vec<PathBuf>>,
    /// Paths that are read-only instead of Docker's; relevant to privileged containers too.
    pub readonly_paths: Option<Vec<PathBuf>>,
}

/// Which system call filter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SeccompChoice {
    /// Docker's default profile, none for a privileged container.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// This profile, in Docker's or in OCI's form, as JSON; for a privileged container too.
    Profile(String),
}
