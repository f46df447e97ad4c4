//! What is known of a module's process.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// State of a container's main process, as its monitor recorded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub enum TaskStatus {
    /// Created and never started since it was created or since the device booted.
    Created,
    /// Running under a live monitor.
    #[serde(rename_all = "camelCase")]
    Running {
        /// The container's main process, in the host's pid namespace.
        pid: i32,
        /// When it was started.
        started_at: Timestamp,
    },
    /// Ended.
    Exited(ExitStatus),
}

/// How a container's main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitStatus {
    /// Exit code; 128 + signal number where a signal ended it, as shells and Docker count.
    pub code: i32,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    pub exited_at: Timestamp,
}

impl TaskStatus {
    /// Whether the main process runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }
}
