//! Variables as programs are given them. The one part that looks at the world.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::env_file::{self, EnvFileError};

/// The environment of this process, and behind it the variables of files. Their values cannot
/// be printed.
#[derive(Default)]
pub struct Variables {
    of_files: BTreeMap<String, String>,
}

/// Why a file of variables cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VariablesError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is none.
    #[error("{} is no file of variables", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: EnvFileError,
    },
}

impl Variables {
    /// With those of the file at `path`, which win over those of files before.
    ///
    /// # Errors
    /// [`VariablesError`].
    pub fn with_file(mut self, path: &Path) -> Result<Self, VariablesError> {
        let text = std::fs::read_to_string(path).map_err(|source| VariablesError::Read {
            path: path.to_owned(),
            source,
        })?;
        let found = env_file::parse(&text).map_err(|source| VariablesError::Malformed {
            path: path.to_owned(),
            source,
        })?;
        self.of_files.extend(found);
        Ok(self)
    }

    /// The same for each of `paths`, the last of which wins.
    ///
    /// # Errors
    /// [`VariablesError`].
    pub fn with_files(self, paths: &[PathBuf]) -> Result<Self, VariablesError> {
        paths.iter().try_fold(self, |all, path| all.with_file(path))
    }

    /// With those of the file at `path` if there is one.
    ///
    /// # Errors
    /// [`VariablesError`], unless the file is not there.
    pub fn with_file_if_any(self, path: &Path) -> Result<Self, VariablesError> {
        match path.try_exists() {
            Ok(false) => Ok(self),
            _ => self.with_file(path),
        }
    }

    /// The value of a variable. The environment wins over files.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        std::env::var(name)
            .ok()
            .or_else(|| self.of_files.get(name).cloned())
    }
}

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.of_files.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_file_wins_and_the_environment_over_both() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let one = file("one", "KOBUNE_TEST_A=1\nKOBUNE_TEST_B=1\nPATH=no\n");
        let two = file("two", "KOBUNE_TEST_B=2\n");
        let variables = Variables::default().with_files(&[one, two]).unwrap();
        let variables = variables
            .with_file_if_any(&dir.path().join("three"))
            .unwrap();
        assert_eq!(variables.get("KOBUNE_TEST_A").as_deref(), Some("1"));
        assert_eq!(variables.get("KOBUNE_TEST_B").as_deref(), Some("2"));
        assert_ne!(variables.get("PATH").as_deref(), Some("no"));
        assert_eq!(variables.get("KOBUNE_TEST_C"), None);
        let error = Variables::default().with_file(&dir.path().join("three"));
        assert!(error.unwrap_err().to_string().contains("three"));
        assert!(!format!("{variables:?}").contains("\"2\""));
    }
}
