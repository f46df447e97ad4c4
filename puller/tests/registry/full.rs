//! A disk that is full: before a pull, at every step of it, and while images are removed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kobune_fixtures::{Content, Image, Options, Registry};
use kobune_puller::{
    Platform, PullError, PullRequest, PulledImage, Puller, PullerConfig, Repair, Roots, SaveFormat,
    Store, load, parse_reference, save,
};
use oci_spec::distribution::Reference;

use super::scene::*;

/// A file system of few megabytes; unmounted when dropped.
struct SmallDisk {
    directory: tempfile::TempDir,
}

impl SmallDisk {
    fn new(bytes: u64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let size = format!("size={bytes},mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(directory.path())
            .status();
        assert!(mounted.expect("mount runs").success());
        Self { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Leaves `bytes` free, by a file that takes all the rest.
    fn fill(&self, bytes: u64) {
        let ballast = self.path().join("ballast");
        let _ = fs::remove_file(&ballast);
        let stat = nix::sys::statvfs::statvfs(self.path()).expect("looked at");
        let free = stat.blocks_available() * stat.fragment_size();
        let taken = usize::try_from(free.saturating_sub(bytes)).expect("small");
        fs::write(ballast, vec![1; taken]).expect("there is room for it");
    }

    fn relieve(&self) {
        fs::remove_file(self.path().join("ballast")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn puller(disk: &SmallDisk, reserve: u64, spool_from: Option<u64>) -> Puller {
    let mut config = PullerConfig::new(Store::open(disk.path().join("store")).expect("a store"));
    config.retry_delay = Duration::from_millis(5);
    config.reserve = reserve;
    config.spool_from = spool_from;
    Puller::new(config).expect("a puller")
}

fn reference(registry: &Registry, name: &str) -> Reference {
    let text = format!("{}/{REPOSITORY}:{name}", registry.addr());
    parse_reference(&text).expect("a reference")
}

async fn pull(puller: &Puller, reference: &Reference) -> Result<PulledImage, PullError> {
    let request = PullRequest {
        reference: reference.clone(),
        credentials: None,
        platform: "linux/amd64".parse::<Platform>().expect("a platform"),
    };
    puller.pull(&request, &()).await
}

fn small() -> Image {
    image(&["a", "b"])
}

/// One image as `1.0`, another as `old`.
fn both() -> Content {
    let mut content = content(&small());
    content.add_image(REPOSITORY, "old", &image(&["old"]));
    content
}

/// A registry with [`both`], a puller that keeps no reserve, and the references of `old` and `1.0`.
fn pair(disk: &SmallDisk, spool_from: Option<u64>) -> (Registry, Puller, [Reference; 2]) {
    let registry = Registry::start(both(), Options::default()).expect("a registry");
    let references = ["old", "1.0"].map(|name| reference(&registry, name));
    (registry, puller(disk, 0, spool_from), references)
}

/// Bytes of everything below a directory, in blocks of 4096.
fn taken(path: &Path) -> u64 {
    let mut sum = 4096;
    for entry in fs::read_dir(path).expect("listed") {
        let path = entry.expect("an entry").path();
        let metadata = fs::symlink_metadata(&path).expect("there");
        sum += match metadata.is_dir() {
            true => taken(&path),
            false => metadata.len().div_ceil(4096) * 4096,
        };
    }
    sum
}

#[tokio::test]
async fn a_pull_that_would_use_the_reserve_does_not_begin() {
    if !is_root() {
        return;
    }
    let disk = SmallDisk::new(16 << 20);
    let image = small();
    let registry = Registry::start(content(&image), Options::default()).expect("a registry");
    let reference = reference(&registry, "1.0");
    let error = pull(&puller(&disk, 15 << 20, None), &reference).await;
    let error = error.expect_err("refused");
    assert!(matches!(error, PullError::Room { .. }), "{error}");
    assert!(error.is_out_of_space() && !error.is_transient());
    let text = chain(&error);
    assert!(
        text.contains("1.0") && text.contains("15 MiB stay free"),
        "{text}"
    );
    let layers = registry.requests();
    let fetched = layers.iter().any(|request| {
        image
            .layers
            .iter()
            .any(|layer| request.path.contains(layer.digest.encoded()))
    });
    assert!(!fetched, "nothing is fetched that has no place");
    pull(&puller(&disk, 1 << 20, None), &reference)
        .await
        .expect("there is room");
}

/// Leaves from nothing at all to everything free, block by block where it hurts: the disk becomes
/// full at another step each time.
#[tokio::test]
async fn a_disk_that_becomes_full_anywhere_in_a_pull_loses_nothing() {
    if !is_root() {
        return;
    }
    for spool_from in [None, Some(0)] {
        let disk = SmallDisk::new(8 << 20);
        let (_registry, puller, [kept, wanted]) = pair(&disk, spool_from);
        let store = puller.store().clone();
        pull(&puller, &kept)
            .await
            .expect("pulled while there is room");
        pull(&puller, &wanted).await.expect("there is room");
        store.remove(&wanted).expect("removed");
        let before = taken(disk.path());
        store.sweep(&[]).expect("swept");
        let needs = before - taken(disk.path()) + (64 << 10);
        let mut failures = 0;
        for free in (0..needs).step_by(4096 * 7) {
            disk.fill(free);
            match pull(&puller, &wanted).await {
                Ok(_) => {}
                Err(error) => {
                    failures += 1;
                    assert!(error.is_out_of_space(), "{free} free: {}", chain(&error));
                    let text = chain(&error);
                    assert!(
                        text.contains("No space left") || text.contains("find room"),
                        "{text}"
                    );
                    assert!(store.lookup(&wanted).expect("read").is_none());
                }
            }
            assert!(
                store.lookup(&kept).expect("read").is_some(),
                "what was there is there"
            );
            let verified = store.verify().expect("verified");
            assert!(
                verified.damage.is_empty(),
                "{free} free: {:?}",
                verified.damage
            );
            // Removing needs no room.
            store.remove(&wanted).expect("removed on a full disk");
            store.sweep(&[]).expect("swept on a full disk");
            let staging = fs::read_dir(store.root().join("staging")).expect("listed");
            assert_eq!(staging.count(), 0, "{free} free");
        }
        assert!(failures > 3, "the disk was full in {failures} places only");
        disk.relieve();
        pull(&puller, &wanted)
            .await
            .expect("when space is back it goes on");
        assert!(store.lookup(&wanted).expect("read").is_some());
    }
}

/// As with a pull, block by block: what a file brings instead of a registry.
#[tokio::test]
async fn a_disk_that_becomes_full_anywhere_in_an_import_loses_nothing() {
    if !is_root() {
        return;
    }
    let disk = SmallDisk::new(8 << 20);
    let (_registry, puller, [kept, wanted]) = pair(&disk, None);
    let store = puller.store();
    pull(&puller, &kept).await.expect("there is room");
    pull(&puller, &wanted).await.expect("there is room");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let archive = elsewhere.path().join("image.tar");
    save(
        store,
        std::slice::from_ref(&wanted),
        &archive,
        SaveFormat::Archive,
    )
    .expect("saved");
    let platform = "linux/amd64".parse::<Platform>().expect("a platform");
    let before = taken(disk.path());
    store.remove(&wanted).expect("removed");
    store.sweep(&[]).expect("swept");
    // What is estimated for layers is three times their size.
    let needs = (before - taken(disk.path())) * 4;
    let mut failures = 0;
    for free in (0..needs).step_by(4096 * 5) {
        disk.fill(free);
        if let Err(error) = load(store, &archive, &platform, 0) {
            failures += 1;
            let text = chain(&error);
            assert!(
                text.contains("No space left") || text.contains("find room"),
                "{free} free: {text}"
            );
            assert!(store.lookup(&wanted).expect("read").is_none());
        }
        assert!(store.lookup(&kept).expect("read").is_some());
        let damage = store.verify().expect("verified").damage;
        assert!(damage.is_empty(), "{free} free: {damage:?}");
        store.remove(&wanted).expect("removed on a full disk");
        store.sweep(&[]).expect("swept on a full disk");
    }
    assert!(failures > 3, "the disk was full in {failures} places only");
    disk.relieve();
    load(store, &archive, &platform, 0).expect("when space is back it goes on");
    assert!(store.lookup(&wanted).expect("read").is_some());
}

/// A repair that finds no room leaves what it was to repair, found as damaged as before.
#[tokio::test]
async fn a_disk_that_becomes_full_anywhere_in_a_repair_loses_nothing() {
    if !is_root() {
        return;
    }
    let disk = SmallDisk::new(8 << 20);
    let (_registry, puller, [other, wanted]) = pair(&disk, None);
    let store = puller.store();
    let pulled = pull(&puller, &wanted).await.expect("there is room");
    pull(&puller, &other).await.expect("there is room");
    let files = fs::read_dir(pulled.layers[0].join("etc")).expect("files");
    let broken = files.map(|file| file.expect("a file").path()).min();
    let broken = broken.expect("one at least");
    let (mut failures, mut repaired) = (0, 0);
    for free in (0..taken(disk.path())).step_by(4096 * 5) {
        let mut content = fs::read(&broken).expect("readable");
        content[0] ^= 0x10;
        fs::write(&broken, &content).expect("as long as it was");
        let damage = store.verify().expect("verified").damage;
        assert_eq!(damage.len(), 1, "{damage:?}");
        disk.fill(free);
        for repair in Repair::plan(&damage) {
            if let Err(error) = puller.repair(&repair, None, &()).await {
                failures += 1;
                assert!(error.is_out_of_space(), "{free} free: {}", chain(&error));
                let after = store.verify().expect("verified").damage;
                assert_eq!(after.len(), 1, "{free} free: {after:?}");
            }
        }
        disk.relieve();
        for repair in Repair::plan(&store.verify().expect("verified").damage) {
            let again = puller.repair(&repair, None, &()).await;
            again.expect("there is room");
        }
        repaired += 1;
        // The layers in whose place others came, which modules might still use.
        store.sweep(&[]).expect("swept");
        assert!(store.verify().expect("verified").damage.is_empty());
        assert_eq!(store.images().expect("images").images.len(), 2);
    }
    assert!(
        failures > 3 && failures < repaired,
        "{failures} of {repaired}"
    );
}

#[tokio::test]
async fn collecting_on_a_full_disk_makes_room_and_keeps_what_is_needed() {
    if !is_root() {
        return;
    }
    let disk = SmallDisk::new(8 << 20);
    let (_registry, puller, [unused, needed]) = pair(&disk, None);
    let store = puller.store();
    pull(&puller, &unused).await.expect("pulled");
    let image = pull(&puller, &needed).await.expect("pulled");
    disk.fill(0);
    let mut roots = Roots::default();
    roots.ids.insert(image.id.to_string());
    let young = store
        .collect(&roots, Duration::from_secs(3600))
        .expect("collected");
    assert!(young.images.is_empty(), "it is too young: {young:?}");
    let collected = store.collect(&roots, Duration::ZERO).expect("collected");
    assert_eq!(collected.images, std::slice::from_ref(&unused));
    assert_eq!(collected.swept.layers, 1);
    assert!(collected.freed > 0);
    assert!(store.lookup(&unused).expect("read").is_none());
    assert!(store.lookup(&needed).expect("read").is_some());
    let again = pull(&puller, &unused).await;
    let error = again.expect_err("less than what is estimated");
    assert!(matches!(error, PullError::Room { .. }), "{error}");
    disk.relieve();
    pull(&puller, &unused).await.expect("space is back");
}
