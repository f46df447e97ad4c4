//! Which images there are, by the documents of an OCI layout or of `docker save`.

use std::io::Read;

use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, Digest, ImageIndex};
use serde::Deserialize;

use super::{DEPLOYMENT, Files, INDEX_SUM, LayoutError, blob, blob_name, document, named};
use crate::digest;
use crate::manifest::{self, Compression, Document};
use crate::platform::{self, Platform};

/// Indexes in indexes that are followed.
const MAX_INDEXES: usize = 3;

/// An image that is all there, but for layers.
pub(super) struct Found {
    pub(super) reference: Reference,
    pub(super) manifest: Digest,
    pub(super) id: Digest,
    pub(super) config: Vec<u8>,
    pub(super) layers: Vec<FoundLayer>,
}

pub(super) struct FoundLayer {
    pub(super) name: String,
    /// Of the file; docker's archives do not say.
    pub(super) digest: Option<Digest>,
    pub(super) compression: Compression,
    pub(super) diff_id: Digest,
}

/// An entry of docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// All images. One without a name is an error: nobody could ask for it.
pub(super) fn images(files: &Files, platform: &Platform) -> Result<Vec<Found>, LayoutError> {
    let found = if let Some(index) = index(files)? {
        let mut found = Vec::new();
        for descriptor in index.manifests() {
            found.push(image(files, descriptor, platform)?);
        }
        found
    } else if let Some(body) = document(files, "manifest.json")? {
        let saved: Vec<Saved> =
            serde_json::from_slice(&body).map_err(|error| files.broken("manifest.json", error))?;
        let mut found = Vec::new();
        for image in &saved {
            found.extend(saved_images(files, image)?);
        }
        found
    } else {
        let why = "it has neither an index.json nor a manifest.json: it is no OCI layout, and nothing that docker saved (compressed ones have to be unpacked first)";
        return Err(files.broken("its files", why));
    };
    if found.is_empty() {
        return Err(files.broken("its index", "it has no image with a name"));
    }
    Ok(found)
}

/// The deployment of a bundle.
pub(super) fn deployment(files: &Files) -> Result<Option<String>, LayoutError> {
    let Some(index) = index(files)? else {
        return Ok(None);
    };
    let annotations = index.annotations().as_ref();
    let Some(digest) = annotations.and_then(|all| all.get(DEPLOYMENT)) else {
        return Ok(None);
    };
    let digest = manifest::digest(digest).map_err(|error| files.broken("index.json", error))?;
    let text = String::from_utf8(blob(files, &digest)?);
    let text = text.map_err(|error| files.broken(&blob_name(&digest), error))?;
    Ok(Some(text))
}

fn index(files: &Files) -> Result<Option<ImageIndex>, LayoutError> {
    let Some(body) = document(files, "index.json")? else {
        return Ok(None);
    };
    if let Some(sum) = document(files, INDEX_SUM)?
        && String::from_utf8_lossy(&sum).trim() != digest::sha256(&body).as_ref()
    {
        return Err(files.broken("index.json", "it is not what was bundled"));
    }
    let index = serde_json::from_slice(&body);
    index
        .map(Some)
        .map_err(|error| files.broken("index.json", error))
}

/// What docker, containerd, skopeo and podman call an image of a layout.
fn name_of(descriptor: &Descriptor) -> Option<Reference> {
    let annotations = descriptor.annotations().as_ref()?;
    let names = [
        "io.containerd.image.name",
        "org.opencontainers.image.ref.name",
    ];
    names.iter().find_map(|name| named(annotations.get(*name)?))
}

fn image(
    files: &Files,
    descriptor: &Descriptor,
    platform: &Platform,
) -> Result<Found, LayoutError> {
    let unnamed = || files.broken("index.json", "an image in it has no name");
    let reference = name_of(descriptor).ok_or_else(unnamed)?;
    let mut descriptor = descriptor.clone();
    for _ in 0..=MAX_INDEXES {
        let name = blob_name(descriptor.digest());
        let broken = |error| files.broken(&name, error);
        manifest::check_document(&descriptor).map_err(broken)?;
        let body = blob(files, descriptor.digest())?;
        let media_type = descriptor.media_type().to_string();
        match manifest::read(&body, Some(&media_type)).map_err(broken)? {
            Document::Index(index) => {
                let chosen = platform::choose(index.manifests(), platform).cloned();
                descriptor = chosen.ok_or_else(|| {
                    let why = format!("it has no image of {reference} for {platform}");
                    files.broken(&name, why)
                })?;
            }
            Document::Manifest(read) => {
                manifest::check_config(read.config()).map_err(broken)?;
                let id = read.config().digest().clone();
                let config = blob(files, &id)?;
                let parsed = manifest::config(&config).map_err(broken)?;
                let layers = manifest::layers(&read, &parsed).map_err(broken)?;
                let found = |layer: manifest::Layer| FoundLayer {
                    name: blob_name(&layer.digest),
                    digest: Some(layer.digest),
                    compression: layer.compression,
                    diff_id: layer.diff_id,
                };
                return Ok(Found {
                    reference,
                    manifest: descriptor.digest().clone(),
                    id,
                    config,
                    layers: layers.into_iter().map(found).collect(),
                });
            }
        }
    }
    Err(files.broken("index.json", "indexes list indexes"))
}

/// An image of docker's, once for each of its names.
fn saved_images(files: &Files, saved: &Saved) -> Result<Vec<Found>, LayoutError> {
    let none = || files.broken(&saved.config, "it is not there");
    let config = document(files, &saved.config)?.ok_or_else(none)?;
    let id = digest::sha256(&config);
    if !saved.config.contains(id.digest()) {
        return Err(files.broken(&saved.config, format!("its content has digest {id}")));
    }
    let parsed = manifest::config(&config).map_err(|error| files.broken(&saved.config, error))?;
    let diff_ids = parsed.rootfs().diff_ids();
    if diff_ids.len() != saved.layers.len() {
        let why = format!(
            "it has {} diff_ids, not {}",
            diff_ids.len(),
            saved.layers.len()
        );
        return Err(files.broken(&saved.config, why));
    }
    let mut found = Vec::new();
    for tag in saved.repo_tags.iter().flatten() {
        let reference = named(tag);
        let bad = || files.broken("manifest.json", format!("{tag:?} is no name of an image"));
        let mut layers = Vec::new();
        for (name, diff_id) in saved.layers.iter().zip(diff_ids) {
            let diff_id = manifest::digest(diff_id);
            layers.push(FoundLayer {
                name: name.clone(),
                digest: None,
                compression: compression(files, name)?,
                diff_id: diff_id.map_err(|error| files.broken(&saved.config, error))?,
            });
        }
        found.push(Found {
            reference: reference.ok_or_else(bad)?,
            manifest: id.clone(),
            id: id.clone(),
            config: config.clone(),
            layers,
        });
    }
    Ok(found)
}

/// Docker's archives do not say how a layer is packed; its first bytes do.
fn compression(files: &Files, name: &str) -> Result<Compression, LayoutError> {
    if files.size(name).is_none() {
        return Ok(Compression::None);
    }
    let mut magic = [0; 4];
    let read = files.read(name)?.read(&mut magic);
    read.map_err(|error| files.broken(name, error))?;
    Ok(match magic {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        _ => Compression::None,
    })
}
