//! What a container sees beside its own files.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::ContainerId;

/// Something mounted into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Absolute path inside.
    pub target: PathBuf,
    /// Mounted read-only.
    pub read_only: bool,
}

/// What a [`Mount`] shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MountSource {
    /// A host path.
    #[serde(rename_all = "camelCase")]
    Bind {
        /// Absolute path on the host.
        path: PathBuf,
        /// Create it as a directory where it is missing (Docker's `Binds`) or fail
        /// (Docker's `Mounts`).
        create_missing: bool,
        /// Mount propagation; private where absent.
        propagation: Option<Propagation>,
        /// Without what is mounted below the path.
        #[serde(default, skip_serializing_if = "is_false")]
        non_recursive: bool,
        /// Read-only also for what is mounted below the path; the kernel must be able to.
        #[serde(default, skip_serializing_if = "is_false")]
        force_read_only: bool,
    },
    /// A named volume, or an anonymous one of this container where the name is absent.
    #[serde(rename_all = "camelCase")]
    Volume {
        /// Name, valid as a [`crate::ContainerId`].
        name: Option<String>,
        /// Leave a new volume empty instead of filling it from the image.
        #[serde(default, skip_serializing_if = "is_false")]
        no_copy: bool,
        /// Relative path below the volume that is mounted instead of all of it; it must be
        /// there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subpath: Option<PathBuf>,
    },
    /// Memory.
    #[serde(rename_all = "camelCase")]
    Tmpfs {
        /// Size in bytes; the kernel's default (half of memory) where absent.
        size: Option<u64>,
        /// Mode of its root; 1777 where absent.
        mode: Option<u32>,
        /// Further mount options as `mount -o` reads them.
        options: Vec<String>,
    },
}

impl MountSource {
    /// A volume as Docker mounts it by default.
    #[must_use]
    pub fn volume(name: Option<String>) -> Self {
        Self::Volume {
            name,
            no_copy: false,
            subpath: None,
        }
    }
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// Mount propagation of a bind mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub enum Propagation {
    Private,
    Rprivate,
    Shared,
    Rshared,
    Slave,
    Rslave,
}

/// Another container, whose bind mounts and volumes are mounted too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumesFrom {
    /// The container.
    pub container: ContainerId,
    /// All read-only; as the other has them where absent.
    pub read_only: Option<bool>,
}
