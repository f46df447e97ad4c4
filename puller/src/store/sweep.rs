//! Removing layers that nobody needs: marked anew each time from records and pulls under way, no
//! counters are stored.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Store, StoreError, failed, lock};

/// What a sweep removed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Swept {
    /// Layers removed.
    pub layers: usize,
    /// Image configurations removed.
    pub configs: usize,
}

impl Store {
    /// Removes layers that no readable image record names, no pull under way needs, and `keep` does
    /// not list: `keep` holds layer directories that are in use though their image was removed, as
    /// [`super::PulledImage::layers`] gave them. A layer loses its name before its files go, so an
    /// interruption leaves no half layer. Beginnings of layers that nobody went on fetching for a week
    /// go too. Blocking.
    pub fn sweep(&self, keep: &[PathBuf]) -> Result<Swept, StoreError> {
        // Held until all names are gone: a pull that begins now waits, and then finds none of them.
        let pins = lock(&self.inner.pins);
        let mut used: HashSet<OsString> = pins
            .keys()
            .map(|digest| OsString::from(digest.digest()))
            .collect();
        used.extend(
            keep.iter()
                .filter_map(|path| path.file_name())
                .map(OsString::from),
        );
        // Unreadable records name nothing; their images have to be pulled again anyway.
        for record in self.records()?.into_iter().flatten() {
            let digests = record.layers().chain([&record.id]);
            used.extend(digests.map(|digest| OsString::from(digest.digest())));
        }
        let layers = self.set_aside(&self.path("layers"), &used)?;
        let implied = self.set_aside(&self.path("implied"), &used)?;
        let lists = self.set_aside(&self.path("files"), &used)?;
        let configs = self.set_aside(&self.path("images/configs"), &used)?;
        drop(pins);
        self.sweep_spool()?;
        let swept = Swept {
            layers: layers.len(),
            configs: configs.len(),
        };
        for path in layers
            .into_iter()
            .chain(configs)
            .chain(implied)
            .chain(lists)
        {
            self.remove_tree(&path)?;
        }
        Ok(swept)
    }

    /// Moves everything in `directory` that is not used to staging, and says where it is now.
    fn set_aside(
        &self,
        directory: &Path,
        used: &HashSet<OsString>,
    ) -> Result<Vec<PathBuf>, StoreError> {
        let mut moved = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed("list", directory))? {
            let entry = entry.map_err(failed("list", directory))?;
            if used.contains(&entry.file_name()) {
                continue;
            }
            let target = self.staging_path();
            self.disk()
                .rename(&entry.path(), &target)
                .map_err(failed("set aside", &entry.path()))?;
            moved.push(target);
        }
        if !moved.is_empty() {
            self.sync_directory(directory)?;
        }
        Ok(moved)
    }
}
