//! Removing what the kernel takes its time to remove, while the agent goes on: the end of a
//! veth pair waits for all readers of the network several times over.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use super::error::NetworkError;
use super::netlink::Netlink;
use super::{file, link, netns};
use crate::ContainerId;

/// The removals under way; waits for all of them when dropped.
#[derive(Debug, Default)]
pub(super) struct Unlinking(HashMap<ContainerId, Removal>);

#[derive(Debug)]
struct Removal {
    /// What others may only have when this is over.
    address: Option<Ipv4Addr>,
    thread: JoinHandle<Result<(), NetworkError>>,
}

impl Unlinking {
    /// Begins to remove the veth pair of `id`, which had `address`, and its namespace at
    /// `netns`. Where there is
    /// neither, nothing is begun; an earlier removal is waited for.
    ///
    /// # Errors
    /// [`NetworkError::Link`] where the kernel cannot be asked.
    pub(super) fn unlink(
        &mut self,
        id: &ContainerId,
        address: Option<Ipv4Addr>,
        netns: PathBuf,
    ) -> Result<(), NetworkError> {
        // What failed then is tried again now.
        let _ = self.wait_for(id);
        let failed = |source| super::link("remove the veth pair of", id, source);
        let veth = link::veth_name(id);
        let linked = Netlink::route().and_then(|mut netlink| link::exists(&mut netlink, &veth));
        if !netns.exists() && !linked.map_err(failed)? {
            return Ok(());
        }
        let owner = id.clone();
        let thread = thread::Builder::new().spawn(move || remove(&owner, &veth, &netns));
        let thread = thread.map_err(failed)?;
        self.0.insert(id.clone(), Removal { address, thread });
        Ok(())
    }

    /// Waits until what belonged to `id` is gone.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn wait_for(&mut self, id: &ContainerId) -> Result<(), NetworkError> {
        self.0.remove(id).map_or(Ok(()), finish)
    }

    /// Waits until `address` is nobody's.
    ///
    /// # Errors
    /// Why it is somebody's still.
    pub(super) fn wait_for_address(&mut self, address: Ipv4Addr) -> Result<(), NetworkError> {
        let mut had = self.0.extract_if(|_, r| r.address == Some(address));
        had.try_for_each(|(_, removal)| finish(removal))
    }

    /// Waits until everything is gone; all failures.
    pub(super) fn wait(&mut self) -> Vec<NetworkError> {
        let removals = self.0.drain();
        removals
            .filter_map(|(_, removal)| finish(removal).err())
            .collect()
    }
}

impl Drop for Unlinking {
    fn drop(&mut self) {
        for error in self.wait() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "part of a module's network is left to the next start of the agent"
            );
        }
    }
}

fn remove(id: &ContainerId, veth: &str, netns: &Path) -> Result<(), NetworkError> {
    let removed = Netlink::route().and_then(|mut netlink| link::remove(&mut netlink, veth));
    let unmounted = netns::remove(netns);
    removed.map_err(|source| super::link("remove the veth pair of", id, source))?;
    unmounted.map_err(|source| file("remove network namespace", netns, source))
}

fn finish(removal: Removal) -> Result<(), NetworkError> {
    let ended = removal.thread.join();
    ended.expect("invariant: removing a link does not panic")
}
