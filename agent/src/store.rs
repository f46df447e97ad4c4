//! The agent's own state files: whole or absent, whatever happens to the power.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of the files' content.
const SCHEMA: u32 = 1;

/// A state file that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub(crate) struct StoreError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    schema: u32,
    #[serde(flatten)]
    content: T,
}

/// Replaces `path` by `content` as JSON, readable by the owner alone (it may hold
/// registry passwords): temporary file, fsync, rename, fsync of the directory.
pub(crate) fn write(path: &Path, content: &impl Serialize) -> Result<(), StoreError> {
    let failed = |action| {
        move |source| StoreError {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let bytes = serde_json::to_vec(&Versioned {
        schema: SCHEMA,
        content,
    })
    .map_err(|error| failed("encode")(error.into()))?;
    replace(path, &bytes).map_err(failed("write"))
}

/// Replaces `path` by `bytes`, whole or not at all, for the owner alone; makes its directory.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    let temporary = path.with_extension("tmp");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(parent)?.sync_all()
}

/// The content of `path`, `None` where there is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    let failed = |action| {
        move |source| StoreError {
            action,
            path: path.to_owned(),
            source,
        }
    };
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read")(error)),
    };
    let versioned: Versioned<T> =
        serde_json::from_slice(&bytes).map_err(|error| failed("understand")(error.into()))?;
    Ok(Some(versioned.content))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    type Content = BTreeMap<String, u32>;

    #[test]
    fn content_comes_back_and_is_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/history.json");
        assert_eq!(read::<Content>(&path).unwrap(), None);
        let content = Content::from([("led".to_owned(), 3)]);
        write(&path, &content).unwrap();
        assert_eq!(read::<Content>(&path).unwrap(), Some(content));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_torn_file_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.json");
        fs::write(&path, "{\"schema\":1,\"led\":").unwrap();
        let error = read::<Content>(&path).unwrap_err();
        assert!(error.to_string().contains("history.json"), "{error}");
    }
}
