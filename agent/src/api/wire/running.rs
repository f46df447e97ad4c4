//! What is asked and told of the processes in a module.

use std::path::PathBuf;

use kobune_runtime::Timestamp;
use serde::{Deserialize, Serialize};

/// A process to be run in a module: body of `POST /modules/{name}/exec`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecBody {
    /// Program and arguments.
    pub command: Vec<String>,
    /// `KEY=VALUE` pairs over the module's own environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// Absolute directory inside; the module's own where absent.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// `user[:group]`; the module's own where absent.
    #[serde(default)]
    pub user: Option<String>,
    /// Size of the terminal it gets; pipes where absent.
    #[serde(default)]
    pub terminal: Option<Window>,
    /// Whether the session carries input for it.
    #[serde(default)]
    pub stdin: bool,
}

/// Where to attach to a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachView {
    /// Its monitor's socket, which speaks in the frames of a session.
    pub socket: PathBuf,
    /// Its main process has a terminal.
    pub terminal: bool,
    /// It has a standard input.
    pub stdin: bool,
}

/// A process of a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessView {
    /// In the host's pid namespace.
    pub pid: i32,
    /// In the module's.
    pub inner_pid: i32,
    /// Its parent's, in the host's.
    pub parent: i32,
    /// Its effective user.
    pub uid: u32,
    /// Processor time in milliseconds.
    pub cpu_millis: u64,
    /// Resident memory in bytes.
    pub memory: u64,
    /// Program and arguments.
    pub command: String,
}

/// What a module used since it was started; what the kernel does not tell is absent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct StatsView {
    /// The module.
    pub name: String,
    /// When this was measured.
    pub at: Timestamp,
    /// Processor time in nanoseconds.
    pub cpu_nanos: Option<u64>,
    /// Percent of one processor since the sample before; the command line fills this in.
    #[serde(default)]
    pub cpu_percent: Option<u64>,
    /// Bytes, without file pages that could be dropped at once.
    pub memory: Option<u64>,
    pub memory_limit: Option<u64>,
    /// Processes that the kernel ended for want of memory.
    pub memory_kills: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    pub pids_limit: Option<u64>,
    pub network_received: Option<u64>,
    pub network_sent: Option<u64>,
    pub block_read: Option<u64>,
    pub block_write: Option<u64>,
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Window {
    pub rows: u16,
    pub columns: u16,
}
