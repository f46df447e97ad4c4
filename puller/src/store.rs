//! Images and layers on disk.
//!
//! ```text
//! root/lock                        held by the process that has the store open
//! root/layers/<diff_id>/           one whole, verified layer; never changed once it has this name
//! root/implied/<diff_id>           directories that layer uses without listing them, if any
//! root/files/<diff_id>             what that layer's files were, if it is known
//! root/replaced/<diff_id>.<n>/      a damaged layer that was replaced while modules may use it
//! root/images/<hash>.json          one record per reference
//! root/images/configs/<image id>   configurations, byte for byte
//! root/spool/<digest>              beginnings of compressed layers, where that is asked for
//! root/metered.json                what was fetched today, where that is limited
//! root/staging/                    what is being made; emptied when the store is opened
//! ```
//!
//! What a read-only store beneath has is a link to it in the same place.
//!
//! A layer is flushed before it gets its name, and a record is written after its layers: what can
//! be found after a power loss is whole.

mod collect;
mod disk;
mod donor;
mod files;
mod layer;
mod metered;
mod parents;
mod preloaded;
mod record;
mod space;
mod spool;
mod suspect;
mod sweep;
mod verify;

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nix::fcntl::{Flock, FlockArg};
use oci_spec::image::Digest;
use thiserror::Error;

pub use collect::{Collected, Roots};
use disk::Disk;
pub(crate) use donor::Place;
pub(crate) use files::FileList;
pub(crate) use layer::Staging;
pub(crate) use parents::parents_id;
pub(crate) use record::Record;
pub use record::{Images, PulledImage};
pub use space::Space;
pub(crate) use spool::Spool;
use spool::Spools;
pub use sweep::Swept;
pub use verify::{Damage, Part, Verified};

/// Stores this process has open, so that opening one again shares its locks.
static OPEN: Mutex<Vec<(PathBuf, Weak<Inner>)>> = Mutex::new(Vec::new());

/// Images and layers below one directory. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// Why the store failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file system refused.
    #[error("{action} {}", .path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Another process has the store open.
    #[error("open store {}: another process has it open", .path.display())]
    Busy {
        /// The store's root.
        path: PathBuf,
    },
    /// The image is from the read-only store beneath, and stays.
    #[error("remove image {reference}: it is preloaded, in a store that is only read")]
    Preloaded {
        /// The image.
        reference: String,
    },
    /// An image record cannot be read; pulling its reference again replaces it.
    #[error("read image record {}", .path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An image record was written by a version that writes another schema.
    #[error("read image record {}: its schema is {schema}", .path.display())]
    Schema {
        /// The record.
        path: PathBuf,
        /// The schema it has.
        schema: u32,
    },
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    /// Digests that pulls under way need, with the number of pulls.
    pins: Mutex<HashMap<Digest, usize>>,
    /// Damaged layers that are being fetched anew.
    suspects: Mutex<HashSet<Digest>>,
    serial: AtomicU64,
    disk: Disk,
    spools: Spools,
    _lock: Flock<File>,
}

/// Keeps some layers and configurations from being swept, until dropped.
#[derive(Debug)]
pub(crate) struct Pins {
    inner: Arc<Inner>,
    digests: Vec<Digest>,
}

impl Store {
    /// Opens the store at `root`, making its directories, for this process only: a second open in
    /// the same process gives the same store, one in another process is [`StoreError::Busy`].
    /// Removes what an interrupted pull left in `staging`. Blocking.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_over(root.as_ref(), None)
    }

    /// As [`Self::open`], over a read-only store that was made by another [`Self::open`]: its images
    /// and layers are used without a copy of them, nothing in it is written, and none of it is removed.
    /// One that is not there is empty. A store that this process has open already stays what it is over.
    pub fn open_over(root: &Path, preloaded: Option<&Path>) -> Result<Self, StoreError> {
        let disk = Disk::default();
        for directory in [
            "layers",
            "implied",
            "files",
            "replaced",
            "images/configs",
            "spool",
            "staging",
        ] {
            make_directories(&disk, &root.join(directory))?;
        }
        let root = &root.canonicalize().map_err(failed("find", root))?;
        let mut open = lock(&OPEN);
        open.retain(|(_, inner)| inner.strong_count() > 0);
        let known = open.iter().find(|(path, _)| path == root);
        if let Some(inner) = known.and_then(|(_, inner)| inner.upgrade()) {
            return Ok(Self { inner });
        }
        let inner = Arc::new(Inner {
            root: root.clone(),
            pins: Mutex::default(),
            suspects: Mutex::default(),
            serial: AtomicU64::new(0),
            disk,
            spools: Spools::default(),
            _lock: lock_root(root)?,
        });
        open.push((root.clone(), Arc::downgrade(&inner)));
        let store = Self { inner };
        store.empty_staging()?;
        store.put_back()?;
        store.link_preloaded(preloaded)?;
        Ok(store)
    }

    /// The directory the store was opened at, with links resolved.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Keeps `digests` from being swept while the result lives.
    pub(crate) fn pin(&self, digests: impl IntoIterator<Item = Digest>) -> Pins {
        let digests: Vec<Digest> = digests.into_iter().collect();
        let mut pins = lock(&self.inner.pins);
        for digest in &digests {
            *pins.entry(digest.clone()).or_default() += 1;
        }
        Pins {
            inner: self.inner.clone(),
            digests,
        }
    }

    fn empty_staging(&self) -> Result<(), StoreError> {
        let staging = self.path("staging");
        for entry in fs::read_dir(&staging).map_err(failed("list", &staging))? {
            let path = entry.map_err(failed("list", &staging))?.path();
            self.remove_tree(&path)?;
        }
        Ok(())
    }

    fn disk(&self) -> &Disk {
        &self.inner.disk
    }

    /// Removes a file, or a directory with all below it; nothing to remove is fine.
    fn remove_tree(&self, path: &Path) -> Result<(), StoreError> {
        let removed = self.disk().remove(path);
        removed.map_err(failed("remove", path))
    }

    /// Makes the names in `directory` survive a power loss.
    fn sync_directory(&self, directory: &Path) -> Result<(), StoreError> {
        let synced = self.disk().flush_names(directory);
        synced.map_err(failed("flush", directory))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.inner.root.join(name)
    }

    /// A name in `staging` that nobody has.
    fn staging_path(&self) -> PathBuf {
        let serial = self.inner.serial.fetch_add(1, Ordering::Relaxed);
        self.path("staging").join(serial.to_string())
    }
}

impl StoreError {
    /// Something else removed a part of an image that was just written.
    pub(crate) fn vanished(store: &Store) -> Self {
        let missing = io::ErrorKind::NotFound;
        failed::<io::Error>("find the image just stored in", store.root())(missing.into())
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        let mut pins = lock(&self.inner.pins);
        for digest in &self.digests {
            if let Some(count) = pins.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    pins.remove(digest);
                }
            }
        }
    }
}

/// A closure for `map_err`: `action` failed on `path`.
fn failed<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        action,
        path,
        source: source.into(),
    }
}

/// Layers may hold setuid programs: nobody but the owner can reach below.
fn make_directories(disk: &Disk, path: &Path) -> Result<(), StoreError> {
    let made = disk.make_directories(path, 0o700);
    made.map_err(failed("create", path))
}

fn lock_root(root: &Path) -> Result<Flock<File>, StoreError> {
    let path = root.join("lock");
    let mut options = File::options();
    options.create(true).write(true).truncate(false);
    let file = options.open(&path).map_err(failed("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::errno::Errno::EWOULDBLOCK => StoreError::Busy {
            path: root.to_owned(),
        },
        other => failed("lock", &path)(other),
    })
}

/// A panic elsewhere leaves these maps whole: every change under their locks is complete in itself.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod full;
#[cfg(test)]
mod power_cut;
#[cfg(test)]
mod tests;
