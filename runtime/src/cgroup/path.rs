//! Where a container's cgroup is, the same in every hierarchy.

use std::path::{Path, PathBuf};

use crate::ContainerId;

/// Path of a cgroup below the root of each hierarchy: absolute, never the root itself, no
/// `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupPath(String);

/// Text that is no [`CgroupPath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid cgroup path {0:?}: expected /name or more, without '.' and '..'")]
pub struct InvalidCgroupPath(pub String);

impl CgroupPath {
    /// The cgroup of a container below this one.
    #[must_use]
    pub fn join(&self, container: &ContainerId) -> Self {
        Self(format!("{}/{container}", self.0))
    }

    /// As OCI's `cgroupsPath` has it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its directory in the hierarchy mounted there.
    pub(super) fn below(&self, mount_point: &Path) -> PathBuf {
        mount_point.join(self.0.trim_start_matches('/'))
    }
}

impl TryFrom<&str> for CgroupPath {
    type Error = InvalidCgroupPath;

    fn try_from(path: &str) -> Result<Self, Self::Error> {
        let valid = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0');
        match path.strip_prefix('/') {
            Some(names) if names.split('/').all(valid) => Ok(Self(path.to_owned())),
            _ => Err(InvalidCgroupPath(path.to_owned())),
        }
    }
}
