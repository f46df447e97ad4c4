//! Image records: which reference is which image, made of which layers.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oci_spec::distribution::Reference;
use oci_spec::image::{Digest, ImageConfiguration};
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, failed};
use crate::digest;
use crate::signature::Signature;

/// Version of the records this code writes, and the only one it reads.
const SCHEMA: u32 = 1;

/// An image that is whole on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct PulledImage {
    /// What it was pulled as.
    pub reference: Reference,
    /// Digest of the manifest for this platform.
    pub manifest_digest: Digest,
    /// Digest of the configuration: what docker calls the image id.
    pub id: Digest,
    /// The configuration, as far as OCI defines it.
    pub config: ImageConfiguration,
    /// The configuration byte for byte, for what docker adds to it (`Healthcheck`, `Shell`, ...).
    pub config_path: PathBuf,
    /// Layer directories, lowest first, none twice: of a layer that an image repeats only the
    /// highest counts, since it hides all of the lower ones. Where layers use directories without
    /// listing them, the last one is made here and corrects their modes and owners. Empty for an
    /// image without files.
    pub layers: Vec<PathBuf>,
    /// Compressed bytes of all layers, as the manifest lists them.
    pub size: u64,
    /// When it was pulled, by the machine's clock, to the second.
    pub pulled_at: SystemTime,
    /// The signature that was found good when it was pulled, if the policy asked for one.
    pub signature: Option<Signature>,
}

/// All images of a store.
#[derive(Debug, Default)]
pub struct Images {
    /// Those that are whole, by reference.
    pub images: Vec<PulledImage>,
    /// One error for each record that cannot be read.
    pub broken: Vec<StoreError>,
}

/// An image record as it is on disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    pub(crate) schema: u32,
    /// As text: what a reader of the file looks for.
    pub(crate) reference: String,
    pub(crate) manifest_digest: Digest,
    pub(crate) id: Digest,
    /// Lowest first, repetitions included.
    pub(crate) diff_ids: Vec<Digest>,
    /// The layer that corrects directories, on top of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parents: Option<Digest>,
    pub(crate) size: u64,
    /// Seconds since 1970.
    pub(crate) pulled_at: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) signature: Option<Signature>,
    /// Digest of the record without this field, as compact JSON; older ones have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    check: Option<Digest>,
}

/// Only the schema, which says how to read the rest.
#[derive(Deserialize)]
struct Versioned {
    schema: u32,
}

impl Record {
    pub(crate) fn new(
        reference: &Reference,
        pulled_at: SystemTime,
        manifest_digest: Digest,
        id: Digest,
    ) -> Self {
        let pulled_at = pulled_at.duration_since(UNIX_EPOCH);
        Self {
            schema: SCHEMA,
            reference: reference.whole(),
            manifest_digest,
            id,
            diff_ids: Vec::new(),
            parents: None,
            size: 0,
            pulled_at: pulled_at.unwrap_or_default().as_secs(),
            signature: None,
            check: None,
        }
    }

    /// What `check` has to be.
    fn sum(&self) -> serde_json::Result<Digest> {
        let plain = Self {
            check: None,
            ..self.clone()
        };
        serde_json::to_vec(&plain).map(|json| digest::sha256(&json))
    }

    fn checked(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec_pretty(&Self {
            check: Some(self.sum()?),
            ..self.clone()
        })
    }

    /// What must not be swept while somebody works with the image.
    pub(crate) fn needed(&self) -> impl Iterator<Item = Digest> {
        self.layers().chain([&self.id]).cloned()
    }

    /// All layers, lowest first.
    pub(super) fn layers(&self) -> impl Iterator<Item = &Digest> {
        self.diff_ids.iter().chain(&self.parents)
    }
}

impl Store {
    /// The image pulled as `reference`, if it is whole: a record without one of its layers is no
    /// image. Asks no network. An unreadable record is an error that names its file. Blocking.
    pub fn lookup(&self, reference: &Reference) -> Result<Option<PulledImage>, StoreError> {
        match read(&self.record_path(reference))? {
            Some(record) => self.image(record),
            None => Ok(None),
        }
    }

    /// All images that are whole, sorted by reference; unreadable records are listed apart.
    /// Blocking.
    pub fn images(&self) -> Result<Images, StoreError> {
        let mut found = Images::default();
        for record in self.records()? {
            match record.and_then(|record| self.image(record)) {
                Ok(image) => found.images.extend(image),
                Err(error) => found.broken.push(error),
            }
        }
        found.images.sort_by_key(|image| image.reference.whole());
        Ok(found)
    }

    /// Whether there is a record of `reference`, readable or not. Blocking.
    pub fn has_record(&self, reference: &Reference) -> bool {
        self.record_path(reference).exists()
    }

    /// Forgets the image pulled as `reference`; true if there was a record. Its layers stay until
    /// they are swept. One that is preloaded is [`StoreError::Preloaded`]; one that had taken the place
    /// of a preloaded one leaves it to be there again when the store is opened the next time. Blocking.
    pub fn remove(&self, reference: &Reference) -> Result<bool, StoreError> {
        let path = self.record_path(reference);
        if self.is_preloaded(reference) {
            return Err(StoreError::Preloaded {
                reference: reference.whole(),
            });
        }
        if !path.exists() {
            return Ok(false);
        }
        self.remove_tree(&path)?;
        self.sync_directory(&self.path("images")).map(|()| true)
    }

    /// Keeps a configuration, whose digest was verified. Blocking.
    pub(crate) fn put_config(&self, id: &Digest, body: &[u8]) -> Result<(), StoreError> {
        self.write_atomic(&self.config_path(id), body)
    }

    /// Keeps a record, replacing the one of the same reference. Blocking.
    pub(crate) fn put_record(
        &self,
        reference: &Reference,
        record: &Record,
    ) -> Result<(), StoreError> {
        let path = self.record_path(reference);
        let json = record
            .checked()
            .map_err(io::Error::other)
            .map_err(failed("write", &path))?;
        self.write_atomic(&path, &json)
    }

    /// Digest of the manifest of which an image was made, if its record can be read. Blocking.
    pub(crate) fn manifest_of(&self, reference: &Reference) -> Option<Digest> {
        let record = self.record_of(reference).ok()??;
        Some(record.manifest_digest)
    }

    /// The record of an image, if there is one. Blocking.
    pub(crate) fn record_of(&self, reference: &Reference) -> Result<Option<Record>, StoreError> {
        read(&self.record_path(reference))
    }

    /// The configuration of an image, byte for byte. Blocking.
    pub(crate) fn config_of(&self, record: &Record) -> Result<Vec<u8>, StoreError> {
        let path = self.config_path(&record.id);
        fs::read(&path).map_err(failed("read", &path))
    }

    /// All records, or why one cannot be read.
    pub(super) fn records(&self) -> Result<Vec<Result<Record, StoreError>>, StoreError> {
        let files = self.record_files()?.into_iter();
        Ok(files.filter_map(|path| read(&path).transpose()).collect())
    }

    /// Where records are.
    pub(super) fn record_files(&self) -> Result<Vec<PathBuf>, StoreError> {
        let directory = self.path("images");
        let mut files = Vec::new();
        for entry in fs::read_dir(&directory).map_err(failed("list", &directory))? {
            let path = entry.map_err(failed("list", &directory))?.path();
            files.extend(Some(path).filter(|path| path.extension().is_some_and(|it| it == "json")));
        }
        files.sort();
        Ok(files)
    }

    pub(super) fn config_path(&self, id: &Digest) -> PathBuf {
        self.path("images/configs").join(id.digest())
    }

    /// The image a record describes, or nothing if a part of it is gone.
    pub(crate) fn image(&self, record: Record) -> Result<Option<PulledImage>, StoreError> {
        let config_path = self.config_path(&record.id);
        let body = match fs::read(&config_path) {
            Ok(body) => body,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &config_path)(error)),
        };
        digest::verify(&body, &record.id).map_err(|source| broken(&config_path, source))?;
        let config =
            serde_json::from_slice(&body).map_err(|source| broken(&config_path, source))?;
        let reference = record.reference.as_str();
        let reference = crate::reference::parse_reference(reference)
            .map_err(|source| broken(&config_path, source))?;
        let all = record.layers().cloned().collect::<Vec<_>>();
        let Some(layers) = self.layer_paths(&all) else {
            return Ok(None);
        };
        Ok(Some(PulledImage {
            reference,
            manifest_digest: record.manifest_digest,
            id: record.id,
            config,
            config_path,
            layers,
            size: record.size,
            pulled_at: UNIX_EPOCH + Duration::from_secs(record.pulled_at),
            signature: record.signature,
        }))
    }

    /// The directories of `diff_ids`, each once at its highest place; nothing if one is gone.
    fn layer_paths(&self, diff_ids: &[Digest]) -> Option<Vec<PathBuf>> {
        let mut seen = HashSet::new();
        let highest = diff_ids
            .iter()
            .rev()
            .filter(|diff_id| seen.insert(*diff_id));
        let mut layers = highest
            .map(|diff_id| self.layer(diff_id))
            .collect::<Option<Vec<_>>>()?;
        layers.reverse();
        Some(layers)
    }

    /// References hold characters that file names cannot.
    pub(super) fn record_path(&self, reference: &Reference) -> PathBuf {
        let name = digest::sha256(reference.whole().as_bytes());
        self.path("images").join(format!("{}.json", name.digest()))
    }

    pub(super) fn write_atomic(&self, path: &Path, body: &[u8]) -> Result<(), StoreError> {
        let temporary = self.staging_path();
        let write = || -> io::Result<()> {
            let file = self.disk().write_new(&temporary, body)?;
            self.disk().flush_file(&file, &temporary)?;
            self.disk().rename(&temporary, path)
        };
        if let Err(error) = write() {
            // What cannot be removed now goes when the store is opened the next time.
            let _ = self.disk().remove(&temporary);
            return Err(failed("write", path)(error));
        }
        self.sync_directory(path.parent().unwrap_or(path))
    }
}

pub(super) fn read(path: &Path) -> Result<Option<Record>, StoreError> {
    let body = match fs::read(path) {
        Ok(body) => body,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let Versioned { schema } =
        serde_json::from_slice(&body).map_err(|source| broken(path, source))?;
    if schema != SCHEMA {
        return Err(StoreError::Schema {
            path: path.to_owned(),
            schema,
        });
    }
    let record: Record = serde_json::from_slice(&body).map_err(|source| broken(path, source))?;
    // Digests become paths: only those whose letters were checked may.
    let is_good = |digest: &Digest| digest::is_supported(digest);
    if !is_good(&record.id) || !record.layers().all(is_good) {
        return Err(broken(path, "a digest is not of a supported kind"));
    }
    let sum = record.sum().map_err(|source| broken(path, source))?;
    if record.check.as_ref().is_some_and(|check| *check != sum) {
        return Err(broken(path, "it is not what was written"));
    }
    Ok(Some(record))
}

fn broken(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Record {
        path: path.to_owned(),
        source: source.into(),
    }
}
