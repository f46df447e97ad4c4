//! What may be wrong with a request for a specification.

use std::path::PathBuf;

/// A request that no container can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Neither the options nor the image say what to run.
    #[error("no command: neither the options nor the image have an entrypoint or a command")]
    NoCommand,
    /// A text holds a NUL, which no system call takes.
    #[error("{field} {text:?} contains a NUL character")]
    NulCharacter {
        /// Which part of the request.
        field: &'static str,
        /// The text.
        text: String,
    },
    /// An environment entry without a name.
    #[error("environment entry {entry:?} has no name")]
    EnvironmentName {
        /// The entry.
        entry: String,
    },
    /// A relative working directory.
    #[error("working directory {path:?} is not absolute")]
    WorkingDir {
        /// The directory.
        path: String,
    },
    /// A host name that the kernel does not take.
    #[error("invalid host name {name:?}: at most 64 bytes without '/'")]
    Hostname {
        /// The name.
        name: String,
    },
    /// A stop signal that is neither a name nor a number.
    #[error("unknown stop signal {signal:?}")]
    StopSignal {
        /// The signal.
        signal: String,
    },
    /// A mount target that is relative or holds `..`.
    #[error("mount target {} is not an absolute path without '..'", target.display())]
    Target {
        /// The target.
        target: PathBuf,
    },
    /// A mount over what every container has of its own.
    #[error("cannot mount on {}: it belongs to the container", target.display())]
    ReservedTarget {
        /// The target.
        target: PathBuf,
    },
    /// Two mounts on one target.
    #[error("more than one mount on {}", target.display())]
    DuplicateTarget {
        /// The target.
        target: PathBuf,
    },
    /// A relative bind mount source.
    #[error("bind mount source {} of {} is not absolute", path.display(), target.display())]
    RelativeSource {
        /// The source.
        path: PathBuf,
        /// Where it was to appear.
        target: PathBuf,
    },
    /// A bind mount source that is missing and not to be created.
    #[error("bind mount source {} of {} does not exist", path.display(), target.display())]
    MissingSource {
        /// The source.
        path: PathBuf,
        /// Where it was to appear.
        target: PathBuf,
    },
    /// A volume name that is no file name.
    #[error("invalid volume name {name:?} for {}", target.display())]
    VolumeName {
        /// The name.
        name: String,
        /// Where it was to appear.
        target: PathBuf,
    },
    /// An option that a tmpfs does not have.
    #[error("unknown tmpfs option {option:?} for {}", target.display())]
    TmpfsOption {
        /// The option.
        option: String,
        /// Where it was to appear.
        target: PathBuf,
    },
    /// A device that would appear elsewhere than below `/dev`.
    #[error("device path {} is not below /dev", path.display())]
    DevicePath {
        /// Where it was to appear.
        path: PathBuf,
    },
    /// Two different devices under one path.
    #[error("more than one device at {}", path.display())]
    DuplicateDevice {
        /// Where both were to appear.
        path: PathBuf,
    },
    /// A volume's subpath that leads out of it.
    #[error("subpath {} of the volume on {} leads out of it", subpath.display(), target.display())]
    Subpath {
        /// The subpath.
        subpath: PathBuf,
        /// Where it was to appear.
        target: PathBuf,
    },
    /// A kernel parameter that is not the container's alone.
    #[error("sysctl {name:?} is not the container's own: {reason}")]
    Sysctl {
        /// The parameter.
        name: String,
        /// Why it cannot be set.
        reason: &'static str,
    },
    /// A limit that the kernel does not have.
    #[error("unknown ulimit {name:?}")]
    UlimitName {
        /// The name.
        name: String,
    },
    /// A soft limit above the hard one.
    #[error("ulimit {name}: the soft limit is above the hard limit")]
    UlimitOrder {
        /// The name.
        name: String,
    },
    /// A score out of range.
    #[error("oom score adjustment {score} is not between -1000 and 1000")]
    OomScoreAdj {
        /// The score.
        score: i32,
    },
    /// Limits that contradict each other.
    #[error("{limits} cannot be combined: {reason}")]
    Limits {
        /// Which.
        limits: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// A memory limit under which nothing runs, or that is out of range.
    #[error("memory limit of {bytes} bytes is not between 6 MiB and 4 EiB")]
    Memory {
        /// The limit.
        bytes: u64,
    },
    /// A CPU limit that the kernel cannot keep.
    #[error("cpu limit of {nano_cpus} nanocpus is not between 0.01 and 1000000 processors")]
    NanoCpus {
        /// The limit.
        nano_cpus: u64,
    },
}

/// Where a container is run although its request cannot be met in full.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpecWarning {
    /// Shared propagation was asked for: mounts of the host appear inside, but mounts made
    /// inside do not appear on the host, because libcontainer 0.7 sets propagation for the
    /// whole container only.
    SharedPropagation {
        /// Target of the mount.
        target: PathBuf,
    },
    /// The kernel cannot limit swap, so the memory limit does not bound it.
    SwapUnlimited,
    /// The limit is of a kind that the host's kernel or cgroup version does not have.
    LimitUnsupported {
        /// Which.
        limit: &'static str,
    },
    /// `DeviceRules` or device permissions narrow nothing in a privileged container.
    PrivilegedDeviceRules,
}

impl std::fmt::Display for SpecWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SharedPropagation { target } => write!(
                f,
                "mount on {} is a slave instead of shared",
                target.display()
            ),
            Self::SwapUnlimited => f.write_str("the kernel cannot limit swap"),
            Self::LimitUnsupported { limit } => {
                write!(
                    f,
                    "{limit} has no effect: this host's cgroups do not have it"
                )
            }
            Self::PrivilegedDeviceRules => {
                f.write_str("device rules have no effect in a privileged container")
            }
        }
    }
}
