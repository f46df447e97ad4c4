//! Images made in memory: layers, config, manifest and index, byte for byte the same every time.
//!
//! Builds what it is told, also what is wrong; it never reads the clock or the environment.

mod builder;
mod layer;
pub mod layout;
mod module;
mod tar;

use serde_json::{Map, Value, json};

pub use self::builder::ImageBuilder;
pub use self::layer::{Compression, FIXED_MTIME, Layer, LayerBuilder};
pub use self::module::module_image;
pub use self::tar::LongNames;
use crate::Digest;

/// Which media types a manifest uses; the JSON is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `application/vnd.oci.image.*`
    #[default]
    Oci,
    /// Docker image manifest version 2, schema 2, and its manifest list.
    Docker,
}

/// What an image runs on, in the words of the image index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// The operating system, `linux`.
    pub os: String,
    /// The processor in Go's words: `amd64`, `arm64`, `arm`.
    pub architecture: String,
    /// `v6`, `v7` and such for `arm`.
    pub variant: Option<String>,
}

/// A finished image for one platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What it runs on.
    pub platform: Platform,
    /// Which media types it uses.
    pub format: Format,
    /// The config blob, JSON.
    pub config: Vec<u8>,
    /// The manifest, JSON.
    pub manifest: Vec<u8>,
    /// The digest of [`Image::manifest`].
    pub digest: Digest,
    /// From the lowest to the uppermost.
    pub layers: Vec<Layer>,
}

/// Several platforms under one reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Which media types it uses.
    pub format: Format,
    /// The images, in the order of their descriptors.
    pub images: Vec<Image>,
    /// The index, JSON.
    pub body: Vec<u8>,
    /// The digest of [`Index::body`].
    pub digest: Digest,
}

impl Format {
    /// The media type of an image manifest.
    #[must_use]
    pub fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    /// The media type of an index or manifest list.
    #[must_use]
    pub fn index(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.index.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
        }
    }

    /// The media type of an image config.
    #[must_use]
    pub fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    /// The media type of a layer. Docker has no type of its own for zstd and borrows OCI's.
    #[must_use]
    pub fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
            (Self::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Self::Docker, Compression::None) => "application/vnd.docker.image.rootfs.diff.tar",
            (Self::Docker, Compression::Gzip) => {
                "application/vnd.docker.image.rootfs.diff.tar.gzip"
            }
            (_, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

impl Platform {
    /// Linux on `architecture`, with a `variant` where that is not empty.
    #[must_use]
    pub fn linux(architecture: &str, variant: &str) -> Self {
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: (!variant.is_empty()).then(|| variant.to_owned()),
        }
    }

    /// The platform that this program was built for.
    #[must_use]
    pub fn host() -> Self {
        match std::env::consts::ARCH {
            "x86_64" => Self::linux("amd64", ""),
            "aarch64" => Self::linux("arm64", "v8"),
            "arm" => Self::linux("arm", "v7"),
            other => Self::linux(other, ""),
        }
    }

    fn to_json(&self) -> Map<String, Value> {
        let mut platform = Map::new();
        platform.insert("architecture".to_owned(), json!(self.architecture));
        platform.insert("os".to_owned(), json!(self.os));
        if let Some(variant) = &self.variant {
            platform.insert("variant".to_owned(), json!(variant));
        }
        platform
    }
}

impl Image {
    /// An image whose manifest a test writes itself, right or wrong.
    #[must_use]
    pub fn with_manifest(
        platform: Platform,
        format: Format,
        config: Vec<u8>,
        manifest: &Value,
        layers: Vec<Layer>,
    ) -> Self {
        let manifest = manifest.to_string().into_bytes();
        Self {
            platform,
            format,
            config,
            digest: Digest::of(&manifest),
            manifest,
            layers,
        }
    }

    /// The same image with its manifest changed by `change`, for manifests that lie.
    #[must_use]
    pub fn edit_manifest(self, change: impl FnOnce(&mut Value)) -> Self {
        let mut manifest = serde_json::from_slice(&self.manifest)
            .expect("invariant: the manifest is our own JSON");
        change(&mut manifest);
        Self::with_manifest(
            self.platform,
            self.format,
            self.config,
            &manifest,
            self.layers,
        )
    }

    /// The same image with its config changed by `change`, and the manifest made to match.
    #[must_use]
    pub fn edit_config(mut self, change: impl FnOnce(&mut Value)) -> Self {
        let mut config =
            serde_json::from_slice(&self.config).expect("invariant: the config is our own JSON");
        change(&mut config);
        self.config = config.to_string().into_bytes();
        let described = descriptor(self.format.config(), &self.config);
        self.edit_manifest(|manifest| manifest["config"] = described)
    }
}

impl Index {
    /// An index over `images`, in their order, in the media types of `format`.
    #[must_use]
    pub fn new(format: Format, images: Vec<Image>) -> Self {
        let manifests: Vec<_> = images
            .iter()
            .map(|image| {
                let mut entry = descriptor(image.format.manifest(), &image.manifest);
                entry["platform"] = Value::Object(image.platform.to_json());
                entry
            })
            .collect();
        let body = json!({
            "schemaVersion": 2,
            "mediaType": format.index(),
            "manifests": manifests,
        });
        Self::with_body(format, images, &body)
    }

    /// The same index with its JSON changed by `change`: extra entries such as attestations, or lies.
    #[must_use]
    pub fn edit(self, change: impl FnOnce(&mut Value)) -> Self {
        let mut body =
            serde_json::from_slice(&self.body).expect("invariant: the index is our own JSON");
        change(&mut body);
        Self::with_body(self.format, self.images, &body)
    }

    fn with_body(format: Format, images: Vec<Image>, body: &Value) -> Self {
        let body = body.to_string().into_bytes();
        Self {
            format,
            images,
            digest: Digest::of(&body),
            body,
        }
    }
}

/// The JSON descriptor of `bytes`.
#[must_use]
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(bytes).as_str(), "size": bytes.len() })
}

#[cfg(test)]
mod tests;
