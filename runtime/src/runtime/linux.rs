//! The runtime on Linux: directories, network, cgroups and shims put together.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use super::{
    ContainerState, Containers, ModuleRuntime, RuntimeConfig, RuntimeError, Started, bundle, ring,
};
use crate::cgroup::{CgroupPath, Cgroups};
use crate::container::{self, CreateRequest, Paths};
use crate::copy;
use crate::error_chain::chain;
use crate::network::Network;
use crate::record;
use crate::shim::notify::{NOTIFY_FILE, Notified};
use crate::shim::sealed::Launcher;
use crate::shim::{MEMORY_FILE, PidFd, ShimClient, ShimError};
use crate::{ContainerId, TaskStatus};

/// Docker's grace period between stop signal and SIGKILL.
pub(super) const DEFAULT_STOP_TIMEOUT: u32 = 10;

/// Containers on Linux through libcontainer, each under a monitor of its own.
#[derive(Debug)]
pub struct LinuxRuntime {
    pub(super) config: RuntimeConfig,
    pub(super) launcher: Launcher,
    pub(super) network: Network,
    pub(super) cgroups: Cgroups,
    /// Held while ids are chosen that no other container has.
    pub(super) choosing_ids: Mutex<()>,
}

impl LinuxRuntime {
    /// Opens the runtime's directories. Containers that a previous agent started go on
    /// undisturbed; what dead ones left behind is not touched before [`Self::sweep`].
    ///
    /// # Errors
    /// Where a directory, the cgroups or the network cannot be used.
    pub fn open(config: RuntimeConfig) -> Result<Self, RuntimeError> {
        for dir in [
            config.state_dir.join("modules"),
            config.state_dir.join("volumes"),
            config.run_dir.join("modules"),
        ] {
            fs::create_dir_all(&dir).map_err(|source| RuntimeError::Directory {
                path: dir.clone(),
                source,
            })?;
        }
        let network = Network::open(config.network.clone()).map_err(RuntimeError::Network)?;
        let cgroups = Cgroups::host().map_err(RuntimeError::Cgroups)?;
        cgroups.show_limits(&config.cgroup_parent);
        Ok(Self {
            launcher: Launcher::new(config.shim.clone()),
            config,
            network,
            cgroups,
            choosing_ids: Mutex::default(),
        })
    }

    /// The modules' network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Directory of the container's log.
    #[must_use]
    pub fn log_dir(&self, id: &ContainerId) -> PathBuf {
        self.paths(id).log()
    }

    /// Directory of the container's files that are gone with a reboot.
    #[must_use]
    pub fn bundle(&self, id: &ContainerId) -> PathBuf {
        self.paths(id).bundle
    }

    /// What a running container told of itself; nothing yet where it cannot be read.
    fn notified(&self, id: &ContainerId) -> Notified {
        let told = record::read(&self.paths(id).file(NOTIFY_FILE));
        told.ok().flatten().unwrap_or_default()
    }

    /// Releases everything that dead or half-made containers left behind: to be called
    /// once at the agent's start. Running containers are not touched. Logs that were in memory
    /// are there again as far as they were saved. Failures are collected, and the rest is done.
    pub fn sweep(&self) -> Vec<RuntimeError> {
        let mut failures = Vec::new();
        let (homes, bundles) = (self.names("state"), self.names("run"));
        let mut live = Vec::new();
        for id in homes.union(&bundles) {
            let paths = self.paths(id);
            match self.client(&paths).peek() {
                // A launcher that is still at work is waited for by the next step that
                // concerns its container, not here.
                Ok(None | Some(TaskStatus::Running { .. })) => live.push(id.clone()),
                Ok(Some(_)) => failures.extend(self.release(id).err()),
                Err(source) => failures.push(RuntimeError::Shim {
                    id: id.clone(),
                    source,
                }),
            }
            if !paths.record().exists() && !live.contains(id) {
                // A creation or removal that was cut off.
                failures.extend(self.delete_dirs(id).err());
            } else if homes.contains(id) {
                failures.extend(self.restore_log(id).err());
            }
        }
        if let Err(error) = self.network.sweep(&live) {
            tracing::warn!(%error, "part of the network could not be cleaned up");
        }
        failures
    }

    pub(super) fn names(&self, kind: &str) -> BTreeSet<ContainerId> {
        let dir = if kind == "state" {
            &self.config.state_dir
        } else {
            &self.config.run_dir
        };
        let entries = fs::read_dir(dir.join("modules"))
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        entries
            .filter_map(|entry| ContainerId::try_from(entry.file_name().to_str()?).ok())
            .collect()
    }

    pub(crate) fn paths(&self, id: &ContainerId) -> Paths {
        Paths {
            home: self.config.state_dir.join("modules").join(id),
            bundle: self.config.run_dir.join("modules").join(id),
        }
    }

    pub(super) fn client<'a>(&self, paths: &'a Paths) -> ShimClient<'a> {
        ShimClient::new(&paths.bundle)
    }

    pub(super) fn cgroup(&self, id: &ContainerId) -> CgroupPath {
        self.config.cgroup_parent.join(id)
    }

    pub(crate) fn load(&self, id: &ContainerId) -> Result<CreateRequest, RuntimeError> {
        container::load(&self.paths(id).record())
            .map_err(|source| RuntimeError::Record {
                id: id.clone(),
                source,
            })?
            .ok_or_else(|| RuntimeError::NotFound { id: id.clone() })
    }

    pub(super) fn status(&self, id: &ContainerId) -> Result<TaskStatus, RuntimeError> {
        let paths = self.paths(id);
        self.client(&paths)
            .status()
            .map_err(|source| RuntimeError::Shim {
                id: id.clone(),
                source,
            })
    }

    /// Releases what a container that does not run held. Goes on past failures.
    fn release(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let paths = self.paths(id);
        let mut failures = Vec::new();
        let cgroup = self.cgroup(id);
        self.remember_memory(&paths, &cgroup);
        let removed = self
            .cgroups
            .kill(&cgroup)
            .and_then(|()| self.cgroups.remove(&cgroup));
        failures.extend(removed.err().map(|error| chain(&error)));
        failures.extend(self.network.detach(id).err().map(|error| chain(&error)));
        match bundle::unmount(&paths) {
            Ok(()) => failures.extend(bundle::remove(&paths).err().map(|error| chain(&error))),
            Err(error) => failures.push(chain(&error)),
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(RuntimeError::Release {
                id: id.clone(),
                failures,
            })
        }
    }

    /// Deletes a container's directories, the record first: what a crash leaves of them
    /// has no record and is swept.
    fn delete_dirs(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let paths = self.paths(id);
        for path in [&paths.record(), &paths.home, &paths.bundle] {
            let removed = if path.is_dir() {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(RuntimeError::Directory {
                        path: path.clone(),
                        source: error,
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl ModuleRuntime for LinuxRuntime {
    fn create(&self, request: &CreateRequest) -> Result<(), RuntimeError> {
        let id = &request.id;
        let paths = self.paths(id);
        match self.load(id) {
            Ok(existing) if existing == *request => return Ok(()),
            Ok(_) => return Err(RuntimeError::Exists { id: id.clone() }),
            Err(RuntimeError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        fs::create_dir_all(&paths.home)
            .and_then(|()| ring::provide(&paths, &request.options.log_driver))
            .map_err(|source| RuntimeError::Directory {
                path: paths.log(),
                source,
            })?;
        container::save(&paths.record(), request, None).map_err(|source| RuntimeError::Record {
            id: id.clone(),
            source,
        })
    }

    fn start(&self, id: &ContainerId) -> Result<Started, RuntimeError> {
        let container = self.load(id)?;
        if self.status(id)?.is_running() {
            return Ok(Started::default());
        }
        self.release(id)?;
        let paths = self.paths(id);
        let _lock = copy::lock(&paths.home).map_err(super::control::control("start", id))?;
        bundle::forget_last_run(&paths).map_err(|source| RuntimeError::Prepare {
            id: id.clone(),
            source,
        })?;
        self.launch(&container, &paths).inspect_err(|_| {
            if let Err(error) = self.release(id) {
                tracing::warn!(%error, "after a failed start");
            }
        })
    }

    fn stop(&self, id: &ContainerId, grace: Option<Duration>) -> Result<(), RuntimeError> {
        let container = self.load(id)?;
        let own = Duration::from_secs(
            container
                .options
                .stop_timeout
                .unwrap_or(DEFAULT_STOP_TIMEOUT)
                .into(),
        );
        let paths = self.paths(id);
        // Frozen it could not heed a signal.
        let _ = self.cgroups.thaw(&self.cgroup(id));
        let stopped = self.client(&paths).stop(grace.unwrap_or(own));
        let ended = stopped.map_err(|source| RuntimeError::Shim {
            id: id.clone(),
            source,
        })?;
        if !ended {
            tracing::warn!(container = %id, "the monitor hung and was killed");
        }
        // Also where the monitor did not manage: releasing kills the cgroup.
        self.status(id)?;
        self.release(id)
    }

    fn settle(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        if self.status(id)?.is_running() {
            Ok(())
        } else {
            self.release(id)
        }
    }

    fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        match self.stop(id, None) {
            Ok(()) | Err(RuntimeError::NotFound { .. }) => {}
            // An unreadable record must not make a container immortal.
            Err(RuntimeError::Record { .. }) => {
                let paths = self.paths(id);
                let stopped = self
                    .client(&paths)
                    .stop(Duration::from_secs(DEFAULT_STOP_TIMEOUT.into()));
                stopped.map_err(|source| RuntimeError::Shim {
                    id: id.clone(),
                    source,
                })?;
                self.release(id)?;
            }
            Err(error) => return Err(error),
        }
        self.delete_dirs(id)?;
        if let Err(error) = self.network.remove_unused() {
            tracing::warn!(error = chain(&error), "after the last module of the bridge");
        }
        Ok(())
    }

    fn list(&self) -> Result<Containers, RuntimeError> {
        let mut containers = Containers::default();
        let mut attachments = self.network.attachments();
        for id in self.names("state") {
            let request = match container::load(&self.paths(&id).record()) {
                Ok(Some(request)) => request,
                Ok(None) => continue,
                Err(error) => {
                    containers.broken.push((id, error));
                    continue;
                }
            };
            let status = match self.client(&self.paths(&id)).peek() {
                Ok(status) => status.unwrap_or(TaskStatus::Created),
                Err(ShimError::Record(error)) => {
                    containers.broken.push((id, error));
                    continue;
                }
                Err(source) => return Err(RuntimeError::Shim { id, source }),
            };
            let at = attachments
                .iter()
                .position(|attachment| attachment.id == id);
            let attachment = at.map(|at| attachments.swap_remove(at));
            let told = request.options.notify && status.is_running();
            containers.containers.push(ContainerState {
                notified: told.then(|| self.notified(&id)),
                paused: status.is_running() && self.cgroups.is_frozen(&self.cgroup(&id)),
                out_of_memory: matches!(status, TaskStatus::Exited(_))
                    && self.paths(&id).file(MEMORY_FILE).exists(),
                request,
                status,
                attachment,
            });
        }
        Ok(containers)
    }

    fn watch(&self, id: &ContainerId) -> Result<Option<PidFd>, RuntimeError> {
        let paths = self.paths(id);
        self.client(&paths)
            .watch()
            .map_err(|source| RuntimeError::Shim {
                id: id.clone(),
                source,
            })
    }
}
