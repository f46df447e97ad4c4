//! Names of containers.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Longest id: every path and socket below the run directory stays far under the 108
/// bytes of `sun_path`.
const MAX_LEN: usize = 64;

/// A container's name: `[A-Za-z0-9][A-Za-z0-9_.-]*`, at most 64 bytes (Docker's rule for
/// names, with a bound). Safe as a file name, a cgroup name and a host name label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// Text that is no container id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid container name {0:?}: 1 to 64 of letters, digits, '_', '.', '-', and a letter or digit first"
)]
pub struct InvalidContainerId(pub String);

impl ContainerId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for ContainerId {
    type Error = InvalidContainerId;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let valid = text.len() <= MAX_LEN
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidContainerId(text.to_owned()))
        }
    }
}

impl TryFrom<String> for ContainerId {
    type Error = InvalidContainerId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::try_from(text.as_str())
    }
}

impl From<ContainerId> for String {
    fn from(id: ContainerId) -> Self {
        id.0
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<Path> for ContainerId {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_file_names() {
        for good in ["led", "led-acr", "a.b_c-1", "0"] {
            assert_eq!(ContainerId::try_from(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "..",
            "-x",
            "a/b",
            "a b",
            "é",
            "a\0b",
            &"x".repeat(65),
        ] {
            assert!(ContainerId::try_from(bad).is_err(), "{bad:?}");
        }
    }
}
