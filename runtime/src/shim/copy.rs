//! The contract between the agent and the process that copies a container's files.
//!
//! `kobune-shim copy BUNDLE` stands to the agent as the launcher of a further process does
//! ([`super::exec`]): its standard input is the socket, the job comes with three descriptors,
//! and it reports its start and its end. What it writes is the archive or the answer, what it
//! reads the archive. It stays outside of the container, whose processes cannot see it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ProcessId;
use crate::copy::StoppedRoot;

/// What is to be copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CopyJob {
    /// [`super::CONTRACT`] of the writer.
    pub contract: u32,
    /// The container's files.
    pub root: CopyRoot,
    /// What is done with them.
    pub action: CopyAction,
}

/// Where a container's files are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CopyRoot {
    /// As this process sees them, the container's first.
    Running(ProcessId),
    /// Nowhere yet: it does not run.
    Stopped(StoppedRoot),
}

/// What is done with a container's files. Paths are those inside; relative ones begin at its
/// root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CopyAction {
    /// Write a [`crate::copy::FileStat`] as JSON.
    #[serde(rename_all = "camelCase")]
    Stat {
        /// Of what.
        path: PathBuf,
        /// Of the end of all links.
        follow: bool,
    },
    /// Write an archive; see [`crate::copy::pack`].
    #[serde(rename_all = "camelCase")]
    Pack {
        /// Of what.
        path: PathBuf,
        /// Follow it, if it is a link.
        follow: bool,
    },
    /// Read an archive; see [`crate::copy::unpack`].
    #[serde(rename_all = "camelCase")]
    Unpack {
        /// The directory that gets its members.
        into: PathBuf,
        /// Another name for the topmost.
        rename: Option<String>,
        /// Owner and group of all; as the archive has them where absent.
        owner: Option<(u32, u32)>,
    },
}
