//! Images from the store to a file. Layers are packed again from their directories, since what they came
//! in is gone: an image whose layers come out otherwise gets another configuration, and so another id,
//! with the same files and settings. Saved a second time, after it was loaded, it is the same file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use oci_spec::distribution::Reference;
use oci_spec::image::Digest;
use serde_json::{Value, json};

use super::target::{SaveFormat, Target};
use super::{LayoutError, blob_name};
use crate::pack::{self, PackError};
use crate::store::{Record, Store};

/// An image that was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// What it is on the device.
    pub reference: Reference,
    /// What it is called in the file.
    pub name: String,
    /// Its id on the device.
    pub id: Digest,
    /// Its id in the file.
    pub saved_id: Digest,
}

/// What is being written, and the layers in it.
struct Save<'a> {
    store: &'a Store,
    path: &'a Path,
    target: Target,
    /// Digests and lengths of layers as they are packed now, by what they were.
    layers: HashMap<String, (Digest, u64)>,
    /// Descriptors of the index.
    manifests: Vec<Value>,
    /// Entries of docker's `manifest.json`.
    docker: Vec<Value>,
}

/// Writes images of `store` to `path`, which is replaced when all is written and on the disk; on an
/// error what was there stays. The same images give the same file. Everything of them is read and held
/// against what it was first: what is damaged is not carried on. Blocking.
pub fn save(
    store: &Store,
    images: &[Reference],
    path: &Path,
    format: SaveFormat,
) -> Result<Vec<Saved>, LayoutError> {
    let mut records = BTreeMap::new();
    for image in images {
        let record = store.record_of(image)?;
        let record = record.ok_or_else(|| LayoutError::NotHere {
            image: image.whole(),
        })?;
        records.insert(image.whole(), (image, record));
    }
    let needed = records.values().flat_map(|(_, record)| record.needed());
    let _pins = store.pin(needed);
    for (image, record) in records.values() {
        if let Some(damage) = store.damage_of(image, record).into_iter().next() {
            return Err(LayoutError::Damaged(Box::new(damage)));
        }
    }
    let target = Target::create(path, format).map_err(writing(path))?;
    let mut save = Save {
        store,
        path,
        target,
        layers: HashMap::new(),
        manifests: Vec::new(),
        docker: Vec::new(),
    };
    let mut saved = Vec::new();
    for (image, record) in records.into_values() {
        saved.push(save.image(image, &record)?);
    }
    save.finish()?;
    Ok(saved)
}

impl Save<'_> {
    fn image(&mut self, image: &Reference, record: &Record) -> Result<Saved, LayoutError> {
        let mut layers = Vec::new();
        for diff_id in &record.diff_ids {
            layers.push(self.layer(diff_id)?);
        }
        let known = self.store.config_of(record)?;
        let config = with_layers(&known, record, &layers)
            .map_err(|source| LayoutError::config(&record.id, source))?;
        let (id, size) = self.bytes(&config)?;
        let descriptor = |kind: &str, digest: &Digest, size: u64| {
            let media_type = format!("application/vnd.oci.image.{kind}");
            json!({"mediaType": media_type, "digest": digest.to_string(), "size": size})
        };
        let listed = layers.iter();
        let listed = listed.map(|(digest, size)| descriptor("layer.v1.tar", digest, *size));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &id, size),
            "layers": listed.collect::<Vec<_>>(),
        });
        let (digest, size) = self.bytes(manifest.to_string().as_bytes())?;
        let name = name_of(image);
        let mut listed = descriptor("manifest.v1+json", &digest, size);
        listed["annotations"] = json!({
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": name,
        });
        self.manifests.push(listed);
        let layers = layers.iter().map(|(digest, _)| blob_name(digest));
        self.docker.push(json!({
            "Config": blob_name(&id),
            "RepoTags": [name],
            "Layers": layers.collect::<Vec<_>>(),
        }));
        Ok(Saved {
            reference: image.clone(),
            name,
            id: record.id.clone(),
            saved_id: id,
        })
    }

    /// Packs a layer, once.
    fn layer(&mut self, diff_id: &Digest) -> Result<(Digest, u64), LayoutError> {
        if let Some(known) = self.layers.get(diff_id.as_ref()) {
            return Ok(known.clone());
        }
        let (root, implied) = self.store.packable(diff_id)?;
        let path = self.path;
        let packed = self.target.blob(|out| pack::pack(&root, &implied, out));
        let packed = packed.map_err(|PackError { path: read, source }| match read {
            Some(path) => LayoutError::Io { path, source },
            None => writing(path)(source),
        })?;
        self.layers.insert(diff_id.to_string(), packed.clone());
        Ok(packed)
    }

    fn bytes(&mut self, body: &[u8]) -> Result<(Digest, u64), LayoutError> {
        let kept = self.target.blob(|out| out.write_all(body));
        kept.map_err(writing(self.path))
    }

    fn finish(mut self) -> Result<(), LayoutError> {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": self.manifests,
        });
        let mut write = |name: &str, body: &Value| {
            let written = self.target.file(name, body.to_string().as_bytes());
            written.map_err(writing(self.path))
        };
        write("oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
        write("index.json", &index)?;
        write("manifest.json", &Value::Array(self.docker))?;
        self.target.finish().map_err(writing(self.path))
    }
}

/// The configuration for layers as they are packed now; the very one it was where they are as before.
fn with_layers(
    config: &[u8],
    record: &Record,
    layers: &[(Digest, u64)],
) -> serde_json::Result<Vec<u8>> {
    let packed = layers.iter().map(|(digest, _)| digest);
    if packed.clone().eq(&record.diff_ids) {
        return Ok(config.to_vec());
    }
    let mut config: Value = serde_json::from_slice(config)?;
    let diff_ids: Vec<String> = packed.map(ToString::to_string).collect();
    config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
    serde_json::to_vec(&config)
}

/// An image named by digest is another one when it is packed again, and no name may say otherwise: it
/// gets a tag that says where it comes from.
fn name_of(image: &Reference) -> String {
    let repository = format!("{}/{}", image.registry(), image.repository());
    match (image.tag(), image.digest()) {
        (Some(tag), _) => format!("{repository}:{tag}"),
        (None, Some(digest)) => format!("{repository}:{}", digest.replace(':', "-")),
        (None, None) => format!("{repository}:latest"),
    }
}

fn writing(path: &Path) -> impl FnOnce(std::io::Error) -> LayoutError {
    let path = path.to_owned();
    move |source| LayoutError::Write { path, source }
}
