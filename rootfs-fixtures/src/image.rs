//! Images made in memory: layers, config, manifest and index, byte for byte the same every time.
//!
//! Builds what it is told, also what is wrong; it never reads the clock or the environment.

mod layer;
pub mod layout;
mod module;
mod tar;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub use self::layer::{Compression, FIXED_MTIME, Layer, LayerBuilder};
pub use self::module::module_image;
pub use self::tar::LongNames;
use crate::Digest;

/// The creation time that every image config states, [`FIXED_MTIME`] in RFC 3339.
const FIXED_CREATED: &str = "2021-01-01T00:00:00Z";

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

/// Collects layers and configuration of one image.
#[derive(Clone, Debug)]
pub struct ImageBuilder {
    platform: Platform,
    format: Format,
    layers: Vec<Layer>,
    config: Map<String, Value>,
    annotations: BTreeMap<String, String>,
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

impl ImageBuilder {
    /// An image without layers and configuration, in OCI's media types.
    #[must_use]
    pub fn new(platform: Platform) -> Self {
        Self {
            platform,
            format: Format::Oci,
            layers: Vec::new(),
            config: Map::new(),
            annotations: BTreeMap::new(),
        }
    }

    /// Chooses the media types.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Puts `layer` on top of those before it.
    #[must_use]
    pub fn layer(mut self, layer: Layer) -> Self {
        self.layers.push(layer);
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        let variables = self.config.entry("Env").or_insert_with(|| json!([]));
        if let Value::Array(variables) = variables {
            variables.push(json!(format!("{name}={value}")));
        }
        self
    }

    /// Sets `Cmd`.
    #[must_use]
    pub fn cmd(self, arguments: &[&str]) -> Self {
        self.set("Cmd", json!(arguments))
    }

    /// Sets `Entrypoint`.
    #[must_use]
    pub fn entrypoint(self, arguments: &[&str]) -> Self {
        self.set("Entrypoint", json!(arguments))
    }

    /// Sets `WorkingDir`.
    #[must_use]
    pub fn working_dir(self, path: &str) -> Self {
        self.set("WorkingDir", json!(path))
    }

    /// Sets `User`: a name or id, and a group after a colon.
    #[must_use]
    pub fn user(self, user: &str) -> Self {
        self.set("User", json!(user))
    }

    /// Adds an exposed port such as `80/tcp`.
    #[must_use]
    pub fn expose(self, port: &str) -> Self {
        self.insert("ExposedPorts", port, json!({}))
    }

    /// Adds a volume's mount point.
    #[must_use]
    pub fn volume(self, path: &str) -> Self {
        self.insert("Volumes", path, json!({}))
    }

    /// Adds a label.
    #[must_use]
    pub fn label(self, name: &str, value: &str) -> Self {
        self.insert("Labels", name, json!(value))
    }

    /// Sets `StopSignal`.
    #[must_use]
    pub fn stop_signal(self, signal: &str) -> Self {
        self.set("StopSignal", json!(signal))
    }

    /// Sets any field of the config object, such as `Healthcheck`; replaces what it was.
    #[must_use]
    pub fn set(mut self, field: &str, value: Value) -> Self {
        self.config.insert(field.to_owned(), value);
        self
    }

    /// Adds an annotation to the manifest.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Writes config and manifest.
    #[must_use]
    pub fn build(self) -> Image {
        let config = self.config_json();
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": self.format.manifest(),
            "config": descriptor(self.format.config(), &config),
            "layers": self.layers.iter()
                .map(|layer| descriptor(self.format.layer(layer.compression), &layer.blob))
                .collect::<Vec<_>>(),
        });
        if !self.annotations.is_empty() {
            manifest["annotations"] = json!(self.annotations);
        }
        Image::with_manifest(self.platform, self.format, config, &manifest, self.layers)
    }

    fn config_json(&self) -> Vec<u8> {
        let mut image = self.platform.to_json();
        image.insert("created".to_owned(), json!(FIXED_CREATED));
        image.insert("config".to_owned(), Value::Object(self.config.clone()));
        let diff_ids: Vec<_> = self
            .layers
            .iter()
            .map(|layer| layer.diff_id.as_str())
            .collect();
        image.insert(
            "rootfs".to_owned(),
            json!({ "type": "layers", "diff_ids": diff_ids }),
        );
        let history: Vec<_> = self
            .layers
            .iter()
            .map(|_| json!({ "created": FIXED_CREATED }))
            .collect();
        image.insert("history".to_owned(), json!(history));
        Value::Object(image).to_string().into_bytes()
    }

    fn insert(mut self, field: &str, key: &str, value: Value) -> Self {
        let entries = self.config.entry(field).or_insert_with(|| json!({}));
        if let Value::Object(entries) = entries {
            entries.insert(key.to_owned(), value);
        }
        self
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
