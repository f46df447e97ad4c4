//! What hostile bytes are thrown at: each function takes any bytes and returns, or there is a fault
//! of ours. `cargo fuzz` calls them (`puller/fuzz`), and so do the tests, with the corpus and with
//! seeded changes to it.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use crate::auth::{ask, challenge as header};
use crate::layer::zstd_decoder;
use crate::manifest::{self as documents, Document};
use crate::unpack::{self, Resolver};

/// Bytes of an archive that are looked at: a small stream can hold gigabytes.
const ARCHIVE: u64 = 2 << 20;

/// One target.
pub type Target = fn(&[u8]);

/// All targets, by the name of their corpus.
pub const TARGETS: [(&str, Target); 9] = [
    ("archive", archive),
    ("gzip", gzip),
    ("zstd", zstd),
    ("manifest", manifest),
    ("challenge", challenge),
    ("reference", reference),
    ("pax", pax),
    ("signature", signature),
    ("delta", delta),
];

/// A directory to unpack into, with a neighbour that nothing may reach.
struct Scene(PathBuf);

impl Scene {
    fn new() -> Self {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("kobune-hostile-{}-{serial}", std::process::id());
        let path = std::env::temp_dir().join(name);
        for below in ["root", "outside"] {
            fs::create_dir_all(path.join(below)).expect("a directory");
        }
        fs::write(path.join("outside/keep"), "untouched").expect("a file");
        Self(path)
    }

    fn assert_untouched(&self) {
        let names = |path: PathBuf| -> Vec<_> {
            let entries = fs::read_dir(path).expect("a directory");
            let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(self.0.clone()), ["outside", "root"]);
        assert_eq!(names(self.0.join("outside")), ["keep"]);
        let kept = fs::read(self.0.join("outside/keep")).expect("a file");
        assert_eq!(kept, b"untouched");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A tar stream, unpacked in both ways.
pub fn archive(data: &[u8]) {
    for resolver in [Resolver::Walk, Resolver::probe()] {
        unpacked(data, resolver);
    }
}

/// A gzip stream of a tar stream.
pub fn gzip(data: &[u8]) {
    unpacked(MultiGzDecoder::new(data), Resolver::probe());
}

/// A zstd stream of a tar stream.
pub fn zstd(data: &[u8]) {
    if let Ok(decoder) = zstd_decoder(data) {
        unpacked(decoder, Resolver::probe());
    }
}

fn unpacked(stream: impl Read, resolver: Resolver) {
    let scene = Scene::new();
    let mut stream = stream.take(ARCHIVE);
    let result = unpack::unpack(&mut stream, &scene.0.join("root"), resolver, &mut ());
    if let Err(error) = result {
        assert!(!error.to_string().is_empty());
    }
    let _ = io::copy(&mut stream, &mut io::sink());
    scene.assert_untouched();
}

/// A manifest, an index or a configuration.
pub fn manifest(data: &[u8]) {
    let config = documents::config(data);
    for kind in [None, Some("application/vnd.oci.image.manifest.v1+json")] {
        match documents::read(data, kind) {
            Ok(Document::Manifest(manifest)) => {
                let _ = documents::check_config(manifest.config());
                if let Ok(config) = &config {
                    let _ = documents::layers(&manifest, config);
                }
            }
            Ok(Document::Index(index)) => {
                let platform = crate::Platform::host();
                if let Some(chosen) = crate::platform::choose(index.manifests(), &platform) {
                    let _ = documents::check_document(chosen);
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// A `WWW-Authenticate` header.
pub fn challenge(data: &[u8]) {
    for challenge in header::parse(&String::from_utf8_lossy(data)) {
        let _ = ask::token_url(&challenge, "our/app", None);
    }
}

/// An image reference; what is read can be read again.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(reference) = crate::parse_reference(text) {
        let again = crate::parse_reference(&reference.whole());
        assert_eq!(again.ok().as_ref(), Some(&reference));
    }
}

/// The records of a PAX header.
pub fn pax(data: &[u8]) {
    unpack::hostile_pax(data);
}

/// A signature in either form, or the key to hold it against.
pub fn signature(data: &[u8]) {
    crate::signature::hostile(data);
}

/// A layer's table of contents, its framing, and the blob that the table speaks of, with NUL bytes
/// between them.
pub fn delta(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let scene = Scene::new();
    let mut archive = crate::layer::hostile(next(), next(), next()).take(ARCHIVE);
    let _ = unpack::unpack(
        &mut archive,
        &scene.0.join("root"),
        Resolver::probe(),
        &mut (),
    );
    let _ = io::copy(&mut archive, &mut io::sink());
    scene.assert_untouched();
}

#[cfg(test)]
mod tests;
