//! Images in one file, to be carried to a device: an OCI archive of what registries have now, byte
//! for byte, without layers that the device has already.
//!
//! The same images, deployment and list give the same file: nothing in it depends on time, order or
//! the machine.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};

use oci_spec::image::Digest;
use serde_json::json;

use super::job::Job;
use super::{PullRequest, Puller};
use crate::digest::{self, Hasher, VerifyError};
use crate::error::PullError;
use crate::layout::{DEPLOYMENT, INDEX_SUM, blob_name};
use crate::manifest::{self, Layer};
use crate::registry::{Body, Endpoint, Session, Subject};

/// What to bundle.
#[derive(Debug, Clone)]
pub struct BundleRequest {
    /// The images.
    pub images: Vec<PullRequest>,
    /// The deployment that runs them, as JSON.
    pub deployment: Option<String>,
    /// Hexadecimal digests of layers, packed or unpacked, that need not be in it: names of the
    /// directories in a device's `layers`.
    pub have: HashSet<String>,
}

/// What was bundled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundled {
    /// Digest of the file.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Layers that were left out.
    pub left_out: usize,
}

/// Why there is no bundle. No file of its name is left, or the one that was there.
#[derive(Debug, thiserror::Error)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one for each bundle, which ends with it"
)]
pub enum BundleError {
    /// An image could not be fetched.
    #[error("fetch an image for the bundle")]
    Pull(#[from] PullError),
    /// The bundle, or a file it is made of, could not be written.
    #[error("write {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Blobs that are being gathered in a directory.
struct Gathered<'a> {
    directory: &'a Path,
    /// Names and lengths.
    blobs: BTreeMap<String, u64>,
    left_out: usize,
}

impl Puller {
    /// Writes a bundle to `file`, by way of the empty directory `work`, which then holds its blobs.
    pub async fn bundle(
        &self,
        request: &BundleRequest,
        work: &Path,
        file: &Path,
    ) -> Result<Bundled, BundleError> {
        let mut gathered = Gathered {
            directory: work,
            blobs: BTreeMap::new(),
            left_out: 0,
        };
        let mut manifests = BTreeMap::new();
        for image in &request.images {
            let name = image.reference.whole();
            let descriptor = self.gather(image, &request.have, &mut gathered).await?;
            manifests.insert(name, descriptor);
        }
        let mut index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": manifests.into_values().collect::<Vec<_>>(),
        });
        if let Some(deployment) = &request.deployment {
            let digest = digest::sha256(deployment.as_bytes());
            gathered.keep(&digest, deployment.as_bytes())?;
            index["annotations"] = json!({ DEPLOYMENT: digest.to_string() });
        }
        let index = index.to_string().into_bytes();
        let written = gathered.write(&index, file);
        let (digest, size) = written.map_err(failed(file))?;
        Ok(Bundled {
            digest,
            size,
            left_out: gathered.left_out,
        })
    }

    /// Fetches the blobs of an image from the first place that has them, and gives the descriptor
    /// for the index.
    async fn gather(
        &self,
        image: &PullRequest,
        have: &HashSet<String>,
        gathered: &mut Gathered<'_>,
    ) -> Result<serde_json::Value, BundleError> {
        for place in self.shared.places(&image.reference) {
            let endpoint = self.shared.logged_in(place, image).await?;
            let before = (gathered.blobs.clone(), gathered.left_out);
            match self.gather_from(&endpoint, image, have, gathered).await {
                Err(BundleError::Pull(error)) if endpoint.is_mirror && !error.is_local() => {
                    // What it did serve may be of another version of the image.
                    (gathered.blobs, gathered.left_out) = before;
                }
                other => return other,
            }
        }
        unreachable!("invariant: the registry itself is the last place")
    }

    async fn gather_from(
        &self,
        endpoint: &Endpoint,
        image: &PullRequest,
        have: &HashSet<String>,
        gathered: &mut Gathered<'_>,
    ) -> Result<serde_json::Value, BundleError> {
        let (shared, reference) = (&*self.shared, &image.reference);
        let client = shared.client(&endpoint.host)?;
        let asked = (reference, endpoint);
        let session = Session::new(client, &shared.tokens, asked, shared.retry_delay).await;
        let job = Job {
            shared,
            session: &session,
            progress: &(),
        };
        let (chain, read) = job.resolve(&image.platform).await?;
        let digest = chain
            .last()
            .expect("invariant: it ends with the manifest's");
        let served = session.manifest(digest.as_ref()).await?;
        let subject = Subject::Manifest(digest.to_string());
        digest::verify(&served.body, digest)
            .map_err(|source| session.unverified(&subject, source))?;
        let config = job.config(&read).await?;
        let unusable = |source| session.unusable(&subject, source);
        let parsed = manifest::config(&config).map_err(unusable)?;
        let layers = manifest::layers(&read, &parsed).map_err(unusable)?;
        gathered.keep(digest, &served.body)?;
        gathered.keep(read.config().digest(), &config)?;
        for layer in &layers {
            if have.contains(layer.diff_id.digest()) || have.contains(layer.digest.digest()) {
                gathered.left_out += 1;
            } else {
                gathered.fetch(&session, layer).await?;
            }
        }
        let media_type = read.media_type().as_ref().map(ToString::to_string);
        let media_type = media_type.or(served.content_type);
        Ok(json!({
            "mediaType": media_type,
            "digest": digest.to_string(),
            "size": served.body.len(),
            "annotations": {
                "io.containerd.image.name": reference.whole(),
                "org.opencontainers.image.ref.name": reference.whole(),
            },
        }))
    }
}

impl Gathered<'_> {
    fn keep(&mut self, digest: &Digest, body: &[u8]) -> Result<(), BundleError> {
        let path = self.path(digest)?;
        fs::write(&path, body).map_err(failed(&path))?;
        self.blobs.insert(blob_name(digest), body.len() as u64);
        Ok(())
    }

    async fn fetch(&mut self, session: &Session<'_>, layer: &Layer) -> Result<(), BundleError> {
        let name = blob_name(&layer.digest);
        if self.blobs.contains_key(&name) {
            return Ok(());
        }
        let path = self.path(&layer.digest)?;
        let mut file = File::create(&path).map_err(failed(&path))?;
        let hasher = Hasher::new(layer.digest.algorithm());
        let mut hasher = hasher.expect("invariant: layers with other digests were refused");
        let mut body = Body::layer(session, layer, 0);
        while let Some(chunk) = body.chunk().await? {
            hasher.update(chunk.as_ref());
            file.write_all(chunk.as_ref()).map_err(failed(&path))?;
        }
        let actual = hasher.finish();
        if actual != layer.digest {
            let expected = layer.digest.clone();
            let source = VerifyError::Digest { expected, actual };
            let subject = Subject::Layer(layer.digest.clone());
            return Err(session.unverified(&subject, source).into());
        }
        self.blobs.insert(name, layer.size);
        Ok(())
    }

    fn path(&self, digest: &Digest) -> Result<PathBuf, BundleError> {
        let path = self.directory.join(blob_name(digest));
        let parent = path.parent().unwrap_or(self.directory);
        fs::create_dir_all(parent).map_err(failed(parent))?;
        Ok(path)
    }

    /// Everything in one tar file, under its name when it is whole and on the disk.
    fn write(&self, index: &[u8], file: &Path) -> io::Result<(Digest, u64)> {
        let mut unready = file.as_os_str().to_owned();
        unready.push(".new");
        let unready = Path::new(&unready);
        let written = self.archive(index, unready).and_then(|()| {
            let digest = hash(unready)?;
            fs::rename(unready, file)?;
            Ok(digest)
        });
        if written.is_err() {
            // It may not even be there.
            let _ = fs::remove_file(unready);
        }
        written
    }

    fn archive(&self, index: &[u8], path: &Path) -> io::Result<()> {
        let mut archive = tar::Builder::new(io::BufWriter::new(File::create(path)?));
        let sum = format!("{}\n", digest::sha256(index));
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        for (name, body) in [
            ("oci-layout", &layout[..]),
            ("index.json", index),
            (INDEX_SUM, sum.as_bytes()),
        ] {
            archive.append_data(&mut header(body.len() as u64), name, body)?;
        }
        for (name, size) in &self.blobs {
            let blob = BufReader::new(File::open(self.directory.join(name))?);
            archive.append_data(&mut header(*size), name, blob)?;
        }
        let file = archive.into_inner()?.into_inner();
        file.map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

/// What does not depend on anything.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}

fn hash(path: &Path) -> io::Result<(Digest, u64)> {
    let mut hasher = Hasher::sha256();
    let mut file = BufReader::with_capacity(128 << 10, File::open(path)?);
    let mut size = 0;
    loop {
        let buffer = io::BufRead::fill_buf(&mut file)?;
        let count = buffer.len();
        if count == 0 {
            return Ok((hasher.finish(), size));
        }
        hasher.update(buffer);
        io::BufRead::consume(&mut file, count);
        size += count as u64;
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io { path, source }
}
