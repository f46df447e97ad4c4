//! Files into and out of a directory tree that somebody else may be changing: archives in the
//! tar format on the one side, a [`Root`] on the other.
//!
//! A root is what a container takes for `/`. Paths and links are resolved within it, by
//! descriptors and one name at a time ([`Root`]), so that nothing that runs in the container
//! can lead a copy out of it. All of this blocks.

mod extensions;
mod pack;
mod place;
mod stopped;
mod unpack;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use pack::pack;
pub use place::Root;
pub use stopped::StoppedRoot;
pub(crate) use stopped::lock;
pub use unpack::{Placement, unpack};

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Other,
}

/// Answer of [`Root::stat`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileStat {
    /// Where it is once links are followed, from the root on.
    pub path: PathBuf,
    /// Nothing where nothing is there; then its directory is.
    pub kind: Option<FileKind>,
}

/// Why files were not copied. What was copied before stays; each file is whole, or as it was.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct CopyError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl CopyError {
    fn new(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// True where there is no such file.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

/// Whether `path` says that it is a directory, links or not: `dir/`, `dir/.`.
#[must_use]
pub fn names_directory(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.ends_with(b"/") || bytes == b"." || names_content(path)
}

/// Whether `path` means what is in a directory and not the directory: `dir/.`.
#[must_use]
pub fn names_content(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes == b"." || bytes.ends_with(b"/.")
}

#[cfg(test)]
mod tests;
