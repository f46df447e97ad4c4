//! The images: a Debian with Python in four layers, and a `node_modules` of many small files above
//! a small first layer. Packed once, kept between runs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use kobune_fixtures::{Digest, chunk};
use serde_json::json;

use crate::setup;

/// What the second image is made of: one package with all that it needs, 37,000 files.
const NODE_PACKAGE: &str = "react-scripts@5.0.1";
/// What of Debian is in the second and third layer; the rest is in the first.
const PARTS: [&str; 2] = ["usr/share", "usr/lib/python3*"];

/// How a layer is compressed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
    /// zstd:chunked.
    Chunked,
}

/// An image's layers, uncompressed archives in a directory that is kept.
pub(super) struct Image {
    pub(super) name: &'static str,
    directory: PathBuf,
    layers: Vec<String>,
}

/// One compressed layer.
pub(super) struct Blob {
    pub(super) file: PathBuf,
    pub(super) digest: Digest,
    pub(super) diff_id: Digest,
    pub(super) annotations: BTreeMap<String, String>,
}

impl Packing {
    pub(super) const ALL: [Self; 3] = [Self::Gzip, Self::Zstd, Self::Chunked];

    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Gzip => "gz",
            Self::Zstd => "zst",
            Self::Chunked => "chunked",
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd | Self::Chunked => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

impl Image {
    fn new(name: &'static str, directory: &Path, layers: &[&str]) -> Self {
        Self {
            name,
            directory: directory.to_owned(),
            layers: layers.iter().map(|layer| (*layer).to_owned()).collect(),
        }
    }

    /// The layers, lowest first; compressed where they are not yet.
    pub(super) fn blobs(&self, packing: Packing) -> Result<Vec<Blob>, String> {
        let blob = |layer: &String| {
            let tar = self.directory.join(format!("{layer}.tar"));
            let file = self
                .directory
                .join(format!("{layer}.tar.{}", packing.suffix()));
            if !file.exists() {
                pack(&tar, &file, packing)?;
            }
            Ok(Blob {
                digest: sha256(&file)?,
                diff_id: sha256(&tar)?,
                annotations: match packing {
                    Packing::Gzip | Packing::Zstd => BTreeMap::new(),
                    Packing::Chunked => read_annotations(&file)?,
                },
                file,
            })
        };
        self.layers.iter().map(blob).collect()
    }

    /// The archives themselves.
    pub(super) fn archives(&self) -> Vec<PathBuf> {
        let path = |layer: &String| self.directory.join(format!("{layer}.tar"));
        self.layers.iter().map(path).collect()
    }
}

/// Compresses an archive.
fn pack(tar: &Path, file: &Path, packing: Packing) -> Result<(), String> {
    let part = file.with_extension("part");
    let tool = match packing {
        Packing::Gzip => "gzip -6",
        Packing::Zstd => "zstd -q -3",
        Packing::Chunked => return pack_chunked(tar, file),
    };
    shell(&format!("{tool} -c <{} >{}", tar.display(), part.display()))?;
    rename(&part, file)
}

/// Compresses an archive file by file, as well as others do that in one piece.
fn pack_chunked(tar: &Path, file: &Path) -> Result<(), String> {
    let part = file.with_extension("part");
    let packed = || {
        let archive = BufReader::new(fs::File::open(tar)?);
        let mut out = BufWriter::new(fs::File::create(&part)?);
        let chunked = chunk(archive, &mut out, 3)?;
        out.flush()?;
        let annotations = serde_json::to_vec(&chunked.annotations)?;
        fs::write(file.with_extension("annotations"), annotations)
    };
    packed().map_err(|error: std::io::Error| format!("pack {}: {error}", tar.display()))?;
    rename(&part, file)
}

fn read_annotations(file: &Path) -> Result<BTreeMap<String, String>, String> {
    let text = fs::read(file.with_extension("annotations")).map_err(|error| error.to_string())?;
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}

/// Debian's minbase with Python, as the puller's tests keep it; a version with four changed files in
/// the third layer; and one with three changed files in the first.
pub(super) fn debian(kept: &Path, target: &Path) -> Result<[Image; 3], String> {
    let rootfs = target.join("tmp/real-registry/debian-rootfs");
    if !rootfs.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "-p", "kobune-puller", "--test", "real_registry"]);
        setup::run(&mut cargo)?;
    }
    let root = rootfs.display();
    let [share, python] = PARTS;
    layer(
        kept,
        "debian-1",
        &format!("-C {root} --exclude=./{share} --exclude='./{python}' ."),
    )?;
    layer(kept, "debian-2", &format!("-C {root} {share}"))?;
    layer(
        kept,
        "debian-3",
        &format!("-C {root} $(cd {root}; ls -d {python})"),
    )?;
    let app = "mkdir -p $T/app; for n in $(seq 200); do seq $n 900 >$T/app/m$n.py; done";
    changed(kept, "debian-4", app, "app")?;
    let few = format!(
        "mkdir -p $T/usr/lib; cp -a {root}/{python} $T/usr/lib/; \
         find $T/usr/lib/python3*/ -name '*.py' | sort | sed -n '100~100p' | head -4 | \
         while read f; do echo '# changed in version 2' >>$f; done"
    );
    changed(kept, "debian-3b", &few, "usr")?;
    let base = format!(
        "cp -a {root}/. $T; rm -r $T/{share} $T/{python}; \
         for f in etc/issue etc/profile etc/bash.bashrc; do echo '# changed' >>$T/$f; done"
    );
    changed(kept, "debian-1b", &base, ".")?;
    let image = |name, layers: &[&str]| Image::new(name, kept, layers);
    Ok([
        image("debian", &["debian-1", "debian-2", "debian-3", "debian-4"]),
        image("few", &["debian-1", "debian-2", "debian-3b", "debian-4"]),
        image("base", &["debian-1b", "debian-2", "debian-3", "debian-4"]),
    ])
}

/// Many small files: what npm installs for [`NODE_PACKAGE`]. Which versions its needs have at
/// the time is the registry's word, so that sizes differ between machines a little.
pub(super) fn many(kept: &Path) -> Result<Image, String> {
    changed(
        kept,
        "many-1",
        "mkdir -p $T/bin; cp -L /bin/busybox $T/bin/; ln -s busybox $T/bin/sh",
        ".",
    )?;
    let install = format!(
        "mkdir -p $T/app; npm install --silent --ignore-scripts --no-audit --no-fund \
         --no-package-lock --prefix $T/app {NODE_PACKAGE}"
    );
    changed(kept, "node-modules", &install, ".")?;
    Ok(Image::new("many", kept, &["many-1", "node-modules"]))
}

/// Packs what `script` puts below `$T`.
fn changed(kept: &Path, name: &str, script: &str, what: &str) -> Result<(), String> {
    if kept.join(format!("{name}.tar")).exists() {
        return Ok(());
    }
    let tree = kept.join(format!("{name}.tree"));
    let _ = fs::remove_dir_all(&tree);
    let tree = tree.display();
    shell(&format!("T={tree}; mkdir -p $T; {script}"))?;
    layer(kept, name, &format!("-C {tree} {what}"))?;
    shell(&format!("rm -r {tree}"))
}

/// Packs a layer with tar's arguments.
fn layer(kept: &Path, name: &str, arguments: &str) -> Result<(), String> {
    let file = kept.join(format!("{name}.tar"));
    if file.exists() {
        return Ok(());
    }
    let part = file.with_extension("part");
    let fixed = "--sort=name --numeric-owner --mtime=@1700000000";
    shell(&format!("tar {fixed} -cf {} {arguments}", part.display()))?;
    rename(&part, &file)
}

/// Copies an image to a registry; gives its layers.
pub(super) fn push(
    work: &Path,
    image: &Image,
    packing: Packing,
    reference: &str,
) -> Result<Vec<Blob>, String> {
    let layers = image.blobs(packing)?;
    let layout = work.join(format!("{}-{}.oci", image.name, packing.suffix()));
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|error| error.to_string())?;
    let put = |body: String| -> Result<(Digest, usize), String> {
        let digest = Digest::of(body.as_bytes());
        let path = blobs.join(digest.encoded());
        fs::write(path, &body).map_err(|error| error.to_string())?;
        Ok((digest, body.len()))
    };
    let mut listed = Vec::new();
    for layer in &layers {
        let link = blobs.join(layer.digest.encoded());
        let _ = std::os::unix::fs::symlink(&layer.file, link);
        let size = fs::metadata(&layer.file).map_err(|error| error.to_string())?;
        listed.push(json!({"mediaType": packing.media_type(),
            "digest": layer.digest.as_str(), "size": size.len(),
            "annotations": layer.annotations}));
    }
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let (config, length) = put(json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string())?;
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let (manifest, manifest_length) = put(json!({
        "schemaVersion": 2, "mediaType": manifest_type, "layers": listed,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config.as_str(), "size": length},
    })
    .to_string())?;
    let index = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": manifest_type, "digest": manifest.as_str(), "size": manifest_length,
         "annotations": {"org.opencontainers.image.ref.name": "1"}}]});
    let version = json!({"imageLayoutVersion": "1.0.0"});
    for (name, body) in [("index.json", index), ("oci-layout", version)] {
        fs::write(layout.join(name), body.to_string()).map_err(|error| error.to_string())?;
    }
    let from = format!("oci:{}:1", layout.display());
    let to = format!("docker://{reference}");
    let options = [
        "--insecure-policy",
        "copy",
        "--preserve-digests",
        "-q",
        "--dest-tls-verify=false",
    ];
    setup::run(Command::new("skopeo").args(options).args([&from, &to]))?;
    Ok(layers)
}

fn shell(script: &str) -> Result<(), String> {
    setup::run(Command::new("sh").args(["-ec", script]))
}

fn rename(from: &Path, to: &Path) -> Result<(), String> {
    fs::rename(from, to).map_err(|error| format!("name {}: {error}", to.display()))
}

fn sha256(file: &Path) -> Result<Digest, String> {
    let output = Command::new("sha256sum").arg(file).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.split_whitespace().next() {
        Some(hash) if hash.len() == 64 => Ok(Digest::claim(&format!("sha256:{hash}"))),
        _ => Err(format!("sha256sum {}: {text}", file.display())),
    }
}
