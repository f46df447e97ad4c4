//! Container options: what a deployment may ask for, typed and validated.
//!
//! These are domain types; Docker's JSON is turned into them by the agent. They are
//! stored with a created container, so their serialised form is part of the state on disk.

mod console;
mod device;
mod log;
mod mount;
mod namespace;
mod resources;
mod security;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{ContainerId, Healthcheck};

pub use console::Console;
pub use device::{
    DeviceAccess, DeviceClass, DeviceMapping, DeviceRequest, DeviceRule, InvalidDeviceAccess,
};
pub use log::{
    InvalidAddress, InvalidTag, LogDriver, LogOptions, Syslog, SyslogAddress, SyslogFormat, Tag,
    TagWords,
};
pub use mount::{Mount, MountSource, Propagation, VolumesFrom};
pub use namespace::{IpcMode, NamespaceMode, Namespaces, UserMode};
pub use resources::{BlockIo, DeviceRate, Resources, Ulimit};
pub use security::{SeccompChoice, Security};

/// Everything that shapes a container beside its image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerOptions {
    /// `KEY=VALUE` pairs that are added to, or replace, the image's.
    pub env: Vec<String>,
    /// Replaces the image's entry point (and then its command too); empty means none.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// Replaces the image's working directory; created if missing.
    pub working_dir: Option<String>,
    /// `user[:group]` by name or id; replaces the image's.
    pub user: Option<String>,
    /// Groups of the main process beside those of its user, by name or id.
    pub groups: Vec<String>,
    /// Host name inside; the container's id where absent.
    pub hostname: Option<String>,
    /// NIS domain name inside; the kernel's `(none)` where absent.
    pub domainname: Option<String>,
    /// Labels, kept with the container.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the OCI specification beside the labels.
    pub annotations: BTreeMap<String, String>,
    /// Signal that asks the main process to end, by number; image's or SIGTERM where absent.
    pub stop_signal: Option<i32>,
    /// Seconds between the stop signal and SIGKILL; 10 where absent, as Docker has it.
    pub stop_timeout: Option<u32>,
    /// How its health is checked; by whoever runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Whether a first process stands above the program, which passes signals on and reaps.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
    /// Whether it tells itself when it is ready, over `NOTIFY_SOCKET`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub notify: bool,
    /// Its terminal and standard input.
    #[serde(skip_serializing_if = "Console::is_none")]
    pub console: Console,
    /// Default confinement or none.
    pub privilege: Privilege,
    /// Mount the root filesystem read-only.
    pub readonly_rootfs: bool,
    /// Changes to the default capabilities.
    pub capabilities: CapabilityChange,
    /// Confinement beside capabilities and devices.
    pub security: Security,
    /// Whose namespaces it is in, the network's apart.
    pub namespaces: Namespaces,
    /// Device nodes to make available.
    pub devices: Vec<DeviceMapping>,
    /// Device access rules beyond `devices`.
    pub device_rules: Vec<DeviceRule>,
    /// Devices by what the host's owner calls them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_requests: Vec<DeviceRequest>,
    /// Bytes that its writable layer may take; without bound where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_size: Option<u64>,
    /// Bind mounts, volumes and tmpfs mounts.
    pub mounts: Vec<Mount>,
    /// Containers whose bind mounts and volumes it has too.
    pub volumes_from: Vec<VolumesFrom>,
    /// Bytes of `/dev/shm`; 64 MiB where absent.
    pub shm_size: Option<u64>,
    /// Published ports.
    pub ports: Vec<PortBinding>,
    /// Ports that its program listens on, beside the image's.
    pub exposed_ports: Vec<ExposedPort>,
    /// Publish every exposed port that is not in `ports`, on free ports of the host.
    pub publish_all_ports: bool,
    /// Which network the container joins.
    pub network: NetworkMode,
    /// More names under which other modules find this one.
    pub aliases: Vec<String>,
    /// More lines for the hosts file.
    pub extra_hosts: Vec<ExtraHost>,
    /// Name resolution other than the host's.
    pub dns: Dns,
    /// Kernel parameters of its namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Limits of its cgroup.
    pub resources: Resources,
    /// Limits of its processes; those of the agent where absent.
    pub ulimits: Vec<Ulimit>,
    /// How likely the kernel ends it when memory is short, -1000 to 1000; 0 where absent.
    pub oom_score_adj: Option<i32>,
    /// Where the output goes.
    pub log_driver: LogDriver,
    /// Bounds of the log.
    pub log: LogOptions,
}

/// How far the container is confined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Privilege {
    /// Docker's default capabilities, masked paths, device rules and seccomp profile.
    #[default]
    Default,
    /// As `docker run --privileged`: every capability and device, nothing masked, no seccomp.
    Privileged,
}

/// Capabilities to add to and drop from the default set, each `CAP_`-prefixed in upper
/// case, or `ALL`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CapabilityChange {
    /// Added.
    pub add: Vec<String>,
    /// Dropped; a capability named in both is added, as with Docker.
    pub drop: Vec<String>,
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortBinding {
    /// Port the module listens on.
    pub container_port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// Address of the host; all where absent.
    pub host_ip: Option<IpAddr>,
    /// Port of the host; a free one is chosen where absent.
    pub host_port: Option<u16>,
}

/// Transport protocol of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
}

/// A port that a program listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExposedPort {
    /// Port inside.
    pub port: u16,
    /// Transport.
    pub protocol: Protocol,
}

/// Network of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NetworkMode {
    /// Own namespace on the modules' bridge.
    #[default]
    Bridge,
    /// The host's.
    Host,
    /// Own namespace with loopback only.
    None,
    /// That of another container, with its names and its address.
    Container(ContainerId),
}

/// What `/etc/resolv.conf` says instead of the host's; empty lists leave it the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Dns {
    /// Resolvers.
    pub servers: Vec<IpAddr>,
    /// Domains to search; `.` alone searches none.
    pub search: Vec<String>,
    /// Options such as `ndots:2`.
    pub options: Vec<String>,
}

/// A name for the hosts file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExtraHost {
    /// Host name.
    pub name: String,
    /// Its address.
    pub address: HostAddress,
}

/// Address of an [`ExtraHost`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HostAddress {
    /// As given.
    Ip(IpAddr),
    /// The bridge's address on the host (`host-gateway`).
    HostGateway,
}

/// Text that is no port such as `80/tcp`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no port such as 80/tcp")]
pub struct InvalidPort(pub String);

impl FromStr for ExposedPort {
    type Err = InvalidPort;

    /// `80`, `80/tcp` or `53/udp`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPort(text.to_owned());
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = match protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(invalid()),
        };
        let port = port.parse().ok().filter(|port| *port > 0);
        Ok(Self {
            port: port.ok_or_else(invalid)?,
            protocol,
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}
