//! A read-only store that came with the root file system: used as it is, by links, without a copy.
//!
//! Whatever it has and this store has not gets a symbolic link in its place when the store is opened,
//! so that a name below this root means the same from then on, whatever becomes of the store beneath:
//! a layer that is found damaged is replaced by one of our own. There are no other links in these
//! directories; those that lead nowhere any more go.

use std::fs;
use std::io;
use std::path::Path;

use oci_spec::distribution::Reference;

use super::{Store, StoreError, failed};

/// What is taken, records last: they are of use when the rest is there.
const LINKED: [&str; 5] = ["layers", "implied", "files", "images/configs", "images"];

impl Store {
    /// Whether the image is from the read-only store.
    pub fn is_preloaded(&self, reference: &Reference) -> bool {
        self.record_path(reference).is_symlink()
    }

    /// Removes links to any other store than `lower`, and makes those that are missing. Needs no flush:
    /// it is done again each time.
    pub(super) fn link_preloaded(&self, lower: Option<&Path>) -> Result<(), StoreError> {
        for directory in LINKED {
            let lower = lower.map(|lower| lower.join(directory));
            self.unlink(directory, lower.as_deref())?;
            if let Some(lower) = lower {
                self.link(directory, &lower)?;
            }
        }
        Ok(())
    }

    fn unlink(&self, directory: &str, lower: Option<&Path>) -> Result<(), StoreError> {
        let directory = self.path(directory);
        for entry in fs::read_dir(&directory).map_err(failed("list", &directory))? {
            let path = entry.map_err(failed("list", &directory))?.path();
            let Ok(target) = fs::read_link(&path) else {
                continue;
            };
            if target.parent() != lower || !path.exists() {
                self.remove_tree(&path)?;
            }
        }
        Ok(())
    }

    fn link(&self, directory: &str, lower: &Path) -> Result<(), StoreError> {
        let entries = match fs::read_dir(lower) {
            Ok(entries) => entries,
            // A root file system that came without it does not keep the device from running.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed("list", lower)(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed("list", lower))?;
            let link = self.path(directory).join(entry.file_name());
            // Of the directories only that of configurations has another beside it.
            if link.symlink_metadata().is_err() {
                let linked = self.disk().link(&entry.path(), &link);
                linked.map_err(failed("link", &link))?;
            }
        }
        Ok(())
    }
}
