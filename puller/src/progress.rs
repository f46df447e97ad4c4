//! What a pull tells while it runs.

use oci_spec::image::Digest;

use crate::meter::Wait;

/// Where one layer of a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// Not begun.
    Waiting,
    /// Bytes arrive and are unpacked as they do.
    Downloading,
    /// All bytes arrived; they are verified and flushed to disk.
    Finishing,
    /// On disk.
    Complete,
    /// Was on disk already; nothing was transferred.
    Present,
}

/// One step of one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerProgress {
    /// Digest of the compressed layer, as the manifest names it.
    pub layer: Digest,
    /// Compressed bytes received.
    pub done: u64,
    /// Compressed bytes in all.
    pub total: u64,
    /// What happens with it.
    pub state: LayerState,
}

/// Told about each step. Called often, from the task that pulls: must return at once.
pub trait ProgressSink: Send + Sync {
    /// One layer moved on.
    fn update(&self, progress: &LayerProgress);

    /// A layer of which some is here is fetched as a whole nevertheless, and why.
    fn whole(&self, layer: &Digest, why: &dyn std::error::Error) {
        let _ = (layer, why);
    }

    /// Layers are not fetched now, and why; or, with nothing, they are again.
    fn waiting(&self, wait: Option<&Wait>) {
        let _ = wait;
    }
}

/// Nobody watches.
impl ProgressSink for () {
    fn update(&self, _: &LayerProgress) {}
}

impl<F: Fn(&LayerProgress) + Send + Sync> ProgressSink for F {
    fn update(&self, progress: &LayerProgress) {
        self(progress);
    }
}
