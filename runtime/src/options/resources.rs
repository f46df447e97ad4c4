//! Limits.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Limits of a container's cgroup; absent is unlimited or the kernel's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Memory in bytes below which it is pushed back when the host is short of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<u64>,
    /// Memory and swap together in bytes, -1 for no limit of swap; twice the memory where
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<i64>,
    /// How readily its memory is swapped out, 0 to 100; cgroup version 1 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<u8>,
    /// Let it wait for memory instead of ending a process; cgroup version 1 only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub oom_kill_disable: bool,
    /// CPU time in units of 1e-9 processors.
    pub nano_cpus: Option<u64>,
    /// Weight among the others when processors are short; 1024 is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u64>,
    /// Microseconds to which `cpu_quota` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_period: Option<u64>,
    /// Microseconds of CPU time in each period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<i64>,
    /// Processors it may use, such as `0-2,4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_mems: Option<String>,
    /// Number of processes and threads.
    pub pids: Option<u32>,
    /// Limits of block devices.
    #[serde(skip_serializing_if = "BlockIo::is_empty")]
    pub block_io: BlockIo,
}

/// Limits of block devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BlockIo {
    /// Weight among the others, 10 to 1000.
    pub weight: Option<u16>,
    /// Bytes read a second.
    pub read_bps: Vec<DeviceRate>,
    /// Bytes written a second.
    pub write_bps: Vec<DeviceRate>,
    /// Reads a second.
    pub read_iops: Vec<DeviceRate>,
    /// Writes a second.
    pub write_iops: Vec<DeviceRate>,
}

/// A limit of one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRate {
    /// The device's node on the host.
    pub path: PathBuf,
    /// Units a second.
    pub rate: u64,
}

/// A limit of every process of a container (`setrlimit`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ulimit {
    /// Name in lower case without `RLIMIT_`, such as `nofile`.
    pub name: String,
    /// Limit that a process may raise up to `hard`; absent is unlimited.
    pub soft: Option<u64>,
    /// Bound of it; absent is unlimited.
    pub hard: Option<u64>,
}

impl BlockIo {
    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Every limit of a single device.
    pub fn rates(&self) -> impl Iterator<Item = &DeviceRate> {
        [
            &self.read_bps,
            &self.write_bps,
            &self.read_iops,
            &self.write_iops,
        ]
        .into_iter()
        .flatten()
    }
}
