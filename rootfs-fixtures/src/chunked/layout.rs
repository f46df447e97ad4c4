//! Images of an OCI layout, their layers packed anew.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde_json::{Value, json};
use thiserror::Error;

use super::{ANNOTATION, chunk};
use crate::Digest;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// Indexes in indexes that are followed.
const MAX_DEPTH: usize = 2;

/// What became of a layout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Layers packed, with their sizes before and after.
    pub layers: Vec<(Digest, u64, u64)>,
    /// Layers left as they were, and why.
    pub kept: Vec<(Digest, String)>,
}

/// Why a layout could not be packed.
#[derive(Debug, Error)]
pub enum ChunkError {
    /// A file could not be read or written.
    #[error("{path}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A document is not what it should be.
    #[error("{path}: it has no {what}", path = path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
}

/// Packs the layers of all images in the OCI layout `directory` as zstd:chunked, with the compression
/// `level` of zstd, and lets `index.json` name images with these. Configurations stay as they are, and
/// so do layers that are packed so already or have sparse files.
///
/// The blobs from before stay beside the new ones. After an error `index.json` is unchanged.
///
/// # Errors
/// When the layout cannot be read or written.
pub fn chunk_layout(directory: &Path, level: i32) -> Result<Report, ChunkError> {
    let mut layout = Layout {
        directory,
        level,
        report: Report::default(),
    };
    let path = directory.join("index.json");
    let mut index = read_json(&path)?;
    layout.entries(&mut index, &path, 0)?;
    write(&path, index.to_string().as_bytes())?;
    Ok(layout.report)
}

struct Layout<'a> {
    directory: &'a Path,
    level: i32,
    report: Report,
}

impl Layout<'_> {
    /// Replaces all that an index lists.
    fn entries(&mut self, index: &mut Value, path: &Path, depth: usize) -> Result<(), ChunkError> {
        let entries = list(index, "manifests", path)?;
        for entry in entries {
            let blob = self.blob(entry, path)?;
            let mut document = read_json(&blob)?;
            if document["layers"].is_array() {
                self.layers(&mut document, &blob)?;
            } else if document["manifests"].is_array() && depth < MAX_DEPTH {
                self.entries(&mut document, &blob, depth + 1)?;
            } else {
                continue;
            }
            let body = document.to_string().into_bytes();
            let digest = Digest::of(&body);
            write(&self.path(&digest), &body)?;
            entry["digest"] = json!(digest.as_str());
            entry["size"] = json!(body.len());
        }
        Ok(())
    }

    fn layers(&mut self, manifest: &mut Value, path: &Path) -> Result<(), ChunkError> {
        for layer in list(manifest, "layers", path)? {
            let blob = self.blob(layer, path)?;
            let before = Digest::claim(layer["digest"].as_str().unwrap_or_default());
            let kind = layer["mediaType"].as_str().unwrap_or_default();
            let Some(packing) = kind.strip_prefix(LAYER) else {
                self.report
                    .kept
                    .push((before, format!("its type is {kind:?}")));
                continue;
            };
            let known = format!("{ANNOTATION}manifest-position");
            if layer["annotations"].get(&known).is_some() {
                self.report
                    .kept
                    .push((before, "it is packed so already".to_owned()));
                continue;
            }
            match self.pack(&blob, packing) {
                Ok(chunked) => {
                    let size = layer["size"].as_u64().unwrap_or(0);
                    self.report.layers.push((before, size, chunked.size));
                    layer["mediaType"] = json!(format!("{LAYER}+zstd"));
                    layer["digest"] = json!(chunked.digest.as_str());
                    layer["size"] = json!(chunked.size);
                    for (name, value) in chunked.annotations {
                        layer["annotations"][name] = json!(value);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Other => {
                    self.report.kept.push((before, error.to_string()));
                }
                Err(source) => return Err(ChunkError::File { path: blob, source }),
            }
        }
        Ok(())
    }

    /// Packs one layer into a blob of its own.
    fn pack(&self, blob: &Path, packing: &str) -> io::Result<super::Chunked> {
        let plain = self.directory.join("layer.tar");
        let packed = self.directory.join("layer.part");
        let mut archive = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&plain)?;
        let blob = BufReader::new(File::open(blob)?);
        let mut decoder: Box<dyn Read> = match packing {
            "" => Box::new(blob),
            "+gzip" => Box::new(MultiGzDecoder::new(blob)),
            "+zstd" => Box::new(zstd::Decoder::with_buffer(blob)?),
            other => return Err(io::Error::other(format!("it is packed by {other:?}"))),
        };
        io::copy(&mut decoder, &mut archive)?;
        archive.seek(SeekFrom::Start(0))?;
        let mut out = BufWriter::new(File::create(&packed)?);
        let chunked = chunk(BufReader::new(archive), &mut out, self.level);
        out.flush()?;
        fs::remove_file(&plain)?;
        let chunked = chunked.inspect_err(|_| drop(fs::remove_file(&packed)))?;
        fs::rename(&packed, self.path(&chunked.digest))?;
        Ok(chunked)
    }

    /// The file of a descriptor's blob.
    fn blob(&self, descriptor: &Value, path: &Path) -> Result<PathBuf, ChunkError> {
        let digest = descriptor["digest"].as_str();
        let hex = digest.and_then(|digest| digest.strip_prefix("sha256:"));
        let hex = hex.filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let hex = hex.ok_or_else(|| ChunkError::Document {
            path: path.to_owned(),
            what: "sha256 of what it names",
        })?;
        Ok(self.directory.join("blobs/sha256").join(hex))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs/sha256").join(digest.encoded())
    }
}

fn list<'a>(
    document: &'a mut Value,
    what: &'static str,
    path: &Path,
) -> Result<&'a mut Vec<Value>, ChunkError> {
    let list = document.get_mut(what).and_then(Value::as_array_mut);
    list.ok_or_else(|| ChunkError::Document {
        path: path.to_owned(),
        what,
    })
}

fn read_json(path: &Path) -> Result<Value, ChunkError> {
    let read = || -> io::Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    read().map_err(|source| ChunkError::File {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, body: &[u8]) -> Result<(), ChunkError> {
    fs::write(path, body).map_err(|source| ChunkError::File {
        path: path.to_owned(),
        source,
    })
}
