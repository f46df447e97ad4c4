//! What goes wrong with cgroups.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

/// A failure to find, empty or remove cgroups.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// Nothing is mounted.
    #[error("no cgroup hierarchy is mounted")]
    NoHierarchy,
    /// The mounts are not known.
    #[error("read the mounts from {}", path.display())]
    Mounts {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The controllers of the unified hierarchy are not known.
    #[error("read the controllers from {}", path.display())]
    Controllers {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The cgroup is not there.
    #[error("make cgroup {}", path.display())]
    Make {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The members of a cgroup are not known.
    #[error("list the processes of cgroup {}", path.display())]
    List {
        /// The cgroup's directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A member could not be signalled.
    #[error("kill process {pid} of cgroup {path}")]
    Kill {
        /// The process.
        pid: i32,
        /// The cgroup.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Members outlive SIGKILL: they hang in the kernel, or belong to another pid namespace.
    #[error("processes {pids:?} of cgroup {path} outlive SIGKILL")]
    StillPopulated {
        /// The cgroup.
        path: String,
        /// Its processes.
        pids: BTreeSet<i32>,
    },
    /// The cgroup is still there.
    #[error("remove cgroup {}", path.display())]
    Remove {
        /// Its directory.
        path: PathBuf,
        /// Why; EBUSY where processes are left in it.
        #[source]
        source: io::Error,
    },
}
