//! What a look at the device yields, as plain data.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kobune_runtime::cgroup::CgroupMode;
use kobune_runtime::{EngineInUse, Timestamp};

/// Why an overlay cannot be mounted.
#[derive(Debug, Clone)]
pub(super) enum OverlayError {
    /// The kernel has no overlayfs.
    Unknown,
    /// What it said.
    Other(String),
}

/// A look at the device. Text in an `Err` says why something could not be done.
#[derive(Debug, Clone)]
pub struct Observations {
    /// The configuration's source, or why there is none.
    pub(super) config: Result<String, String>,
    /// Whether this process is root.
    pub(super) is_root: bool,
    /// Whether something is mounted on its root directory: without that no mount can be made
    /// private.
    pub(super) root_is_mount: bool,
    /// Programs of ours that were not found.
    pub(super) missing_programs: Vec<&'static str>,
    /// Version of the daemon that answers on the socket.
    pub(super) daemon: Option<String>,
    /// Sockets of other agents and engines that were found.
    pub(super) others: Vec<PathBuf>,
    pub(super) kernel: Kernel,
    pub(super) cgroups: Result<Cgroups, String>,
    pub(super) state: Directory,
    /// Why an overlay cannot be mounted in the state directory; `None` where it was not tried.
    pub(super) overlay: Option<Result<(), OverlayError>>,
    /// Why a module cannot be in a user namespace; `None` where it was not tried.
    pub(super) userns: Option<Result<(), String>>,
    /// Whether modules are in user namespaces by default.
    pub(super) remap: bool,
    /// The engine that publishes ports and why not another; `None` where it was not tried.
    pub(super) network: Option<Result<Engine, String>>,
    /// The firewalls that cut modules off; `None` where they cannot be seen.
    pub(super) firewalls: Option<Result<Firewalls, String>>,
    pub(super) now: Timestamp,
    /// The hub and whether it was reached; `None` where none is configured.
    pub(super) hub: Option<Reached>,
    /// Registries of the stored deployment.
    pub(super) registries: Vec<Reached>,
    /// Devices that modules of the stored deployment ask for and the device does not have:
    /// module and path.
    pub(super) missing_devices: Vec<(String, PathBuf)>,
    /// Why the stored deployment cannot be read.
    pub(super) deployment: Result<usize, String>,
}

/// The running kernel.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// As `uname -r` says.
    pub(super) release: String,
    /// Kinds of namespaces in `/proc/self/ns`.
    pub(super) namespaces: BTreeSet<String>,
    /// Has seccomp filters.
    pub(super) seccomp: bool,
}

/// The mounted cgroups.
#[derive(Debug, Clone)]
pub(super) struct Cgroups {
    pub(super) mode: CgroupMode,
    /// Controllers that containers can use.
    pub(super) controllers: BTreeSet<String>,
}

/// A directory of ours, or the nearest parent that exists.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// Kind of file system, as `/proc/mounts` calls it.
    pub(super) filesystem: String,
    pub(super) writable: Result<(), String>,
    /// Bytes that are not reserved for anybody.
    pub(super) free: u64,
    /// Files that can still be made; 0 where the file system has no such limit.
    pub(super) free_files: u64,
    /// Files in all; 0 where the file system has no such limit.
    pub(super) files: u64,
}

/// What the modules' network can do.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    pub(super) in_use: EngineInUse,
    pub(super) reason: Option<String>,
}

/// Firewalls of others that forward nothing by themselves and let nobody change that.
#[derive(Debug, Clone)]
pub(super) struct Firewalls {
    /// What they would have to be told of.
    pub(super) bridge: String,
    pub(super) closed: Vec<String>,
}

/// An attempt to reach a server.
#[derive(Debug, Clone)]
pub(super) struct Reached {
    pub(super) name: String,
    pub(super) result: Result<(), String>,
}
