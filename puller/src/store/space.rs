//! Room on the file system that the store is on.

use nix::sys::statvfs::statvfs;

use super::{Store, StoreError, failed};

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What may still be written.
    pub free: u64,
    /// What it has in all.
    pub total: u64,
}

impl Store {
    /// What the file system has. What is kept for root alone counts as taken. Blocking.
    pub fn space(&self) -> Result<Space, StoreError> {
        let root = self.root();
        let stat = statvfs(root).map_err(failed("look at the file system of", root))?;
        #[allow(
            clippy::useless_conversion,
            reason = "these C types have 32 bits elsewhere"
        )]
        let bytes = |blocks| u64::from(blocks).saturating_mul(u64::from(stat.fragment_size()));
        Ok(Space {
            free: bytes(stat.blocks_available()),
            total: bytes(stat.blocks()),
        })
    }
}
