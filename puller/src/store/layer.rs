//! Layers: made in staging, then given their name at once.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;

use super::{FileList, Store, StoreError, failed};
use crate::unpack::Unpacked;

/// Mode of a layer's root whose archive does not say; the root directory's usual one.
const ROOT_MODE: u32 = 0o755;

/// A directory for a layer that is being unpacked; removed when dropped before its commit.
#[derive(Debug)]
pub(crate) struct Staging {
    store: Store,
    path: PathBuf,
}

impl Store {
    /// Where the layer `diff_id` is, if it is there.
    pub(crate) fn layer(&self, diff_id: &Digest) -> Option<PathBuf> {
        let path = self.layer_path(diff_id);
        path.is_dir().then_some(path)
    }

    /// Where the layer `diff_id` is or will be. The digest was checked to be hex when it was read.
    pub(super) fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.path("layers").join(diff_id.digest())
    }

    /// An empty directory to unpack a layer into. Blocking.
    pub(crate) fn stage(&self) -> Result<Staging, StoreError> {
        let path = self.staging_path();
        let made = self.disk().make_directories(&path, ROOT_MODE);
        // Again, since the process's umask may have taken bits away.
        made.and_then(|()| fs::set_permissions(&path, Permissions::from_mode(ROOT_MODE)))
            .map_err(failed("create", &path))?;
        Ok(Staging {
            store: self.clone(),
            path,
        })
    }
}

impl Staging {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A list for the files that are unpacked. Blocking.
    pub(crate) fn list(&self) -> Result<FileList, StoreError> {
        self.store.new_list()
    }

    /// Makes this the layer `diff_id`, durably, with what its archive was like and the list of its
    /// files. Power loss before the end leaves no layer of that name or a whole one. If it exists
    /// already, the existing one stays. Blocking.
    pub(crate) fn commit(
        self,
        diff_id: &Digest,
        unpacked: &Unpacked,
        list: Option<FileList>,
    ) -> Result<PathBuf, StoreError> {
        let target = self.store.layer_path(diff_id);
        let replaces = target.is_dir();
        if replaces && !self.store.is_suspect(diff_id) {
            return Ok(target);
        }
        self.store.put_implied(diff_id, &unpacked.implied)?;
        if let Some(list) = list {
            let replaced = unpacked.has_replaced.then_some(self.path());
            self.store.keep_list(list, diff_id, replaced)?;
        }
        self.store.inner.spools.settle();
        let disk = self.store.disk();
        disk.flush(&self.path)
            .map_err(failed("flush", &self.path))?;
        if replaces {
            self.store.set_replaced(diff_id)?;
        }
        if let Err(error) = disk.rename(&self.path, &target) {
            // What cannot be put back now is when the store is opened the next time.
            let _ = self.store.put_back();
            return Err(failed("name layer", &target)(error));
        }
        self.store.sync_directory(&self.store.path("layers"))?;
        Ok(target)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After a commit there is nothing here; what cannot be removed now goes when the store is
        // opened the next time.
        let _ = self.store.remove_tree(&self.path);
    }
}
