//! Container options: what a deployment may ask for, typed and validated.
//!
//! These are domain types; Docker's JSON is turned into them by the agent. They are
//! stored with a created container, so their serialised form is part of the state on disk.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Healthcheck;

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
    /// Host name inside; the container's id where absent.
    pub hostname: Option<String>,
    /// Labels, kept with the container.
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the main process to end, by number; image's or SIGTERM where absent.
    pub stop_signal: Option<i32>,
    /// Seconds between the stop signal and SIGKILL; 10 where absent, as Docker has it.
    pub stop_timeout: Option<u32>,
    /// How its health is checked; by whoever runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Default confinement or none.
    pub privilege: Privilege,
    /// Mount the root filesystem read-only.
    pub readonly_rootfs: bool,
    /// Changes to the default capabilities.
    pub capabilities: CapabilityChange,
    /// Device nodes to make available.
    pub devices: Vec<DeviceMapping>,
    /// Device access rules beyond `devices`.
    pub device_rules: Vec<DeviceRule>,
    /// Bind mounts, volumes and tmpfs mounts.
    pub mounts: Vec<Mount>,
    /// Published ports.
    pub ports: Vec<PortBinding>,
    /// Which network the container joins.
    pub network: NetworkMode,
    /// More names under which other modules find this one.
    pub aliases: Vec<String>,
    /// More lines for the hosts file.
    pub extra_hosts: Vec<ExtraHost>,
    /// Limits.
    pub resources: Resources,
    /// Bounds of the log on disk.
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

/// A host device made available under a path of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceMapping {
    /// Node, symbolic link to one, or directory of nodes on the host.
    pub host_path: PathBuf,
    /// Where it appears inside.
    pub container_path: PathBuf,
    /// What may be done with it.
    pub access: DeviceAccess,
}

/// A device cgroup rule: allows `access` to the devices it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRule {
    /// Character, block or both.
    pub class: DeviceClass,
    /// Major number; any where absent.
    pub major: Option<u32>,
    /// Minor number; any where absent.
    pub minor: Option<u32>,
    /// What is allowed.
    pub access: DeviceAccess,
}

/// Kind of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeviceClass {
    /// Both kinds.
    All,
    /// Character device.
    Char,
    /// Block device.
    Block,
}

/// A set of read, write and mknod, as in `mrw`.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceAccess {
    /// Open for reading.
    pub read: bool,
    /// Open for writing.
    pub write: bool,
    /// Create the node.
    pub mknod: bool,
}

/// Text that is no set of `r`, `w` and `m`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid device permissions {0:?}: expected one or more of 'r', 'w', 'm'")]
pub struct InvalidDeviceAccess(pub String);

/// Something mounted into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// What is mounted.
    pub source: MountSource,
    /// Absolute path inside.
    pub target: PathBuf,
    /// Mounted read-only.
    pub read_only: bool,
}

/// What a [`Mount`] shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MountSource {
    /// A host path.
    #[serde(rename_all = "camelCase")]
    Bind {
        /// Absolute path on the host.
        path: PathBuf,
        /// Create it as a directory where it is missing (Docker's `Binds`) or fail
        /// (Docker's `Mounts`).
        create_missing: bool,
        /// Mount propagation; private where absent.
        propagation: Option<Propagation>,
    },
    /// A named volume, or an anonymous one of this container where the name is absent.
    Volume {
        /// Name, valid as a [`crate::ContainerId`].
        name: Option<String>,
    },
    /// Memory.
    #[serde(rename_all = "camelCase")]
    Tmpfs {
        /// Size in bytes; the kernel's default (half of memory) where absent.
        size: Option<u64>,
        /// Mode of its root; 1777 where absent.
        mode: Option<u32>,
        /// Further mount options as `mount -o` reads them.
        options: Vec<String>,
    },
}

/// Mount propagation of a bind mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub enum Propagation {
    Private,
    Rprivate,
    Shared,
    Rshared,
    Slave,
    Rslave,
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

/// Network of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NetworkMode {
    /// Own namespace on the modules' bridge.
    #[default]
    Bridge,
    /// The host's.
    Host,
    /// Own namespace with loopback only.
    None,
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

/// Limits of a container; absent is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// CPU time in units of 1e-9 processors.
    pub nano_cpus: Option<u64>,
    /// Number of processes and threads.
    pub pids: Option<u32>,
}

/// Bounds of a container's log on disk: at most `max_files` files of about `max_size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogOptions {
    /// Bytes at which the log is rotated.
    pub max_size: u64,
    /// Files kept, the current one included; at least 1.
    pub max_files: u32,
}

impl Default for LogOptions {
    /// 10 MiB in three files: Docker's own default has no bound and fills the disk.
    fn default() -> Self {
        Self {
            max_size: 10 << 20,
            max_files: 3,
        }
    }
}

impl DeviceAccess {
    /// Read, write and mknod.
    pub const ALL: Self = Self {
        read: true,
        write: true,
        mknod: true,
    };
}

impl TryFrom<&str> for DeviceAccess {
    type Error = InvalidDeviceAccess;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        let mut access = Self {
            read: false,
            write: false,
            mknod: false,
        };
        for c in text.chars() {
            match c {
                'r' => access.read = true,
                'w' => access.write = true,
                'm' => access.mknod = true,
                _ => return Err(InvalidDeviceAccess(text.to_owned())),
            }
        }
        if text.is_empty() {
            Err(InvalidDeviceAccess(String::new()))
        } else {
            Ok(access)
        }
    }
}

impl TryFrom<String> for DeviceAccess {
    type Error = InvalidDeviceAccess;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::try_from(text.as_str())
    }
}

impl From<DeviceAccess> for String {
    fn from(access: DeviceAccess) -> Self {
        access.to_string()
    }
}

impl fmt::Display for DeviceAccess {
    /// In the order of the devices cgroup: `rwm`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (set, letter) in [(self.read, "r"), (self.write, "w"), (self.mknod, "m")] {
            if set {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for DeviceAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_access_reads_in_any_order() {
        for (text, normal) in [("mrw", "rwm"), ("r", "r"), ("wr", "rw"), ("rrm", "rm")] {
            assert_eq!(DeviceAccess::try_from(text).unwrap().to_string(), normal);
        }
        for bad in ["", "ro", "RW", "x"] {
            assert!(DeviceAccess::try_from(bad).is_err(), "{bad:?}");
        }
    }
}
