//! The builder of one image: config fields under Docker's names, and the manifest over it all.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Format, Image, Layer, Platform, descriptor};

/// The creation time that every image config states, [`FIXED_MTIME`](super::FIXED_MTIME) in RFC 3339.
const FIXED_CREATED: &str = "2021-01-01T00:00:00Z";

/// Collects layers and configuration of one image.
#[derive(Clone, Debug)]
pub struct ImageBuilder {
    platform: Platform,
    format: Format,
    layers: Vec<Layer>,
    config: Map<String, Value>,
    annotations: BTreeMap<String, String>,
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
                .map(|layer| self.descriptor(layer))
                .collect::<Vec<_>>(),
        });
        if !self.annotations.is_empty() {
            manifest["annotations"] = json!(self.annotations);
        }
        Image::with_manifest(self.platform, self.format, config, &manifest, self.layers)
    }

    fn descriptor(&self, layer: &Layer) -> Value {
        let mut described = descriptor(self.format.layer(layer.compression), &layer.blob);
        if !layer.annotations.is_empty() {
            described["annotations"] = json!(layer.annotations);
        }
        described
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
