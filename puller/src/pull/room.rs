//! Whether there is room for an image, told before anything of it is fetched.

use std::collections::HashSet;

use super::job::Job;
use super::{CONCURRENT_LAYERS, blocking};
use crate::error::PullError;
use crate::manifest::{Compression, Layer};

/// Bytes on the disk for each byte of a compressed layer. Layers of Debian and Python take 2.6 to 3.7
/// times as much; one that takes more meets the full disk, which loses nothing either.
const UNPACKED: u64 = 3;

impl Job<'_> {
    /// Refuses what would leave less than the reserve.
    pub(super) async fn check_room(&self, layers: &[Layer]) -> Result<(), PullError> {
        let shared = self.shared;
        let mut seen = HashSet::new();
        let missing: Vec<&Layer> = layers
            .iter()
            .filter(|layer| shared.store.good_layer(&layer.diff_id).is_none())
            .filter(|layer| seen.insert(&layer.diff_id))
            .collect();
        let needed = needed(&missing, shared.spool_from);
        if needed == 0 {
            return Ok(());
        }
        let store = shared.store.clone();
        let space = blocking(move || store.space()).await;
        let reference = self.session.reference.clone();
        let free = match space {
            Ok(space) => space.free,
            Err(source) => return Err(PullError::Store { reference, source }),
        };
        let reserve = shared.reserve;
        if free.saturating_sub(reserve) < needed {
            return Err(PullError::Room {
                reference,
                needed,
                free,
                reserve,
            });
        }
        Ok(())
    }
}

/// Bytes on the disk, with what is spooled at once.
fn needed(missing: &[&Layer], spool_from: Option<u64>) -> u64 {
    let unpacked = missing.iter().map(|layer| match layer.compression {
        Compression::None => layer.size,
        Compression::Gzip | Compression::Zstd => layer.size.saturating_mul(UNPACKED),
    });
    let spooled = missing.iter().map(|layer| layer.size);
    let mut spooled: Vec<u64> = spooled
        .filter(|size| spool_from.is_some_and(|from| *size >= from))
        .collect();
    spooled.sort_unstable();
    let spooled = spooled.into_iter().rev().take(CONCURRENT_LAYERS);
    unpacked.chain(spooled).fold(0, u64::saturating_add)
}
