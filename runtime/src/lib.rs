//! Turns an unpacked image and container options into a supervised, running task.
//!
//! This crate knows nothing of registries, hubs or deployments; it is synchronous and
//! blocks. The agent calls it from blocking threads. It never links libcontainer: that
//! lives in the launcher program `kobune-shim`, one single-threaded process per start,
//! which ends by becoming `kobune-monitor` (see `ARCHITECTURE.md`, "Process boundary").

mod id;
pub mod log;
mod options;
mod task;
mod timestamp;

pub use id::{ContainerId, InvalidContainerId};
pub use options::{
    CapabilityChange, ContainerOptions, DeviceAccess, DeviceClass, DeviceMapping, DeviceRule,
    ExtraHost, HostAddress, InvalidDeviceAccess, LogOptions, Mount, MountSource, NetworkMode,
    PortBinding, Privilege, Propagation, Protocol, Resources,
};
pub use task::{ExitStatus, TaskStatus};
pub use timestamp::{InvalidTimestamp, Timestamp};
