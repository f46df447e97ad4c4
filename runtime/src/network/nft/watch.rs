//! Noticing that somebody changes the host's nf_tables: a firewall's reload flushes tables
//! that are not its own.

use std::io;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use netlink_sys::{Socket, protocols};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

/// Multicast group of changes of nf_tables.
const NFNLGRP_NFTABLES: u32 = 7;

/// A reload makes several changes one after another.
const SETTLE: Duration = Duration::from_millis(20);

/// Changes of the nf_tables of one network namespace, by whomever.
#[derive(Debug)]
pub struct FirewallWatch {
    socket: Socket,
}

impl FirewallWatch {
    /// Watches the caller's network namespace from now on.
    ///
    /// # Errors
    /// Where the kernel has no netfilter, or the caller may not administer the network.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(protocols::NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.add_membership(NFNLGRP_NFTABLES)?;
        Ok(Self { socket })
    }

    /// Blocks until something has changed since the last call; what changes shortly after
    /// is the same change.
    ///
    /// # Errors
    /// The kernel's, after which waiting again is of no use.
    pub fn wait(&mut self) -> io::Result<()> {
        while !self.receive(MsgFlags::empty())? {}
        thread::sleep(SETTLE);
        while self.receive(MsgFlags::MSG_DONTWAIT)? {}
        Ok(())
    }

    /// Takes one message, whatever it says; `false` if there was none.
    fn receive(&self, flags: MsgFlags) -> io::Result<bool> {
        let mut start = [0; 64];
        match recv(self.socket.as_raw_fd(), &mut start, flags) {
            // Lost messages are changes too.
            Ok(_) | Err(Errno::ENOBUFS) => Ok(true),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}
