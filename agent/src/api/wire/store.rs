//! What can be done with the images on disk.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One thing to do: body of `POST /images`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "do", deny_unknown_fields)]
pub enum StoreRequest {
    /// Forget images, and remove what only they had.
    Remove {
        /// References.
        images: Vec<String>,
        /// Also those that modules use, which keep their files.
        #[serde(default)]
        force: bool,
    },
    /// Remove every image that nothing needs.
    Prune {
        /// Also those that modules used before the ones they have now.
        #[serde(default)]
        all: bool,
    },
    /// Hold everything against what it was.
    Verify {
        /// Fetch anew what is damaged, and restart the modules that use it.
        #[serde(default)]
        repair: bool,
    },
    /// Take every image of a file: an OCI layout, what `docker save` wrote, or a bundle.
    Load {
        /// The file or directory, absolute: the daemon reads it.
        path: PathBuf,
    },
    /// Write images to a file that others can load.
    Save {
        /// References.
        images: Vec<String>,
        /// The file or directory, absolute: the daemon writes it.
        path: PathBuf,
        /// Whether it is a directory, an OCI layout, instead of one file.
        #[serde(default)]
        directory: bool,
    },
}

/// How it went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StoreReport {
    /// Images that were removed, repaired, loaded or saved, the latter by their names in the file.
    pub images: Vec<String>,
    /// Layers that were removed, or looked at.
    pub layers: usize,
    /// Bytes that the disk has got back.
    pub freed: u64,
    /// Files that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What is damaged, and still is.
    pub damage: Vec<String>,
    /// Why something of it could not be repaired.
    pub problems: Vec<String>,
    /// Layers that cannot be checked: they came before the agent kept lists of files.
    pub unlisted: Vec<String>,
    /// Modules that are restarted to use what was repaired.
    pub restarted: Vec<String>,
    /// Ids of images that were saved, in the order of `images`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// The deployment that a bundle carries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployment: Option<String>,
}
