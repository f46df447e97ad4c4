//! Volumes and where they are.

use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

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
    /// Is filled with what the image has at the target while it is new.
    pub copy: bool,
    /// The part of it that is mounted; all where absent.
    pub part: Option<VolumePart>,
}

/// A part of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumePart {
    /// Relative path below the volume; empty for all of it.
    pub below: PathBuf,
    /// Where on the host it is to be mounted before the container is made.
    pub mounted_on: PathBuf,
}

pub(super) fn volume(
    request: &SpecRequest<'_>,
    name: Option<&str>,
    target: PathBuf,
) -> Result<VolumeMount, SpecError> {
    let chosen = match name {
        None => anonymous_volume(request.id, &target),
        Some(name) if ContainerId::try_from(name).is_ok() => name.to_owned(),
        Some(name) => {
            return Err(SpecError::VolumeName {
                name: name.to_owned(),
                target,
            });
        }
    };
    // In a user namespace it is mounted beside the container's files first, with its ids mapped.
    let whole = request.users.map(|_| part(request, Path::new(""), &target));
    Ok(VolumeMount {
        path: request.paths.volumes.join(&chosen).join("_data"),
        name: chosen,
        target,
        read_only: false,
        anonymous: name.is_none(),
        copy: true,
        part: whole.transpose()?,
    })
}

/// The part of a volume that appears at `target`.
pub(super) fn part(
    request: &SpecRequest<'_>,
    below: &Path,
    target: &Path,
) -> Result<VolumePart, SpecError> {
    let leads_out = |part: Component<'_>| !matches!(part, Component::Normal(_) | Component::CurDir);
    if below.components().any(leads_out) {
        return Err(SpecError::Subpath {
            subpath: below.to_owned(),
            target: target.to_owned(),
        });
    }
    let name = format!("{:016x}", hash(target));
    Ok(VolumePart {
        below: below.to_owned(),
        mounted_on: request.paths.volume_parts.join(name),
    })
}

/// Name of the anonymous volume that a container has at `target`.
pub(crate) fn anonymous_volume(id: &ContainerId, target: &Path) -> String {
    format!("{id}-{:016x}", hash(target))
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
