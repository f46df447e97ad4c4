//! The directory of one container's files and mounts, once its task has ended.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::prepare::{PrepareError, path_error};
use crate::container::Paths;
use crate::rootfs::{self, RootfsError};
use crate::shim::{EXIT_FILE, JOB_FILE, LOCK_FILE, MEMORY_FILE, TASK_FILE};

/// Directory of the bundle that holds the container's log, if it is in memory.
pub(super) const RING: &str = "log";
/// Directory of the bundle that holds the container's shared memory, if others may join.
pub(super) const SHM: &str = "shm";
/// Directory of the bundle on which parts of volumes are mounted.
pub(super) const VOLUME_PARTS: &str = "parts";
/// File of the bundle that the container's user namespace is mounted on.
pub(super) const USERNS: &str = "userns";

/// Removes the bundle's files but those that tell of the last task and how it ended. Idempotent.
pub(super) fn remove(paths: &Paths) -> Result<(), PrepareError> {
    let entries = match fs::read_dir(&paths.bundle) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(path_error("read", &paths.bundle)(error)),
    };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        if [TASK_FILE, EXIT_FILE, LOCK_FILE, MEMORY_FILE, RING]
            .iter()
            .any(|kept| name == *kept)
        {
            continue;
        }
        let path = entry.path();
        // A mount that would not go away must not be deleted through: the root filesystem's
        // directory is empty once unmounted, and only then removed.
        let removed = match name.to_str() {
            Some("rootfs" | SHM) => fs::remove_dir(&path),
            Some(VOLUME_PARTS) => remove_parts(&path),
            _ if path.is_dir() => fs::remove_dir_all(&path),
            _ => fs::remove_file(&path),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(path_error("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Unmounts everything in the bundle. Idempotent.
pub(super) fn unmount(paths: &Paths) -> Result<(), RootfsError> {
    rootfs::unmount(&paths.rootfs())?;
    let shm = paths.bundle.join(SHM);
    if shm.is_dir() {
        rootfs::unmount(&shm)?;
    }
    rootfs::unmount(&paths.file(USERNS))?;
    for part in parts(&paths.bundle.join(VOLUME_PARTS)) {
        rootfs::unmount(&part)?;
    }
    Ok(())
}

fn parts(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Removes mount points, which are empty once unmounted.
fn remove_parts(dir: &Path) -> io::Result<()> {
    for part in parts(dir) {
        if part.is_dir() {
            fs::remove_dir(&part)?;
        } else {
            fs::remove_file(&part)?;
        }
    }
    fs::remove_dir(dir)
}

/// Removes what tells of the last task: from here on the container counts as never started.
pub(super) fn forget_last_run(paths: &Paths) -> Result<(), PrepareError> {
    for name in [TASK_FILE, EXIT_FILE, JOB_FILE, MEMORY_FILE] {
        let path = paths.file(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(path_error("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}
