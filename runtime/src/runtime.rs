//! The runtime: creates, starts, stops and removes containers. What its callers see.

mod bundle;
mod control;
mod files;
mod joined;
mod launch;
mod linux;
mod prepare;
mod ring;
mod users;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cgroup::{CgroupError, CgroupPath};
use crate::container::CreateRequest;
use crate::exec::ExecError;
use crate::network::{Attachment, NetworkConfig, NetworkError};
use crate::record::RecordError;
use crate::shim::notify::Notified;
use crate::shim::{PidFd, ShimError};
use crate::{ContainerId, TaskStatus, UsernsConfig};

pub use linux::LinuxRuntime;
pub use prepare::PrepareError;

/// Where the runtime keeps things and which programs it runs.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Kept over reboots: `modules/<id>`, `volumes/<name>`.
    pub state_dir: PathBuf,
    /// Gone with a reboot: `modules/<id>`.
    pub run_dir: PathBuf,
    /// Cgroup below which each container has its own.
    pub cgroup_parent: CgroupPath,
    /// The launcher; a program, not a script: a sealed copy of it is run.
    pub shim: PathBuf,
    /// The program that the launcher becomes.
    pub monitor: PathBuf,
    /// The modules' network.
    pub network: NetworkConfig,
    /// Ids of containers in user namespaces.
    pub userns: UsernsConfig,
}

/// What a caller of the runtime sees of it.
///
/// Every operation is idempotent and safe to repeat after a crash of the caller at any
/// point in it. All block. Operations on different containers may run at the same time;
/// those on one container must not.
pub trait ModuleRuntime: Send + Sync {
    /// Makes the container known; nothing runs. A container of that name that is there
    /// already is an error unless it was created from the same request.
    fn create(&self, request: &CreateRequest) -> Result<(), RuntimeError>;
    /// Starts the container; one that runs is left alone. On failure nothing of it runs
    /// and what was prepared for it is released.
    fn start(&self, id: &ContainerId) -> Result<Started, RuntimeError>;
    /// Stops the container: stop signal, `grace` (its own stop timeout where absent),
    /// SIGKILL; then releases what a running container holds.
    fn stop(&self, id: &ContainerId, grace: Option<Duration>) -> Result<(), RuntimeError>;
    /// Releases what a container held while it ran: mounts, network, cgroup. Does nothing
    /// to one that runs.
    fn settle(&self, id: &ContainerId) -> Result<(), RuntimeError>;
    /// Stops the container and forgets it, its writable layer and its log; volumes stay.
    fn remove(&self, id: &ContainerId) -> Result<(), RuntimeError>;
    /// Every container, by name. One whose record is unreadable is left out of the list
    /// and named in `broken`; one that is being started counts as created.
    fn list(&self) -> Result<Containers, RuntimeError>;
    /// A handle that becomes readable when the running container has ended.
    fn watch(&self, id: &ContainerId) -> Result<Option<PidFd>, RuntimeError>;
}

/// A successful start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Started {
    /// What of the options could not be honoured and did not prevent the start.
    pub warnings: Vec<String>,
}

/// Answer of [`ModuleRuntime::list`].
#[derive(Debug, Default)]
pub struct Containers {
    /// Readable ones.
    pub containers: Vec<ContainerState>,
    /// Names whose record is unreadable, and why.
    pub broken: Vec<(ContainerId, RecordError)>,
}

/// A created container and what its process does.
#[derive(Debug, Clone)]
pub struct ContainerState {
    /// What it was created from.
    pub request: CreateRequest,
    /// Its process.
    pub status: TaskStatus,
    /// All its processes are frozen.
    pub paused: bool,
    /// It ended, and the kernel had ended processes of it for want of memory.
    pub out_of_memory: bool,
    /// What it tells of itself, while it runs and was asked to.
    pub notified: Option<Notified>,
    /// Its address and published ports while it runs on the bridge.
    pub attachment: Option<Attachment>,
}

/// A runtime operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// A directory of the runtime cannot be used.
    #[error("cannot use the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No container has that name.
    #[error("there is no container {id}")]
    NotFound {
        /// The name.
        id: ContainerId,
    },
    /// The container exists and was created from something else.
    #[error("the container {id} exists already")]
    Exists {
        /// The name.
        id: ContainerId,
    },
    /// A record could not be read or written.
    #[error("cannot keep the record of {id}")]
    Record {
        /// The container.
        id: ContainerId,
        /// Why.
        source: RecordError,
    },
    /// What the container needs could not be provided.
    #[error("cannot prepare {id}")]
    Prepare {
        /// The container.
        id: ContainerId,
        /// Why.
        #[source]
        source: PrepareError,
    },
    /// The launcher or monitor failed.
    #[error("cannot run {id}")]
    Shim {
        /// The container.
        id: ContainerId,
        /// Why.
        #[source]
        source: ShimError,
    },
    /// The container does not run.
    #[error("{id} is not running")]
    NotRunning {
        /// The container.
        id: ContainerId,
    },
    /// The container's processes could not be reached.
    #[error("cannot {action} {id}")]
    Control {
        /// What was attempted.
        action: &'static str,
        /// The container.
        id: ContainerId,
        /// Why.
        source: io::Error,
    },
    /// A process could not be run in the container.
    #[error("cannot run a process in {id}")]
    Exec {
        /// The container.
        id: ContainerId,
        /// Why.
        #[source]
        source: ExecError,
    },
    /// The network could not be set up at all.
    #[error("cannot use the modules' network")]
    Network(#[source] NetworkError),
    /// No usable cgroup hierarchy.
    #[error("cannot use cgroups")]
    Cgroups(#[source] CgroupError),
    /// Something that the container held could not be released; all of it was tried.
    #[error("cannot release everything that {id} held: {}", failures.join("; "))]
    Release {
        /// The container.
        id: ContainerId,
        /// Each failure with its causes.
        failures: Vec<String>,
    },
}

impl RuntimeError {
    /// The device for want of which a container did not start, where that is all.
    #[must_use]
    pub fn missing_device(&self) -> Option<&Path> {
        match self {
            Self::Prepare {
                source: PrepareError::Facts(error),
                ..
            } => error.missing_device(),
            _ => None,
        }
    }
}
