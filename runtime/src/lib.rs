//! Turns an unpacked image and container options into a supervised, running task.
//!
//! This crate knows nothing of registries, hubs or deployments; it is synchronous and
//! blocks. The agent calls it from blocking threads. It never links libcontainer: that
//! lives in the launcher program `kobune-shim`, one single-threaded process per start,
//! which ends by becoming `kobune-monitor` (see `ARCHITECTURE.md`, "Process boundary").

mod attributes;
pub mod capabilities;
mod cdi;
pub mod cgroup;
mod container;
pub mod copy;
pub mod device_cgroup;
pub mod error_chain;
mod exec;
mod facts;
mod healthcheck;
mod hotplug;
mod id;
mod insight;
pub mod log;
mod network;
mod options;
pub mod procfs;
mod record;
mod rootfs;
mod runtime;
pub mod seccomp;
pub mod shim;
mod spec;
mod sys;
mod task;
mod timestamp;
mod user;
pub mod userns;

pub use cdi::{DeviceRequestError, HookStage, HostMount, Provided, provided_devices};
pub use container::{CreateRequest, Image};
pub use exec::{Exec, ExecError, ExecNews, ExecRequest, ExecStreams, WindowSize, resize};
pub use facts::{BindSource, CgroupMode, DeviceNode, FactsError, HostFacts};
pub use healthcheck::Healthcheck;
pub use hotplug::{device_directories, missing_device};
pub use id::{ContainerId, InvalidContainerId};
pub use insight::{ProcessInfo, Traffic};
pub use network::forward::{ForwardError, ForwardJob, ForwardPort, run_forwarder};
pub use network::names::{HostEntry, hosts_file, resolv_conf, write_in_place};
pub use network::{
    Attachment, CleanupError, ClosedFirewall, Endpoint, Engine, EngineInUse, FirewallWatch,
    InvalidSubnet, Ipv4Subnet, MTU, Network, NetworkConfig, NetworkError, PublishedPort,
    closed_firewalls,
};
pub use options::{
    BlockIo, CapabilityChange, Console, ContainerOptions, DeviceAccess, DeviceClass, DeviceMapping,
    DeviceRate, DeviceRequest, DeviceRule, Dns, ExposedPort, ExtraHost, HostAddress,
    InvalidAddress, InvalidDeviceAccess, InvalidPort, InvalidTag, IpcMode, LogDriver, LogOptions,
    Mount, MountSource, NamespaceMode, Namespaces, NetworkMode, PortBinding, Privilege,
    Propagation, Protocol, Resources, SeccompChoice, Security, Syslog, SyslogAddress, SyslogFormat,
    Tag, TagWords, Ulimit, UserMode, VolumesFrom,
};
pub use record::RecordError;
pub use rootfs::{QuotaError, RootfsError, quotas_enforced};
pub use runtime::{
    ContainerState, Containers, LinuxRuntime, ModuleRuntime, PrepareError, RuntimeConfig,
    RuntimeError, Started,
};
pub use shim::attach::AttachPoint;
pub use shim::notify::Notified;
pub use shim::{PidFd, ShimError};
pub use spec::{
    Built, JoinedNamespaces, PING_GROUPS, SpecError, SpecNetwork, SpecPaths, SpecRequest,
    SpecUsers, SpecWarning, VolumeMount, VolumePart, build as build_spec, signal_number,
    stop_signal,
};
pub use task::{ExitStatus, TaskStatus};
pub use timestamp::{InvalidTimestamp, Timestamp};
pub use user::{ResolvedUser, UserError, resolve as resolve_user};
pub use userns::{IdRange, UsernsConfig, UsernsError};
