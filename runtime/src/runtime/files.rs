//! Files into and out of a container, running or not.

use std::path::PathBuf;

use super::{LinuxRuntime, RuntimeError};
use crate::container::CreateRequest;
use crate::copy::StoppedRoot;
use crate::exec::{Exec, pipes};
use crate::shim::CONTRACT;
use crate::shim::copy::{CopyAction, CopyJob, CopyRoot};
use crate::{ContainerId, MountSource};

impl LinuxRuntime {
    /// Copies files of the container as `action` says: a process of ours, whose streams are the
    /// archive, and which is ended by dropping it. Blocks until it has begun. A container that
    /// does not run cannot start meanwhile; its bind mounts and volumes are there, its memory
    /// file systems are not.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`], [`RuntimeError::Exec`].
    pub fn copy(&self, id: &ContainerId, action: CopyAction) -> Result<Exec, RuntimeError> {
        let container = self.load(id)?;
        let paths = self.paths(id);
        let stdin = matches!(action, CopyAction::Unpack { .. });
        let root = match self.running(id) {
            Ok(task) => CopyRoot::Running(task.init),
            Err(RuntimeError::NotRunning { .. }) => CopyRoot::Stopped(self.stopped(&container)?),
            Err(error) => return Err(error),
        };
        let job = CopyJob {
            contract: CONTRACT,
            root,
            action,
        };
        let bundle = std::fs::create_dir_all(&paths.bundle);
        bundle.map_err(super::control::control("copy files of", id))?;
        Exec::launch(&self.launcher, "copy", &paths, &job, pipes(stdin)).map_err(|source| {
            RuntimeError::Exec {
                id: id.clone(),
                source,
            }
        })
    }

    fn stopped(&self, container: &CreateRequest) -> Result<StoppedRoot, RuntimeError> {
        let volumes = self.config.state_dir.join("volumes");
        let mounts = self
            .mounts(container)
            .map_err(|source| RuntimeError::Prepare {
                id: container.id.clone(),
                source,
            })?;
        let shown = mounts.into_iter().filter_map(|mount| {
            let source = match mount.source {
                MountSource::Bind { path, .. } => path,
                MountSource::Volume { name, subpath, .. } => {
                    let data = volumes.join(name?).join("_data");
                    // A part is what it was found to be at the start: only whole ones here.
                    match subpath {
                        None => data,
                        Some(_) => return None,
                    }
                }
                MountSource::Tmpfs { .. } => return None,
            };
            Some((source, mount.target, mount.read_only))
        });
        let mut mounts: Vec<(PathBuf, PathBuf, bool)> = shown.collect();
        mounts.sort_by_cached_key(|(_, target, _)| target.components().count());
        Ok(StoppedRoot {
            home: self.paths(&container.id).home,
            layers: container.image.layers.clone(),
            read_only: container.options.readonly_rootfs,
            mounts,
        })
    }
}
