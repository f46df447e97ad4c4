//! Whose namespaces a container is in.

use serde::{Deserialize, Serialize};

use crate::ContainerId;

/// Namespaces beside the network's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Namespaces {
    /// System V IPC, POSIX message queues and `/dev/shm`.
    pub ipc: IpcMode,
    /// Processes.
    pub pid: NamespaceMode,
    /// The host's name instead of its own.
    pub host_uts: bool,
    /// The host's view of cgroups or its own; Docker's choice where absent: its own on
    /// cgroup version 2 alone.
    pub own_cgroup: Option<bool>,
    /// Users and groups.
    #[serde(skip_serializing_if = "UserMode::is_default")]
    pub user: UserMode,
}

/// Whose user namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UserMode {
    /// As the host's owner has it.
    #[default]
    Default,
    /// The host's.
    Host,
    /// Its own, or that of the containers whose other namespaces it joins.
    Private,
}

impl UserMode {
    #[allow(clippy::trivially_copy_pass_by_ref)] // As serde passes it.
    fn is_default(&self) -> bool {
        *self == Self::Default
    }
}

/// Whose namespace of a kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum NamespaceMode {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of another container, which must run.
    Container(ContainerId),
}

/// Whose IPC namespace and shared memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IpcMode {
    /// Its own, without `/dev/shm`.
    None,
    /// Its own.
    #[default]
    Private,
    /// Its own, which other containers may join.
    Shareable,
    /// The host's.
    Host,
    /// That of another container, which must run and be shareable.
    Container(ContainerId),
}
