//! Removing images that nobody needs, by when they were last needed. What is needed the caller says;
//! the time is that of the record's file.

use std::collections::HashSet;
use std::fs::{File, FileTimes};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use oci_spec::distribution::Reference;

use super::{Store, StoreError, Swept, failed};

/// What may not be removed, beside what pulls under way need.
#[derive(Debug, Default, Clone)]
pub struct Roots {
    /// Images by what they were pulled as, as [`Reference::whole`] has it.
    pub references: HashSet<String>,
    /// Images by their id.
    pub ids: HashSet<String>,
    /// Layer directories, whatever image they belong to.
    pub layers: Vec<PathBuf>,
}

/// What was removed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Collected {
    /// References forgotten.
    pub images: Vec<Reference>,
    /// Layers and configurations that went with them.
    pub swept: Swept,
    /// Bytes that the file system has got more, others' doings included.
    pub freed: u64,
}

impl Store {
    /// Forgets images that are in no `roots` and were in none for `unused`, and sweeps. Images in
    /// `roots` count as needed now, and preloaded ones always stay. A clock that was set back keeps images, and never removes one.
    ///
    /// Needs no room on the disk but for names in `staging`. Interrupted, it leaves whole images;
    /// repeating it is safe. Blocking.
    pub fn collect(&self, roots: &Roots, unused: Duration) -> Result<Collected, StoreError> {
        let before = self.space()?.free;
        let now = SystemTime::now();
        let mut collected = Collected::default();
        for image in self.images()?.images {
            if self.is_preloaded(&image.reference) {
                continue;
            }
            let is_root = roots.references.contains(&image.reference.whole())
                || roots.ids.contains(image.id.as_ref());
            if is_root {
                self.mark_needed(&image.reference, now)?;
                continue;
            }
            let needed = self.last_needed(&image.reference)?;
            let age = now.duration_since(needed).unwrap_or_default();
            if age >= unused && self.remove(&image.reference)? {
                collected.images.push(image.reference);
            }
        }
        collected.swept = self.sweep(&roots.layers)?;
        collected.freed = self.space()?.free.saturating_sub(before);
        Ok(collected)
    }

    fn last_needed(&self, reference: &Reference) -> Result<SystemTime, StoreError> {
        let path = self.record_path(reference);
        let time = path.metadata().and_then(|metadata| metadata.modified());
        time.map_err(failed("look at", &path))
    }

    fn mark_needed(&self, reference: &Reference, now: SystemTime) -> Result<(), StoreError> {
        let path = self.record_path(reference);
        let times = FileTimes::new().set_modified(now);
        let marked = File::open(&path).and_then(|file| file.set_times(times));
        marked.map_err(failed("set the time of", &path))
    }
}
