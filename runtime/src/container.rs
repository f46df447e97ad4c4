//! A created container: its record on disk and where its parts live.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use crate::record::{self, RecordError};
use crate::{ContainerId, ContainerOptions, IdRange};

/// Version of [`CreateRequest`] on disk.
const SCHEMA: u32 = 1;

/// What a container is created from; kept on disk until the container is removed, so that
/// it can be started again without its deployment, registry or hub.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateRequest {
    /// The container's name.
    pub id: ContainerId,
    /// The unpacked image.
    pub image: Image,
    /// What was asked for beside the image.
    pub options: ContainerOptions,
    /// The caller's own notes, kept and returned untouched.
    pub annotations: BTreeMap<String, String>,
}

/// An unpacked image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Under which name it was asked for.
    pub reference: String,
    /// Digest of its configuration, Docker's image id.
    pub id: String,
    /// Its configuration.
    pub config: ImageConfiguration,
    /// Its layers as directories, lowest first.
    pub layers: Vec<PathBuf>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<T> {
    schema: u32,
    container: T,
    /// Ids of the host that it has in a user namespace; absent where it was in none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ids: Option<IdRange>,
}

/// What of a record tells its ids.
#[derive(Deserialize)]
struct Ids {
    #[serde(default)]
    ids: Option<IdRange>,
}

/// Directories and files of one container.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// Kept over reboots: record, writable layer, log.
    pub(crate) home: PathBuf,
    /// Gone with a reboot: bundle and shim files.
    pub(crate) bundle: PathBuf,
}

impl Paths {
    pub(crate) fn record(&self) -> PathBuf {
        self.home.join("container.json")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.bundle.join("rootfs")
    }

    /// A file of the bundle that is mounted into the container: hosts, hostname, resolv.conf.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.bundle.join(name)
    }
}

/// Stores the record: whole or not at all.
pub(crate) fn save(
    path: &Path,
    container: &CreateRequest,
    ids: Option<IdRange>,
) -> Result<(), RecordError> {
    record::write(
        path,
        &Record {
            schema: SCHEMA,
            container,
            ids,
        },
    )
}

/// The ids that the record at `path` says the container has in a user namespace.
pub(crate) fn ids(path: &Path) -> Result<Option<IdRange>, RecordError> {
    let record: Option<Ids> = record::read(path)?;
    Ok(record.and_then(|record| record.ids))
}

/// The record at `path`, `None` where there is none.
pub(crate) fn load(path: &Path) -> Result<Option<CreateRequest>, RecordError> {
    let record: Option<Record<CreateRequest>> = record::read(path)?;
    Ok(record.map(|record| record.container))
}
