//! What can go wrong with the modules' network.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::ipam::Ipv4Subnet;
use crate::{ContainerId, Protocol};

/// Failure of an operation on the modules' network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// The configured bridge name cannot be an interface's.
    #[error("invalid bridge name {0:?}: 1 to 15 bytes without '/' and white space")]
    BridgeName(String),
    /// The kernel refused a change to links, addresses or routes.
    #[error("cannot {action} {subject}")]
    Link {
        /// What was attempted.
        action: &'static str,
        /// On which interface or module.
        subject: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A file, mount or directory of the network could not be read or changed.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Reason.
        source: io::Error,
    },
    /// The configured subnet shares addresses with a route of the host.
    #[error("subnet {subnet} of the modules' network overlaps a route of the host")]
    SubnetOverlaps {
        /// As configured.
        subnet: Ipv4Subnet,
    },
    /// Each of the default subnets overlaps a route of the host.
    #[error("no free subnet for the modules' network: configure one")]
    NoFreeSubnet,
    /// All addresses are in use.
    #[error("no free address in {subnet} for {id}")]
    NoFreeAddress {
        /// The subnet.
        subnet: Ipv4Subnet,
        /// Who asked.
        id: ContainerId,
    },
    /// Another process of the host has the port.
    #[error("port {port}/{protocol} is already bound by another process")]
    PortInUse {
        /// Port of the host.
        port: u16,
        /// Transport.
        protocol: Protocol,
    },
    /// A module has the port.
    #[error("port {port}/{protocol} is already published by {owner}")]
    PortTaken {
        /// Port of the host.
        port: u16,
        /// Transport.
        protocol: Protocol,
        /// Who has it; the module itself where it asks twice.
        owner: ContainerId,
    },
    /// A port of the host cannot be bound, for instance because the host does not have
    /// the address.
    #[error("cannot publish port {port}/{protocol}")]
    Port {
        /// Port of the host; 0 stands for any.
        port: u16,
        /// Transport.
        protocol: Protocol,
        /// Reason.
        source: io::Error,
    },
    /// The firewall engine that the configuration demands does not work here, or a change
    /// of its rules failed.
    #[error("cannot set the nf_tables rules of table {table}")]
    Rules {
        /// Our table.
        table: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Legacy ip_tables are demanded and do not work here, or a change of their rules
    /// failed.
    #[error("cannot set the ip_tables rules of the modules' network")]
    LegacyRules(#[source] io::Error),
    /// The program that forwards a module's ports could not be started.
    #[error("cannot start port forwarder {} for {id}", program.display())]
    Forwarder {
        /// The program.
        program: PathBuf,
        /// For which module.
        id: ContainerId,
        /// Reason.
        source: io::Error,
    },
    /// A container with the host's network has nothing to attach.
    #[error("{0} uses the network of the host")]
    HostNetwork(ContainerId),
    /// What an earlier attachment of the container left cannot be removed.
    #[error("cannot remove an earlier attachment")]
    Leftovers(#[source] CleanupError),
    /// Attaching failed, and so did undoing it; [`super::Network::sweep`] tries again.
    #[error("attaching failed and could not be undone: {cleanup}")]
    Unfinished {
        /// Why it failed.
        source: Box<Self>,
        /// What is left.
        cleanup: CleanupError,
    },
}

/// Everything that went wrong in a removal, which went on after each failure.
#[derive(Debug)]
pub struct CleanupError(pub(crate) Vec<NetworkError>);

impl CleanupError {
    /// The failures, in order; at least one.
    #[must_use]
    pub fn failures(&self) -> &[NetworkError] {
        &self.0
    }

    /// Goes on past a failure, and keeps it.
    pub(crate) fn check(&mut self, result: Result<(), NetworkError>) {
        self.0.extend(result.err());
    }

    pub(crate) fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for CleanupError {
    /// All failures with their causes: there is no one source to walk.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, failure) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{failure}")?;
            let mut cause = std::error::Error::source(failure);
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}

impl std::error::Error for CleanupError {}
