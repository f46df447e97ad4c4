//! What the rules of the modules' network are to say, whichever engine says it.

use std::net::Ipv4Addr;

use super::ipam::Ipv4Subnet;
use crate::{ContainerId, Protocol};

/// All that the rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ruleset<'a> {
    /// Name of the table of our own, where the engine has such.
    pub(crate) table: &'a str,
    pub(crate) bridge: &'a str,
    pub(crate) subnet: Ipv4Subnet,
    pub(crate) publications: Vec<Publication<'a>>,
}

/// One published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Publication<'a> {
    pub(crate) owner: &'a ContainerId,
    pub(crate) protocol: Protocol,
    /// Any where absent.
    pub(crate) host_ip: Option<Ipv4Addr>,
    pub(crate) host_port: u16,
    pub(crate) address: Ipv4Addr,
    pub(crate) container_port: u16,
}
