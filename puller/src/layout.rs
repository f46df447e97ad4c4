//! Images from and to files instead of a registry: OCI layouts and docker's archives, as directories or in
//! one tar file. Content is verified as a registry's is. Never follows a path that a file names.

mod error;
mod files;
mod read;
mod save;
mod target;

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use oci_spec::distribution::Reference;
use oci_spec::image::Digest;

use crate::digest;
use crate::layer::{self, LocalLayer};
use crate::manifest::{self, Compression};
use crate::platform::Platform;
use crate::store::{PulledImage, Record, Store, parents_id};
pub use error::LayoutError;
use files::Files;
use read::{Found, FoundLayer};
pub use save::{Saved, save};
pub use target::SaveFormat;

/// Name of the annotation of an index that has the digest of a deployment.
pub(crate) const DEPLOYMENT: &str = "kobune.deployment";
/// Name of the file with the digest of `index.json`, in what we write.
pub(crate) const INDEX_SUM: &str = "index.sha256";
/// Bytes on the disk for each byte of a compressed layer.
const UNPACKED: u64 = 3;

/// What a file had.
#[derive(Debug)]
pub struct Loaded {
    /// Images that are in the store now.
    pub images: Vec<PulledImage>,
    /// The deployment that a bundle carries.
    pub deployment: Option<String>,
}

/// Takes every image of `path` for `platform` into the store: an OCI layout or what `docker save`
/// wrote, as directory or tar file. Layers that the store has need not be there. Blocking.
///
/// Everything is looked at before the first layer is unpacked, but for layers' own content. On an
/// error images that were whole before it stay, as do their layers; repeating it is safe.
pub fn load(
    store: &Store,
    path: &Path,
    platform: &Platform,
    reserve: u64,
) -> Result<Loaded, LayoutError> {
    let files = Files::open(path)?;
    let found = read::images(&files, platform)?;
    let deployment = read::deployment(&files)?;
    let wanted = found.iter().flat_map(|image| {
        let layers = image.layers.iter().map(|layer| layer.diff_id.clone());
        let parents = parents_id(&layers.clone().collect::<Vec<_>>());
        layers.chain([image.id.clone(), parents])
    });
    let _pins = store.pin(wanted);
    check(store, &files, &found, reserve)?;
    let mut images = Vec::new();
    for image in found {
        images.push(take(store, &files, image)?);
    }
    Ok(Loaded { images, deployment })
}

/// Every layer is here or there, and there is room for those that are there.
fn check(store: &Store, files: &Files, found: &[Found], reserve: u64) -> Result<(), LayoutError> {
    let mut seen = HashSet::new();
    let mut needed: u64 = 0;
    for image in found {
        for layer in &image.layers {
            if store.good_layer(&layer.diff_id).is_some() || !seen.insert(&layer.diff_id) {
                continue;
            }
            let size = files
                .size(&layer.name)
                .ok_or_else(|| LayoutError::Missing {
                    image: image.reference.whole(),
                    name: layer.name.clone(),
                })?;
            let factor = match layer.compression {
                Compression::None => 1,
                Compression::Gzip | Compression::Zstd => UNPACKED,
            };
            needed = needed.saturating_add(size.saturating_mul(factor));
        }
    }
    let free = store.space()?.free;
    if needed > 0 && free.saturating_sub(reserve) < needed {
        return Err(LayoutError::Room {
            needed,
            free,
            reserve,
        });
    }
    Ok(())
}

fn take(store: &Store, files: &Files, image: Found) -> Result<PulledImage, LayoutError> {
    let mut size = 0;
    for layer in &image.layers {
        size += files.size(&layer.name).unwrap_or_default();
        if store.good_layer(&layer.diff_id).is_none() {
            take_layer(store, files, layer)?;
        }
    }
    let now = SystemTime::now();
    let mut record = Record::new(&image.reference, now, image.manifest, image.id);
    record.diff_ids = image
        .layers
        .into_iter()
        .map(|layer| layer.diff_id)
        .collect();
    record.size = size;
    record.parents = store.repair_parents(&record.diff_ids)?;
    store.put_config(&record.id, &image.config)?;
    store.put_record(&image.reference, &record)?;
    let kept = store.lookup(&image.reference)?;
    kept.ok_or_else(|| crate::store::StoreError::vanished(store).into())
}

fn take_layer(store: &Store, files: &Files, layer: &FoundLayer) -> Result<(), LayoutError> {
    let blob = files.read(&layer.name)?;
    let local = LocalLayer {
        digest: layer.digest.as_ref(),
        diff_id: &layer.diff_id,
        compression: layer.compression,
    };
    layer::take_local(store, &local, blob)
        .map(drop)
        .map_err(|failure| LayoutError::of_layer(&layer.name, failure))
}

/// Reads a small file whole.
fn document(files: &Files, name: &str) -> Result<Option<Vec<u8>>, LayoutError> {
    let Some(size) = files.size(name) else {
        return Ok(None);
    };
    if size > manifest::MAX_DOCUMENT {
        let why = format!("it has more than {} bytes", manifest::MAX_DOCUMENT);
        return Err(files.broken(name, why));
    }
    let mut body = Vec::new();
    let read = files.read(name)?.read_to_end(&mut body);
    read.map_err(|error| files.broken(name, error))?;
    Ok(Some(body))
}

/// Reads a small blob whole, and verifies it.
fn blob(files: &Files, digest: &Digest) -> Result<Vec<u8>, LayoutError> {
    let name = blob_name(digest);
    let body = document(files, &name)?.ok_or_else(|| files.broken(&name, "it is not there"))?;
    digest::verify(&body, digest).map_err(|error| files.broken(&name, error))?;
    Ok(body)
}

/// Where a layout has a blob. The digest was checked.
pub(crate) fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digest())
}

/// What an image in a layout is called.
fn named(reference: &str) -> Option<Reference> {
    crate::reference::parse_reference(reference).ok()
}
