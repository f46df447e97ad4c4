//! Volumes and where they are.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::id::ContainerId;
use crate::spec::{SpecError, SpecRequest};

/// A volume that a container mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMount {
    /// Its name: the given one, or `<container>-<hash of the target>`.
    pub name: String,
    /// Its data on the host: `<volumes>/<name>/_data`.
    pub path: PathBuf,
    /// Where it appears inside; also what of the image fills it when it is new.
    pub target: PathBuf,
    /// Mounted read-only.
    pub read_only: bool,
    /// Belongs to this container alone and goes with it.
    pub anonymous: bool,
}

pub(super) fn volume(
    request: &SpecRequest<'_>,
    name: Option<&str>,
    target: PathBuf,
    read_only: bool,
) -> Result<VolumeMount, SpecError> {
    let chosen = match name {
        None => format!("{}-{:016x}", request.id, hash(&target)),
        Some(name) if ContainerId::try_from(name).is_ok() => name.to_owned(),
        Some(name) => {
            return Err(SpecError::VolumeName {
                name: name.to_owned(),
                target,
            });
        }
    };
    Ok(VolumeMount {
        path: request.paths.volumes.join(&chosen).join("_data"),
        name: chosen,
        target,
        read_only,
        anonymous: name.is_none(),
    })
}

/// FNV-1a: names on disk must be the same in every build, which the standard library's
/// hasher does not promise.
fn hash(path: &Path) -> u64 {
    path.as_os_str()
        .as_bytes()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}
