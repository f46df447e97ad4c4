//! What a later agent must know of an attachment: one JSON file each on tmpfs.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Attachment, EngineInUse, Ipv4Subnet};
use crate::{ContainerId, ExtraHost};

const SUFFIX: &str = ".json";
/// What a record is called until it is whole.
const UNFINISHED: &str = ".new";

/// An attachment and what is needed to keep its names and ports up to date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) attachment: Attachment,
    /// The engine its ports were published by.
    pub(crate) engine: EngineInUse,
    /// The bridge's, where the container is on it: to make it again should it be lost.
    pub(crate) subnet: Option<Ipv4Subnet>,
    pub(crate) hosts_path: Option<PathBuf>,
    pub(crate) extra_hosts: Vec<ExtraHost>,
}

/// Writes `value` as JSON at `path`, all or nothing. Not synced: the records describe
/// kernel state, and neither survives a reboot.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let temporary = path.with_file_name(UNFINISHED);
    fs::write(&temporary, serde_json::to_vec(value)?)?;
    fs::rename(&temporary, path)
}

/// Reads what [`write`] wrote; `None` if there is no file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a file; no error if there is none.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes what an agent that was killed within [`write`] left in `dir`.
pub(crate) fn sweep(dir: &Path) -> io::Result<()> {
    remove(&dir.join(UNFINISHED))
}

/// File of a record.
pub(crate) fn path(dir: &Path, id: &ContainerId) -> PathBuf {
    dir.join(format!("{id}{SUFFIX}"))
}

/// The containers that have a file in `dir`, with or without the suffix of a record.
pub(crate) fn ids(dir: &Path, suffixed: bool) -> io::Result<Vec<ContainerId>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let name = name.to_str().unwrap_or_default();
        let stem = if suffixed {
            name.strip_suffix(SUFFIX)
        } else {
            Some(name)
        };
        ids.extend(stem.and_then(|stem| ContainerId::try_from(stem).ok()));
    }
    Ok(ids)
}
