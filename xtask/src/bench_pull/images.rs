//! The images: a Debian with Python, and one of many small files like a tree of `node_modules`.

use std::fs;
use std::path::Path;
use std::process::Command;

use kobune_fixtures::Digest;
use serde_json::json;

use super::target;
use crate::setup;

/// Files in the second image, and directories they are spread over.
const FILES: usize = 24_000;
const DIRECTORIES: usize = 3_000;
/// Words that the files are made of.
const WORDS: usize = 4096;

/// One tree, packed in two ways.
pub(super) struct Tree {
    pub(super) gzip: Packed,
    pub(super) zstd: Packed,
    pub(super) entries: u32,
}

/// One blob.
pub(super) struct Packed {
    pub(super) name: String,
    /// In the working directory.
    pub(super) file: String,
    pub(super) digest: String,
    pub(super) diff_id: String,
    pub(super) is_zstd: bool,
}

/// Debian's minbase with Python, as the puller's tests keep it.
pub(super) fn debian(work: &Path) -> Result<Tree, String> {
    let rootfs = target().join("tmp/real-registry/debian-rootfs");
    if !rootfs.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["test", "-p", "kobune-puller", "--test", "real_registry"]);
        setup::run(&mut cargo)?;
    }
    pack(work, "debian", &rootfs)
}

/// Many small files; every run makes the same bytes.
pub(super) fn many(work: &Path) -> Result<Tree, String> {
    let root = work.join("many");
    let mut random = Random(1);
    let words: Vec<String> = (0..WORDS).map(|_| random.word()).collect();
    for at in 0..FILES {
        let package = at % DIRECTORIES;
        let scope = package % 300;
        let directory = root.join(format!(
            "app/node_modules/@scope-{scope}/package-{package}/lib"
        ));
        fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        // Most are small, some large, as in real trees: 11 KiB on the average.
        let length = match at % 20 {
            0 => 100_000,
            1..=5 => 12_000,
            _ => 4_000,
        };
        let mut text = String::new();
        while text.len() < length {
            // Few words are most of any text.
            let rank = random.below(WORDS) * random.below(WORDS) / WORDS;
            text.push_str(&words[rank]);
            text.push(if random.below(9) == 0 { '\n' } else { ' ' });
        }
        let file = directory.join(format!("module-{at}.js"));
        fs::write(file, text).map_err(|error| error.to_string())?;
    }
    let tree = pack(work, "many", &root);
    fs::remove_dir_all(&root).map_err(|error| error.to_string())?;
    tree
}

fn pack(work: &Path, name: &str, root: &Path) -> Result<Tree, String> {
    let mut tar = Command::new("tar");
    tar.current_dir(work)
        .args(["--sort=name", "--numeric-owner", "--mtime=@1700000000"])
        .args(["-cf", &format!("{name}.tar"), "-C"])
        .arg(root)
        .arg(".");
    setup::run(&mut tar)?;
    let script =
        format!("gzip -6 -k {name}.tar; zstd -q -3 {name}.tar; tar -tf {name}.tar | wc -l");
    let mut shell = Command::new("sh");
    let output = shell.current_dir(work).args(["-ec", &script]).output();
    let output = output.map_err(|error| error.to_string())?;
    let count = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let diff_id = sha256(&work.join(format!("{name}.tar")))?;
    let packed = |suffix: &str, is_zstd| -> Result<Packed, String> {
        let file = format!("{name}.tar.{suffix}");
        Ok(Packed {
            name: format!("{name}-{suffix}"),
            digest: sha256(&work.join(&file))?,
            file,
            diff_id: diff_id.clone(),
            is_zstd,
        })
    };
    let tree = Tree {
        gzip: packed("gz", false)?,
        zstd: packed("zst", true)?,
        entries: count
            .parse()
            .map_err(|_| format!("tar counted {count:?}"))?,
    };
    fs::remove_file(work.join(format!("{name}.tar"))).map_err(|error| error.to_string())?;
    Ok(tree)
}

/// Copies an image of one layer to a registry.
pub(super) fn push(work: &Path, packed: &Packed, reference: &str) -> Result<(), String> {
    let layout = work.join(format!("{}.oci", packed.name));
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|error| error.to_string())?;
    let put = |body: String| -> Result<(String, usize), String> {
        let digest = Digest::of(body.as_bytes());
        let length = body.len();
        fs::write(blobs.join(digest.encoded()), body).map_err(|error| error.to_string())?;
        Ok((digest.as_str().to_owned(), length))
    };
    let file = work.join(&packed.file);
    let size = fs::metadata(&file)
        .map_err(|error| error.to_string())?
        .len();
    fs::hard_link(&file, blobs.join(&packed.digest)).map_err(|error| error.to_string())?;
    let diff_ids = [format!("sha256:{}", packed.diff_id)];
    let (config, length) = put(json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string())?;
    let kind = if packed.is_zstd { "zstd" } else { "gzip" };
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let (manifest, manifest_length) = put(json!({
        "schemaVersion": 2, "mediaType": manifest_type,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": length},
        "layers": [{"mediaType": format!("application/vnd.oci.image.layer.v1.tar+{kind}"),
            "digest": format!("sha256:{}", packed.digest), "size": size}],
    })
    .to_string())?;
    let index = json!({"schemaVersion": 2, "manifests": [
        {"mediaType": manifest_type, "digest": manifest, "size": manifest_length,
         "annotations": {"org.opencontainers.image.ref.name": "1"}}]});
    let write = |name: &str, text: String| fs::write(layout.join(name), text);
    write("index.json", index.to_string()).map_err(|error| error.to_string())?;
    write(
        "oci-layout",
        json!({"imageLayoutVersion": "1.0.0"}).to_string(),
    )
    .map_err(|error| error.to_string())?;
    let from = format!("oci:{}:1", layout.display());
    let to = format!("docker://{reference}");
    let options = ["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"];
    setup::run(Command::new("skopeo").args(options).args([&from, &to]))
}

fn sha256(file: &Path) -> Result<String, String> {
    let output = Command::new("sha256sum").arg(file).output();
    let output = output.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let hash = text.split_whitespace().next().unwrap_or_default();
    if hash.len() == 64 {
        return Ok(hash.to_owned());
    }
    Err(format!("sha256sum {}: {text}", file.display()))
}

/// A linear congruential generator (Knuth, MMIX).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).map_or(0, |number| number % end)
    }

    fn word(&mut self) -> String {
        let length = 3 + self.below(9);
        let letters = (0..length).map(|_| char::from(b"etaoinshrdlucmfw"[self.below(16)]));
        letters.collect()
    }
}
