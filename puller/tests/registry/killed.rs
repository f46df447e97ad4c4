//! A puller that is killed again and again, on a real ext4 that at every other time loses its power
//! as well: what its journal and its device have by then is what the next start finds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kobune_fixtures::{
    Content, Fault, Image, ImageBuilder, Layer, LayerBuilder, Options, Registry, Times,
};
use kobune_puller::{PullRequest, PulledImage, Puller, PullerConfig, Store, parse_reference};

use super::scene::{REPOSITORY, amd64, blob, is_root};

const NAME: &str = "killed::a_store_survives_kills_and_power_cuts_on_ext4";
/// Which part a process plays, said by the one that starts it: none is the test itself.
const PART: &str = "KOBUNE_TEST_PART";
const REGISTRY: &str = "KOBUNE_TEST_REGISTRY";
const STORE: &str = "KOBUNE_TEST_STORE";

const ROUNDS: u64 = 24;
/// Longest life of a puller, milliseconds: more than two pulls take.
const LIFE: u64 = 900;
/// Bytes in a second for each layer, so that a pull takes about 300 ms.
const SPEED: usize = 2_000_000;

#[tokio::test]
async fn a_store_survives_kills_and_power_cuts_on_ext4() {
    if !is_root() {
        return;
    }
    let part = std::env::var(PART);
    match part.as_deref() {
        // In a mount namespace, so that nothing stays mounted whatever happens.
        Err(_) => {
            let mut again = Command::new("unshare");
            again.args(["--mount", "--propagation", "private"]);
            again.arg(std::env::current_exe().expect("a path"));
            again.args(["--exact", NAME, "--nocapture"]);
            let status = again.env(PART, "rounds").status().expect("unshare runs");
            assert!(status.success(), "it says above why");
        }
        Ok("rounds") => rounds().await,
        Ok(_) => pull_on().await,
    }
}

/// Pulls two versions that share a layer, and removes them, until killed.
async fn pull_on() {
    let (registry, store) = (std::env::var(REGISTRY), std::env::var(STORE));
    let puller = puller(&PathBuf::from(store.expect("a store")));
    let address = registry.expect("an address");
    loop {
        for tag in ["1", "2"] {
            pull(&puller, &address, tag).await;
        }
        for tag in ["1", "2"] {
            let reference = request(&address, tag).reference;
            puller.store().remove(&reference).expect("removed");
            puller.store().sweep(&[]).expect("swept");
        }
    }
}

async fn rounds() {
    let (registry, directory) = (registry(), tempfile::tempdir().expect("a directory"));
    let address = registry.addr().to_string();
    // What whole layers are.
    let whole = directory.path().join("whole");
    let reference = puller(&whole);
    for tag in ["1", "2"] {
        pull(&reference, &address, tag).await;
    }
    let disk = Disk::new(directory.path());
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut random = since.expect("after 1970").subsec_nanos().into();
    println!("seed {random}");
    for round in 0..ROUNDS {
        random = u64::wrapping_mul(random, 6_364_136_223_846_793_005).wrapping_add(1);
        let life = Duration::from_millis((random >> 33) % LIFE);
        let case = format!("round {round}, killed after {life:?}");
        let mut child = start(&address, &disk.store());
        tokio::time::sleep(life).await;
        assert!(child.try_wait().expect("a child").is_none(), "{case}");
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        if round % 2 == 1 {
            disk.lose_power();
        }
        check(&disk.store(), &whole, &case);
    }
    let last = puller(&disk.store());
    for tag in ["1", "2"] {
        let image = pull(&last, &address, tag).await;
        assert_eq!(image.layers.len(), 2);
    }
    drop(last);
    check(&disk.store(), &whole, "at the end");
    assert_eq!(layers(&disk.store()).len(), 3);
}

fn start(address: &str, store: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", NAME, "--nocapture"])
        .envs([(PART, "pull"), (REGISTRY, address)])
        .env(STORE, store)
        .stdout(Stdio::null())
        .spawn()
        .expect("the test runs again")
}

/// Opens the store; what it has must be whole.
fn check(root: &Path, whole: &Path, case: &str) {
    let store = Store::open(root).expect(case);
    let images = store.images().expect(case);
    assert!(images.broken.is_empty(), "{case}: {:?}", images.broken);
    let layers = layers(root);
    for image in images.images {
        let named = image.layers.iter();
        let missing: Vec<_> = named.filter(|path| !layers.contains(path)).collect();
        assert!(missing.is_empty(), "{case}: {missing:?}");
    }
    for layer in layers {
        let same = Command::new("diff")
            .args(["--recursive", "--no-dereference", "--brief"])
            .arg(&layer)
            .arg(
                whole
                    .join("layers")
                    .join(layer.file_name().expect("a name")),
            )
            .status()
            .expect("diff runs");
        assert!(same.success(), "{case}: {}", layer.display());
    }
    let staged = fs::read_dir(root.join("staging")).expect(case);
    assert_eq!(staged.count(), 0, "{case}: what broke off is gone");
}

fn layers(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root.join("layers")).expect("layers");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

fn puller(directory: &Path) -> Puller {
    let store = Store::open(directory).expect("a store");
    let mut config = PullerConfig::new(store);
    config.spool_from = Some(100_000);
    // The whole disk is smaller than the usual one.
    config.reserve = 0;
    Puller::new(config).expect("a puller")
}

fn request(address: &str, tag: &str) -> PullRequest {
    let reference = format!("{address}/{REPOSITORY}:{tag}");
    PullRequest {
        reference: parse_reference(&reference).expect("a reference"),
        credentials: None,
        platform: "linux/amd64".parse().expect("a platform"),
    }
}

async fn pull(puller: &Puller, address: &str, tag: &str) -> PulledImage {
    let pulled = puller.pull(&request(address, tag), &()).await;
    pulled.expect("pulled")
}

/// Many files, so that a kill finds some of them.
fn layer(seed: u8) -> Layer {
    let mut state = u32::from(seed);
    let mut noise = |length: usize| -> Vec<u8> {
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(length).collect()
    };
    let mut layer = LayerBuilder::new();
    for at in 0..200 {
        let name = format!("files/{seed}/{at}");
        layer = layer.file(name, 0o644, noise(if at % 20 == 0 { 30_000 } else { 1000 }));
    }
    layer.build()
}

fn registry() -> Registry {
    let mut content = Content::new();
    let base = layer(1);
    let images: Vec<Image> = [2, 3]
        .map(|seed| {
            ImageBuilder::new(amd64())
                .layer(base.clone())
                .layer(layer(seed))
                .build()
        })
        .into();
    for (image, tag) in images.iter().zip(["1", "2"]) {
        content.add_image(REPOSITORY, tag, image);
    }
    let registry = Registry::start(content, Options::default()).expect("a registry");
    for layer in images.iter().flat_map(|image| &image.layers) {
        let slow = Fault::Throttle {
            bytes_per_second: SPEED,
        };
        registry.fault(blob(layer), slow, Times::Always);
    }
    registry
}

/// An ext4 in a file, mounted in this mount namespace.
struct Disk {
    image: PathBuf,
    mounted: PathBuf,
}

impl Disk {
    fn new(directory: &Path) -> Self {
        let disk = Self {
            image: directory.join("image"),
            mounted: directory.join("disk"),
        };
        let file = fs::File::create(&disk.image).expect("a file");
        file.set_len(64 << 20).expect("sized");
        fs::create_dir(&disk.mounted).expect("a directory");
        run(Command::new("mkfs.ext4").arg("-qF").arg(&disk.image));
        disk.mount();
        disk
    }

    fn mount(&self) {
        let mut mount = Command::new("mount");
        mount.args(["-t", "ext4", "-o", "loop"]);
        run(mount.args([&self.image, &self.mounted]));
    }

    fn store(&self) -> PathBuf {
        self.mounted.join("store")
    }

    /// The file system writes nothing more, not even its journal; then it is mounted again.
    fn lose_power(&self) {
        let mut shutdown = Command::new("xfs_io");
        run(shutdown.args(["-x", "-c", "shutdown"]).arg(&self.mounted));
        run(Command::new("umount").arg(&self.mounted));
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.mounted).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("it is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
}
