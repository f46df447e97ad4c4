//! Manifests, indexes and configurations: which kind a document is, and whether it can be used.
//! Pure: bytes in, types out.

mod chunked;

pub(crate) use chunked::{Chunked, Part};

use oci_spec::image::{
    Descriptor, Digest, ImageConfiguration, ImageIndex, ImageManifest, MediaType,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::digest::is_supported;

/// Largest manifest, index or configuration: what registries accept at most (distribution
/// specification, "Pushing manifests").
pub(crate) const MAX_DOCUMENT: u64 = 4 << 20;
/// Most layers of one image; overlayfs takes 500 at most and docker makes 127.
const MAX_LAYERS: usize = 500;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What a client that can read all of the above asks for.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// What is wrong with a manifest, index or configuration.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// No JSON of the expected form.
    #[error("read its JSON")]
    Json(#[source] serde_json::Error),
    /// A format this crate does not read, such as schema 1 or an artifact.
    #[error("media type {0:?} is not supported")]
    MediaType(String),
    /// A layer that is to be fetched from elsewhere.
    #[error("layer {0} is foreign: its registry does not serve it")]
    Foreign(Digest),
    /// A digest that cannot be checked.
    #[error("digest {0:?} is not of a supported kind")]
    Digest(String),
    /// Manifest and configuration do not fit together.
    #[error("it has {layers} layers but {diff_ids} diff_ids")]
    Layers {
        /// Layers in the manifest.
        layers: usize,
        /// Layers in the configuration.
        diff_ids: usize,
    },
    /// A hostile or absurd size.
    #[error("it exceeds the limit of {limit} for {what}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A document that is manifest and index at once, or an index in an index in an index.
    #[error("it is ambiguous: {0}")]
    Ambiguous(&'static str),
}

/// What a registry may answer for a reference.
#[derive(Debug)]
pub(crate) enum Document {
    Index(Box<ImageIndex>),
    Manifest(Box<ImageManifest>),
}

/// How a layer's archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// One layer, as manifest and configuration together describe it.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) compression: Compression,
    pub(crate) diff_id: Digest,
    /// How single files of it can be fetched, if they can.
    pub(crate) chunked: Option<Chunked>,
}

/// The fields that tell documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

/// Reads what was served as `content_type`. The document's own media type counts more than the
/// header, which some servers set to a general one.
pub(crate) fn read(body: &[u8], content_type: Option<&str>) -> Result<Document, ManifestError> {
    let shape: Shape = json(body)?;
    if shape.manifests.is_some() && shape.layers.is_some() {
        return Err(ManifestError::Ambiguous("it lists manifests and layers"));
    }
    let header = content_type
        .and_then(|value| value.split(';').next())
        .map(str::trim);
    match shape.media_type.as_deref().or(header).unwrap_or_default() {
        OCI_INDEX | DOCKER_LIST => json(body).map(Box::new).map(Document::Index),
        OCI_MANIFEST | DOCKER_MANIFEST => json(body).map(Box::new).map(Document::Manifest),
        "" | "application/json" | "application/octet-stream" if shape.manifests.is_some() => {
            json(body).map(Box::new).map(Document::Index)
        }
        "" | "application/json" | "application/octet-stream" if shape.layers.is_some() => {
            json(body).map(Box::new).map(Document::Manifest)
        }
        other => Err(ManifestError::MediaType(other.to_owned())),
    }
}

/// Checks a manifest's configuration descriptor.
pub(crate) fn check_config(config: &Descriptor) -> Result<(), ManifestError> {
    let media_type = config.media_type().to_string();
    if media_type != OCI_CONFIG && media_type != DOCKER_CONFIG {
        return Err(ManifestError::MediaType(media_type));
    }
    check_document(config)
}

/// Checks a descriptor whose content is read into memory.
pub(crate) fn check_document(descriptor: &Descriptor) -> Result<(), ManifestError> {
    check_digest(descriptor.digest())?;
    if descriptor.size() > MAX_DOCUMENT {
        return Err(ManifestError::Limit {
            what: "size of a document",
            limit: MAX_DOCUMENT,
        });
    }
    Ok(())
}

/// The layers of an image, lowest first.
pub(crate) fn layers(
    manifest: &ImageManifest,
    config: &ImageConfiguration,
) -> Result<Vec<Layer>, ManifestError> {
    let descriptors = manifest.layers();
    let diff_ids = config.rootfs().diff_ids();
    if descriptors.len() != diff_ids.len() {
        return Err(ManifestError::Layers {
            layers: descriptors.len(),
            diff_ids: diff_ids.len(),
        });
    }
    if descriptors.len() > MAX_LAYERS {
        return Err(ManifestError::Limit {
            what: "layers of an image",
            limit: MAX_LAYERS as u64,
        });
    }
    let pairs = descriptors.iter().zip(diff_ids);
    pairs
        .map(|(descriptor, diff_id)| layer(descriptor, diff_id))
        .collect()
}

/// Reads a configuration.
pub(crate) fn config(body: &[u8]) -> Result<ImageConfiguration, ManifestError> {
    json(body)
}

/// A digest in a text that this crate can check.
pub(crate) fn digest(text: &str) -> Result<Digest, ManifestError> {
    let digest = Digest::try_from(text).map_err(|_| ManifestError::Digest(text.to_owned()))?;
    check_digest(&digest)?;
    Ok(digest)
}

fn layer(descriptor: &Descriptor, diff_id: &str) -> Result<Layer, ManifestError> {
    check_digest(descriptor.digest())?;
    let compression = compression(descriptor)?;
    let annotations = descriptor.annotations().as_ref();
    let annotations = annotations.filter(|_| compression == Compression::Zstd);
    Ok(Layer {
        chunked: annotations.and_then(|all| Chunked::read(all, descriptor.size())),
        digest: descriptor.digest().clone(),
        size: descriptor.size(),
        compression,
        diff_id: digest(diff_id)?,
    })
}

fn compression(descriptor: &Descriptor) -> Result<Compression, ManifestError> {
    match descriptor.media_type() {
        MediaType::ImageLayerGzip => Ok(Compression::Gzip),
        MediaType::ImageLayerZstd => Ok(Compression::Zstd),
        MediaType::ImageLayer => Ok(Compression::None),
        other => match other.to_string().as_str() {
            "application/vnd.docker.image.rootfs.diff.tar.gzip" => Ok(Compression::Gzip),
            // Not standard, but what buildkit calls them in an image of docker's format.
            "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(Compression::Zstd),
            "application/vnd.docker.image.rootfs.diff.tar" => Ok(Compression::None),
            "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => {
                Err(ManifestError::Foreign(descriptor.digest().clone()))
            }
            other => Err(ManifestError::MediaType(other.to_owned())),
        },
    }
}

fn check_digest(digest: &Digest) -> Result<(), ManifestError> {
    if is_supported(digest) {
        return Ok(());
    }
    Err(ManifestError::Digest(digest.to_string()))
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ManifestError> {
    serde_json::from_slice(body).map_err(ManifestError::Json)
}

#[cfg(test)]
mod tests;
