//! Volumes: made, filled from the image while they are new, and parts of them.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::{PrepareError, path_error};
use crate::rootfs;
use crate::spec::{VolumeMount, VolumePart};
use crate::userns::Users;

/// Makes the volume, and what of it the container sees.
///
/// A volume without content gets that of the image's directory at the target, with owners
/// and modes, as with Docker. Content and name appear at once: what a crash interrupts is
/// done anew.
pub(super) fn provide(
    volume: &VolumeMount,
    rootfs: &Path,
    users: Option<&Users>,
) -> Result<(), PrepareError> {
    let home = volume.path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(home).map_err(path_error("create", home))?;
    // Modules that start side by side may share it.
    let lock = File::open(home).map_err(path_error("open", home))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, errno)| path_error("lock", home)(errno.into()))?;
    if volume.copy && is_empty(&volume.path) {
        fill(volume, home, rootfs, users)?;
    }
    fs::create_dir_all(&volume.path).map_err(path_error("create", &volume.path))?;
    match &volume.part {
        Some(part) => mount_part(volume, part, users),
        None => Ok(()),
    }
}

/// What is to be the content of a new volume.
const STAGING: &str = "_data.new";

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

fn fill(
    volume: &VolumeMount,
    home: &Path,
    rootfs: &Path,
    users: Option<&Users>,
) -> Result<(), PrepareError> {
    let found = rootfs::open_dir_beneath(rootfs, &volume.target).map_err(PrepareError::Rootfs)?;
    let Some(source) = found else {
        return Ok(());
    };
    let source = PathBuf::from(format!("/proc/self/fd/{}/.", source.as_raw_fd()));
    let staging = home.join(STAGING);
    let failed = |error| path_error("fill", &volume.path)(error);
    match fs::remove_dir_all(&staging) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    match users {
        None => rootfs::lay(&source, &staging),
        // Owners are seen as the host has them, and written as the container does.
        Some(users) => {
            let view = rootfs::mapped_view(home, users).map_err(PrepareError::Rootfs)?;
            let staging = PathBuf::from(format!("/proc/self/fd/{}", view.as_raw_fd()));
            let staging = staging.join(STAGING);
            users.as_root(|| rootfs::lay(&source, &staging))
        }
    }
    .map_err(failed)?;
    let dir = File::open(&staging).map_err(failed)?;
    rustix::fs::syncfs(&dir).map_err(|errno| failed(errno.into()))?;
    match fs::remove_dir(&volume.path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    fs::rename(&staging, &volume.path).map_err(failed)?;
    File::open(home)
        .and_then(|home| home.sync_all())
        .map_err(failed)
}

/// Mounts a part of a volume beside the container's other files. Modules that run may
/// exchange anything in the volume, so the part is opened first, never out of the volume,
/// and what was opened is what is mounted.
fn mount_part(
    volume: &VolumeMount,
    part: &VolumePart,
    users: Option<&Users>,
) -> Result<(), PrepareError> {
    let VolumePart { below, mounted_on } = part;
    let part = rootfs::open_beneath(&volume.path, below).map_err(PrepareError::Rootfs)?;
    let path = volume.path.join(below);
    let part = part.ok_or_else(|| {
        path_error("mount the part of a volume", &path)(io::ErrorKind::NotFound.into())
    })?;
    rootfs::bind(&part, mounted_on, users).map_err(PrepareError::Rootfs)
}
