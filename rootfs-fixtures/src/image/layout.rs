//! The OCI image layout: a directory with `oci-layout`, `index.json` and `blobs/sha256/`.
//!
//! Every tag becomes an entry of `index.json` whose `org.opencontainers.image.ref.name` says
//! `repository:tag`; entries of foreign layouts that name only a tag belong to a repository named
//! like the directory.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use thiserror::Error;

use crate::{Content, Digest};

/// The annotation that names an entry of `index.json`.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Why a layout could not be written or read.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// A file or directory could not be written.
    #[error("writing {path}", path = path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be read.
    #[error("reading {path}", path = path.display())]
    Read {
        /// What was to be read.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A manifest or index is not JSON.
    #[error("parsing {path}", path = path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// A descriptor has no digest that can be a file name.
    #[error("the descriptor {descriptor} names no sha256 digest")]
    Descriptor {
        /// The JSON as found.
        descriptor: String,
    },
}

/// Writes everything in `content` below `dir`, which is created where missing.
///
/// Files already there are overwritten, none is removed. After an error some files may be there;
/// writing again is safe.
///
/// # Errors
/// [`LayoutError::Write`] with the path in question.
pub fn write(dir: &Path, content: &Content) -> Result<(), LayoutError> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|source| LayoutError::Write {
        path: blobs.clone(),
        source,
    })?;
    let mut entries = Vec::new();
    for (name, repository) in &content.repositories {
        for (digest, blob) in &repository.blobs {
            write_file(&blobs.join(digest.encoded()), blob)?;
        }
        for (digest, manifest) in &repository.manifests {
            write_file(&blobs.join(digest.encoded()), &manifest.body)?;
        }
        for (tag, digest) in &repository.tags {
            let Some(manifest) = repository.manifests.get(digest) else {
                continue;
            };
            entries.push(json!({
                "mediaType": manifest.media_type,
                "digest": digest.as_str(),
                "size": manifest.body.len(),
                "annotations": { REF_NAME: format!("{name}:{tag}") },
            }));
        }
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": entries,
    });
    write_file(&dir.join("index.json"), index.to_string().as_bytes())?;
    write_file(
        &dir.join("oci-layout"),
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )
}

/// Reads the layout at `dir` whole: every named entry of `index.json` with what it refers to.
///
/// # Errors
/// Whatever is missing, unreadable or not JSON. Digests are not verified: a damaged layout is
/// served as it stands.
pub fn read(dir: &Path) -> Result<Content, LayoutError> {
    let mut content = Content::new();
    let own_name = dir
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    let own_name = own_name.unwrap_or_else(|| "layout".to_owned());
    let path = dir.join("index.json");
    let index = parse(&path, &read_file(&path)?)?;
    for entry in members(&index, "manifests") {
        let name = entry["annotations"][REF_NAME].as_str().unwrap_or("latest");
        let (repository, tag) = name.rsplit_once(':').unwrap_or((&own_name, name));
        let digest = read_manifest(dir, repository, entry, &mut content)?;
        content.tag(repository, tag, digest);
    }
    Ok(content)
}

/// Adds the manifest or index that `entry` describes, and all below it.
fn read_manifest(
    dir: &Path,
    repository: &str,
    entry: &Value,
    content: &mut Content,
) -> Result<Digest, LayoutError> {
    let (digest, path) = blob_path(dir, entry)?;
    let body = read_file(&path)?;
    let manifest = parse(&path, &body)?;
    let media_type = entry["mediaType"].as_str().unwrap_or_default();
    content.add_manifest(repository, digest.clone(), media_type, &body);
    for child in members(&manifest, "manifests") {
        read_manifest(dir, repository, child, content)?;
    }
    for blob in manifest
        .get("config")
        .into_iter()
        .chain(members(&manifest, "layers"))
    {
        let (digest, path) = blob_path(dir, blob)?;
        content.add_blob(repository, digest, &read_file(&path)?);
    }
    Ok(digest)
}

fn members<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

fn blob_path(dir: &Path, descriptor: &Value) -> Result<(Digest, PathBuf), LayoutError> {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    match digest.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Ok((Digest::claim(digest), dir.join("blobs/sha256").join(hex)))
        }
        _ => Err(LayoutError::Descriptor {
            descriptor: descriptor.to_string(),
        }),
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Value, LayoutError> {
    serde_json::from_slice(bytes).map_err(|source| LayoutError::Parse {
        path: path.to_owned(),
        source,
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, LayoutError> {
    fs::read(path).map_err(|source| LayoutError::Read {
        path: path.to_owned(),
        source,
    })
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<(), LayoutError> {
    fs::write(path, bytes).map_err(|source| LayoutError::Write {
        path: path.to_owned(),
        source,
    })
}
