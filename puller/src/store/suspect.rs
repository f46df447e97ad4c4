//! Damaged layers, and putting good ones in their place while modules run on them.
//!
//! A mount goes on with the directories it was made of, whatever their names are; so a damaged layer
//! that is replaced only loses its name, and its files go when no module uses that layer.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use oci_spec::image::Digest;

use super::{Store, StoreError, failed, lock};

/// Layers count as missing to pulls, and are replaced by what these fetch, until this is dropped.
#[derive(Debug)]
pub(crate) struct Suspects {
    store: Store,
    layers: HashSet<Digest>,
}

impl Store {
    /// Has `layers` fetched anew.
    pub(crate) fn suspect(&self, layers: HashSet<Digest>) -> Suspects {
        lock(&self.inner.suspects).extend(layers.iter().cloned());
        Suspects {
            store: self.clone(),
            layers,
        }
    }

    /// Where the layer is, if it is there and nobody doubts it.
    pub(crate) fn good_layer(&self, diff_id: &Digest) -> Option<PathBuf> {
        self.layer(diff_id).filter(|_| !self.is_suspect(diff_id))
    }

    pub(super) fn is_suspect(&self, diff_id: &Digest) -> bool {
        lock(&self.inner.suspects).contains(diff_id)
    }

    /// Takes a damaged layer's name away; a good one has to get it next. From then on it is trusted.
    pub(super) fn set_replaced(&self, diff_id: &Digest) -> Result<(), StoreError> {
        let (from, directory) = (self.layer_path(diff_id), self.path("replaced"));
        let free = |number: &u32| !self.replaced_path(diff_id, *number).exists();
        let number = (0..).find(free).unwrap_or_default();
        let target = self.replaced_path(diff_id, number);
        let renamed = self.disk().rename(&from, &target);
        renamed.map_err(failed("set aside", &from))?;
        self.sync_directory(&directory)?;
        lock(&self.inner.suspects).remove(diff_id);
        Ok(())
    }

    fn replaced_path(&self, diff_id: &Digest, number: u32) -> PathBuf {
        self.path("replaced")
            .join(format!("{}.{number}", diff_id.digest()))
    }

    /// A replacement that was interrupted half way left no layer of that name: the damaged one is
    /// better than none.
    pub(super) fn put_back(&self) -> Result<(), StoreError> {
        for path in self.replaced()? {
            let Some(layer) = path.file_stem() else {
                continue;
            };
            let target = self.path("layers").join(layer);
            if !target.exists() {
                let renamed = self.disk().rename(&path, &target);
                renamed.map_err(failed("put back", &path))?;
            }
        }
        Ok(())
    }

    /// Moves replaced layers of which no path in `keep` has the name to staging, and says where they
    /// are now. To be done before the layers themselves lose their names, lest they be put back.
    pub(super) fn set_aside_replaced(&self, keep: &[PathBuf]) -> Result<Vec<PathBuf>, StoreError> {
        let used: HashSet<&OsStr> = keep.iter().filter_map(|path| path.file_name()).collect();
        let mut unused = self.replaced()?;
        unused.retain(|path| path.file_stem().is_none_or(|layer| !used.contains(layer)));
        for path in &mut unused {
            let target = self.staging_path();
            let renamed = self.disk().rename(path, &target);
            renamed.map_err(failed("set aside", path))?;
            *path = target;
        }
        if !unused.is_empty() {
            self.sync_directory(&self.path("replaced"))?;
        }
        Ok(unused)
    }

    fn replaced(&self) -> Result<Vec<PathBuf>, StoreError> {
        let directory = self.path("replaced");
        let entries = fs::read_dir(&directory).map_err(failed("list", &directory))?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        paths
            .collect::<Result<_, _>>()
            .map_err(failed("list", &directory))
    }
}

impl Drop for Suspects {
    fn drop(&mut self) {
        let mut suspects = lock(&self.store.inner.suspects);
        suspects.retain(|layer| !self.layers.contains(layer));
    }
}
