//! Directories that a layer uses without listing them.
//!
//! An archive may hold `tmp/file` without `tmp/`. Unpacked by itself, such a layer gets a `tmp` of
//! the default mode and owner, which overlayfs would show instead of the lower layer's. Layers are
//! shared between images, so the right metadata cannot be put into them; an image that needs it gets
//! one more layer on top, with nothing but such directories.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, FileTimes, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;

use super::{Store, StoreError, failed};
use crate::digest::sha256;
use crate::unpack::{Unpacked, hides_lower};

/// One layer of an image under repair.
struct Level {
    root: PathBuf,
    implied: BTreeSet<Vec<u8>>,
}

/// What one layer says about a directory.
enum Said {
    /// Nothing; lower layers count.
    Nothing,
    /// It is there.
    Directory(Metadata),
    /// Something there hides all lower layers.
    Hidden,
}

/// The name of the layer that corrects the directories of an image with these layers.
pub(crate) fn parents_id(diff_ids: &[Digest]) -> Digest {
    let names = diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    sha256(format!("directories above {}", names.join(" ")).as_bytes())
}

impl Store {
    /// Makes the layer that corrects directories of the image with these layers, lowest first, if
    /// it needs one. Mode, owner and time are corrected, extended attributes are not. Blocking.
    pub(crate) fn repair_parents(&self, diff_ids: &[Digest]) -> Result<Option<Digest>, StoreError> {
        let levels = diff_ids
            .iter()
            .map(|diff_id| self.level(diff_id))
            .collect::<Result<Vec<_>, _>>()?;
        let mut wrong = BTreeMap::new();
        for path in levels.iter().skip(1).flat_map(|level| &level.implied) {
            if let Some(metadata) = correction(&levels, path)? {
                wrong.insert(path.clone(), metadata);
            }
        }
        if wrong.is_empty() {
            return Ok(None);
        }
        let id = parents_id(diff_ids);
        if self.layer(&id).is_none() {
            self.make_parents(&levels, &wrong, &id)?;
        }
        Ok(Some(id))
    }

    /// Keeps the list of directories that a layer does not list, before the layer gets its name.
    pub(super) fn put_implied(
        &self,
        diff_id: &Digest,
        implied: &BTreeSet<Vec<u8>>,
    ) -> Result<(), StoreError> {
        if implied.is_empty() {
            return Ok(());
        }
        let names: Vec<&[u8]> = implied.iter().map(Vec::as_slice).collect();
        self.write_atomic(&self.implied_path(diff_id), &names.join(&0))
    }

    fn implied_path(&self, diff_id: &Digest) -> PathBuf {
        self.path("implied").join(diff_id.digest())
    }

    /// What a layer is to be packed of: its root, and the directories it does not list. Blocking.
    pub(crate) fn packable(
        &self,
        diff_id: &Digest,
    ) -> Result<(PathBuf, BTreeSet<Vec<u8>>), StoreError> {
        let Level { root, implied } = self.level(diff_id)?;
        Ok((root, implied))
    }

    fn level(&self, diff_id: &Digest) -> Result<Level, StoreError> {
        let path = self.implied_path(diff_id);
        let implied = match fs::read(&path) {
            Ok(body) => body.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let root = self.layer_path(diff_id);
        Ok(Level {
            // It may be a link to a preloaded one.
            root: root.canonicalize().map_err(failed("find", &root))?,
            implied,
        })
    }

    fn make_parents(
        &self,
        levels: &[Level],
        wrong: &BTreeMap<Vec<u8>, Metadata>,
        id: &Digest,
    ) -> Result<(), StoreError> {
        let staging = self.stage()?;
        // A directory above a corrected one has to be there, and to look as it does now.
        let mut needed: BTreeMap<Vec<u8>, Metadata> = BTreeMap::new();
        for (path, metadata) in wrong {
            for above in prefixes(path) {
                if let Some(metadata) = shown(levels, above)? {
                    needed.entry(above.to_vec()).or_insert(metadata);
                }
            }
            needed.insert(path.clone(), metadata.clone());
        }
        let root = staging.path().to_owned();
        for (path, metadata) in &needed {
            let target = at(&root, path);
            copy(&target, metadata, path.is_empty()).map_err(failed("create", &target))?;
        }
        // Times last, deepest first: nothing is put into a directory after its time is set.
        for (path, metadata) in needed.iter().rev() {
            let target = at(&root, path);
            set_time(&target, metadata).map_err(failed("set the time of", &target))?;
        }
        let nothing = Unpacked::default();
        staging.commit(id, &nothing, None).map(|_| ())
    }
}

/// The metadata `path` should have, if overlayfs would show other.
fn correction(levels: &[Level], path: &[u8]) -> Result<Option<Metadata>, StoreError> {
    let Some(now) = shown(levels, path)? else {
        return Ok(None);
    };
    for level in levels.iter().rev() {
        match level.says(path)? {
            Said::Directory(metadata) if !level.implied.contains(path) => {
                let same = |of: fn(&Metadata) -> u32| of(&metadata) == of(&now);
                let is_right = same(Metadata::mode) && same(Metadata::uid) && same(Metadata::gid);
                return Ok((!is_right).then_some(metadata));
            }
            Said::Hidden => return Ok(None),
            Said::Directory(_) | Said::Nothing => {}
        }
        if level.hides(path) {
            return Ok(None);
        }
    }
    Ok(None)
}

/// The metadata overlayfs shows for the directory `path`: that of the highest layer that has it.
fn shown(levels: &[Level], path: &[u8]) -> Result<Option<Metadata>, StoreError> {
    for level in levels.iter().rev() {
        match level.says(path)? {
            Said::Directory(metadata) => return Ok(Some(metadata)),
            Said::Hidden => return Ok(None),
            Said::Nothing if level.hides(path) => return Ok(None),
            Said::Nothing => {}
        }
    }
    Ok(None)
}

impl Level {
    /// Goes down component by component: no link in a layer is followed.
    fn says(&self, path: &[u8]) -> Result<Said, StoreError> {
        let mut last = Said::Nothing;
        for name in prefixes(path).chain([path]) {
            let place = at(&self.root, name);
            last = match fs::symlink_metadata(&place) {
                Ok(metadata) if metadata.is_dir() => Said::Directory(metadata),
                Ok(_) => return Ok(Said::Hidden),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Said::Nothing),
                Err(error) => return Err(failed("read", &place)(error)),
            };
        }
        Ok(last)
    }

    /// True if a directory on the way, or the last one, is opaque. Only for paths that are
    /// directories here as far as they exist.
    fn hides(&self, path: &[u8]) -> bool {
        prefixes(path).chain([path]).any(|name| {
            let place = at(&self.root, name);
            fs::symlink_metadata(&place).is_ok_and(|metadata| metadata.is_dir())
                && hides_lower(&place)
        })
    }
}

/// The directories above `path`, from the root on, without `path` itself.
fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let root = (!path.is_empty()).then_some(&path[..0]);
    let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
    root.into_iter()
        .chain(slashes.map(|(position, _)| &path[..position]))
}

fn at(root: &Path, path: &[u8]) -> PathBuf {
    if path.is_empty() {
        return root.to_owned();
    }
    root.join(std::ffi::OsStr::from_bytes(path))
}

/// Makes `target` a directory with the owner and mode of `metadata`.
fn copy(target: &Path, metadata: &Metadata, exists: bool) -> io::Result<()> {
    if !exists {
        DirBuilder::new().mode(0o700).create(target)?;
    }
    // The owner first: chown takes mode bits away.
    lchown(target, Some(metadata.uid()), Some(metadata.gid()))?;
    fs::set_permissions(target, Permissions::from_mode(metadata.mode() & 0o7777))
}

fn set_time(target: &Path, metadata: &Metadata) -> io::Result<()> {
    let time = metadata.modified()?;
    let times = FileTimes::new().set_modified(time).set_accessed(time);
    File::open(target)?.set_times(times)
}
