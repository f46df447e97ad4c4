//! Where a container's output goes.

use serde::{Deserialize, Serialize};

/// Bounds of a container's log: at most `max_files` files of about `max_size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LogOptions {
    /// Bytes at which the log is rotated.
    pub max_size: u64,
    /// Files kept, the current one included; at least 1.
    pub max_files: u32,
}

/// Where a container's output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogDriver {
    /// Into files.
    #[default]
    File,
    /// Nowhere.
    None,
    /// Into memory; onto the disk when the container fails.
    Ring,
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

impl LogOptions {
    /// Files into which a log in memory is divided: when the oldest goes, three quarters stay.
    const RING_FILES: u32 = 4;
    /// Least bytes of each: what a module wrote at once goes into one of them.
    const RING_FILE: u64 = 32 << 10;

    /// A log in memory of `bytes` in all, 128 KiB at least.
    #[must_use]
    pub fn ring(bytes: u64) -> Self {
        Self {
            max_size: (bytes / u64::from(Self::RING_FILES)).max(Self::RING_FILE),
            max_files: Self::RING_FILES,
        }
    }
}

impl LogDriver {
    /// Whether the log is in memory and is gone with a reboot.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        match self {
            Self::File | Self::None => false,
            Self::Ring => true,
        }
    }
}
