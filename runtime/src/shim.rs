//! The contract between the agent, the launcher and the monitor of a container.
//!
//! Files of a bundle directory, signals and a pidfd; no RPC. Each file has one writer:
//!
//! | file | writer | meaning |
//! |---|---|---|
//! | `config.json` | agent | OCI spec of the container, as any OCI runtime would take it |
//! | `shim.json` | agent | [`ShimJob`] |
//! | `lock` | nobody | locked (flock) from before the launcher exists until the monitor ended |
//! | `launch.log` | launcher | what libcontainer had to say while launching |
//! | `task.json` | launcher | [`TaskRecord`], written when the container was started |
//! | `attach` | launcher | socket for those who attach, served by the monitor; see [`attach`] |
//! | `notify/` | launcher | directory of a socket for those inside, served by the monitor; see [`notify`] |
//! | `notify.json` | monitor | [`notify::Notified`], written when the container told something new |
//! | `exit.json` | monitor | [`ExitRecord`], written when the main process ended |
//!
//! The launcher answers the agent with one line of JSON, a [`LaunchReport`], on its
//! standard output; its standard input is the locked `lock`, which the agent opened and the
//! monitor keeps. SIGTERM to the monitor means: send the stop signal, wait for the grace
//! period, kill; SIGUSR1 means: kill now. Old monitors meet new agents after an upgrade:
//! [`CONTRACT`] is in every file, and what it says is never changed, only added to.

pub mod attach;
mod client;
pub mod copy;
pub mod exec;
pub mod notify;
mod process;
pub mod sealed;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::record::{self, RecordError};
use crate::{Console, LogDriver, LogOptions, Timestamp};

pub(crate) use client::ShimClient;
pub use client::ShimError;
pub use process::{PidFd, ProcessId};

/// Version of this contract.
pub const CONTRACT: u32 = 1;

/// Time a launch may take before it counts as hung: a slow SD card stays far below.
pub const LAUNCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Spec of the container in the bundle directory.
pub const CONFIG_FILE: &str = "config.json";
/// The job in the bundle directory.
pub const JOB_FILE: &str = "shim.json";
/// Held locked while launcher or monitor live.
pub const LOCK_FILE: &str = "lock";
/// Diagnostics of the launch.
pub const LAUNCH_LOG_FILE: &str = "launch.log";
/// Record of the started task.
pub const TASK_FILE: &str = "task.json";
/// Written by the agent: the kernel ended processes of the ended task for want of memory.
pub const MEMORY_FILE: &str = "out-of-memory";
/// Socket of the system's journal.
pub const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
/// Record of the ended task.
pub const EXIT_FILE: &str = "exit.json";

/// What the launcher is to do beyond the OCI spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShimJob {
    /// [`CONTRACT`] of the writer.
    pub contract: u32,
    /// The container's id.
    pub id: String,
    /// The program to become once the container runs.
    pub monitor: PathBuf,
    /// Directory of the log.
    pub log_dir: PathBuf,
    /// Whether the program gets a first process above it.
    #[serde(default)]
    pub init: bool,
    /// The program's terminal and standard input.
    #[serde(default)]
    pub console: Console,
    /// Whether the container tells how it is.
    #[serde(default)]
    pub notify: bool,
    /// Where the output goes.
    #[serde(default)]
    pub log_driver: LogDriver,
    /// Bounds of the log.
    pub log: LogOptions,
    /// Who gets the output as it comes, beside the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receiver: Option<LogReceiver>,
    /// Signal number that asks the main process to end.
    pub stop_signal: i32,
    /// Seconds from the stop signal to SIGKILL.
    pub stop_timeout: u32,
}

/// Who gets a container's output as it comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogReceiver {
    /// The receiver; its tag is filled in.
    pub driver: LogDriver,
    /// Name of the container.
    pub container: String,
    /// Reference of its image.
    pub image: String,
}

/// A started container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskRecord {
    /// [`CONTRACT`] of the writer.
    pub contract: u32,
    /// Launcher and, later, monitor.
    pub shim: ProcessId,
    /// The container's main process.
    pub init: ProcessId,
    /// When it was started.
    pub started_at: Timestamp,
}

/// An ended container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitRecord {
    /// [`CONTRACT`] of the writer.
    pub contract: u32,
    /// Exit code, or 128 + signal.
    pub code: i32,
    /// When it ended.
    pub exited_at: Timestamp,
}

impl TaskRecord {
    /// Writes the record, whole or not at all; blocks for the disk.
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        record::write(path, self)
    }
}

impl ExitRecord {
    /// Writes the record, whole or not at all; blocks for the disk.
    pub fn write(&self, path: &Path) -> Result<(), RecordError> {
        record::write(path, self)
    }
}

/// The launcher's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LaunchReport {
    /// The container runs.
    Ready(TaskRecord),
    /// It does not, and nothing of it runs.
    Failed(LaunchFailure),
}

/// Why a launch failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LaunchFailure {
    /// What was attempted.
    pub step: String,
    /// The error and its causes, outermost first.
    pub causes: Vec<String>,
}
