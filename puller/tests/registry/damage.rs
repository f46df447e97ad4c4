//! Bits that flip at rest: found wherever they are, and healed by fetching only what is broken.

use std::fs;
use std::path::{Path, PathBuf};

use kobune_fixtures::{Compression, Image, ImageBuilder, Layer};
use kobune_puller::{Damage, Part, Repair};

use super::scene::*;

/// Flips a bit in the middle of a file.
fn flip(path: &Path) {
    let mut content = fs::read(path).expect("readable");
    let middle = content.len() / 2;
    content[middle] ^= 0x10;
    fs::write(path, content).expect("writable");
}

fn truncate(path: &Path) {
    let length = fs::metadata(path).expect("there").len();
    let file = fs::File::options().write(true).open(path).expect("open");
    file.set_len(length / 2).expect("cut");
}

/// Leaves a list without a record.
fn bare(path: &Path) {
    let list = fs::read(path).expect("readable");
    let line = list.iter().position(|byte| *byte == b'\n');
    fs::write(path, &list[..=line.expect("a first line")]).expect("written");
}

fn empty(path: &Path) {
    fs::write(path, "").expect("emptied");
}

fn remove(path: &Path) {
    fs::remove_file(path).expect("removed");
}

/// What happens to a file.
type Harm = fn(&Path);

/// The first file of a layer.
fn a_file(layer: &Path) -> PathBuf {
    let files = fs::read_dir(layer.join("etc")).expect("files");
    let paths = files.map(|file| file.expect("a file").path());
    paths.min().expect("one at least")
}

/// The only record.
fn record(scene: &Scene) -> PathBuf {
    let records = fs::read_dir(scene.directory.path().join("images")).expect("images");
    let mut paths = records.map(|entry| entry.expect("an entry").path());
    paths
        .find(|path| path.extension().is_some())
        .expect("a record")
}

fn two_layers() -> (Image, Layer, Layer) {
    let (low, high) = (
        layer("low", Compression::Gzip),
        layer("high", Compression::Gzip),
    );
    let image = ImageBuilder::new(amd64())
        .layer(low.clone())
        .layer(high.clone())
        .build();
    (image, low, high)
}

fn only(scene: &Scene) -> Damage {
    let mut damage = scene.puller.store().verify().expect("verified").damage;
    assert_eq!(damage.len(), 1, "{damage:?}");
    damage.remove(0)
}

async fn heal(scene: &Scene, damage: &Damage) {
    for repair in Repair::plan(std::slice::from_ref(damage)) {
        let repaired = scene.puller.repair(&repair, None, &()).await;
        repaired.expect("repaired");
    }
}

/// As it was before the damage to `path`, in all respects.
fn assert_sound(scene: &Scene, path: &Path, layers: &[PathBuf]) {
    let store = scene.puller.store();
    let after = store.verify().expect("verified").damage;
    assert!(after.is_empty(), "{}: {after:?}", path.display());
    let again = store.lookup(&scene.reference(":1.0")).expect("read");
    assert_eq!(again.expect("the image").layers, layers);
    assert_eq!(store.images().expect("images").images.len(), 1);
    assert_eq!(scene.count("staging"), 0);
}

#[tokio::test]
async fn a_flipped_bit_is_found_wherever_it_is_and_only_that_part_is_fetched_again() {
    if !is_root() {
        return;
    }
    let (image, low, high) = two_layers();
    let scene = Scene::serving(&image);
    let pulled = scene.pull(":1.0").await.expect("pulled");
    let store = scene.puller.store();
    let sound = store.verify().expect("verified");
    assert!(sound.damage.is_empty(), "{:?}", sound.damage);
    assert!(sound.unlisted.is_empty());
    assert_eq!(sound.layers, 2);
    let root = scene.directory.path();
    let list = root.join("files").join(low.diff_id.encoded());
    let (file, cut) = (
        a_file(&scene.layer_path(&low)),
        a_file(&scene.layer_path(&high)),
    );
    let (record, config) = (record(&scene), pulled.config_path.clone());
    let (of_low, of_high) = (low.blob.len(), high.blob.len());
    let cases: [(&Path, Harm, usize, &str); 10] = [
        (&file, flip, of_low, "content has changed"),
        (&cut, truncate, of_high, "content has changed"),
        (&cut, remove, of_high, "gone"),
        (&list, flip, of_low, ""),
        (&list, empty, of_low, "list of files"),
        (&list, bare, of_low, "in no list"),
        (&config, flip, 0, "configuration"),
        (&config, truncate, 0, "configuration"),
        (&record, flip, 0, "record"),
        (&record, truncate, 0, "record"),
    ];
    for (path, harm, costs, word) in cases {
        harm(path);
        let damage = only(&scene);
        assert!(
            damage.to_string().contains(word),
            "{damage} says not {word}"
        );
        let before = scene.sent();
        if damage.images.is_empty() {
            // A record whose name is lost, too: another pull writes it anew.
            assert!(matches!(damage.part, Part::Record(_)));
            scene.pull(":1.0").await.expect("pulled");
        } else {
            heal(&scene, &damage).await;
        }
        let fetched = scene.sent() - before;
        let expected = costs + image.config.len();
        assert_eq!(
            fetched,
            expected,
            "{} costs the layer alone",
            path.display()
        );
        assert_sound(&scene, path, &pulled.layers);
    }
}

#[tokio::test]
async fn any_bit_of_a_record_and_of_a_list_counts() {
    if !is_root() {
        return;
    }
    let (image, low, _) = two_layers();
    let scene = Scene::serving(&image);
    scene.pull(":1.0").await.expect("pulled");
    let root = scene.directory.path();
    let list = root.join("files").join(low.diff_id.encoded());
    for (path, is_text) in [(record(&scene), true), (list, false)] {
        let sound = fs::read(&path).expect("readable");
        for bit in (0..sound.len() * 8).step_by(13) {
            let mut content = sound.clone();
            content[bit / 8] ^= 1 << (bit % 8);
            let (old, new) = (sound[bit / 8], content[bit / 8]);
            fs::write(&path, &content).expect("written");
            let found = scene.puller.store().verify().expect("verified").damage;
            // White space between fields, and the case of hexadecimal digits, say nothing.
            let says_nothing =
                is_text && (new.eq_ignore_ascii_case(&old) || old.is_ascii_whitespace());
            assert!(
                !found.is_empty() || says_nothing,
                "bit {bit} of {}: {:?}",
                path.display(),
                char::from(old),
            );
        }
        fs::write(&path, &sound).expect("written");
    }
    assert!(
        scene
            .puller
            .store()
            .verify()
            .expect("verified")
            .damage
            .is_empty()
    );
}

#[tokio::test]
async fn without_the_registry_a_damaged_layer_stays_as_it_is() {
    if !is_root() {
        return;
    }
    let (image, low, _) = two_layers();
    let scene = Scene::serving(&image);
    let pulled = scene.pull(":1.0").await.expect("pulled");
    fs::write(scene.layer_path(&low).join("etc/low"), "changed").expect("written");
    let damage = only(&scene);
    let text = damage.to_string();
    assert!(
        text.contains("\"etc/low\"") && text.contains(":1.0"),
        "{text}"
    );
    scene.registry.fault(
        blob(&low),
        kobune_fixtures::Fault::DropAfter { bytes: 0 },
        kobune_fixtures::Times::Always,
    );
    let [repair] = &Repair::plan(std::slice::from_ref(&damage))[..] else {
        panic!("one image")
    };
    scene
        .puller
        .repair(repair, None, &())
        .await
        .expect_err("the layer never comes");
    assert_eq!(only(&scene), damage, "nothing is worse than before");
    let still = scene.puller.store().lookup(&scene.reference(":1.0"));
    assert_eq!(
        still.expect("read").map(|image| image.layers),
        Some(pulled.layers)
    );
    assert_eq!(scene.count("staging"), 0);
}

#[tokio::test]
async fn a_replaced_layer_stays_until_nobody_uses_it() {
    if !is_root() {
        return;
    }
    let (image, low, _) = two_layers();
    let scene = Scene::serving(&image);
    let pulled = scene.pull(":1.0").await.expect("pulled");
    let file = scene.layer_path(&low).join("etc/low");
    fs::write(&file, "changed").expect("written");
    let held = fs::File::open(scene.layer_path(&low)).expect("as a mount holds it");
    heal(&scene, &only(&scene)).await;
    let store = scene.puller.store();
    let path = format!(
        "/proc/self/fd/{}/etc/low",
        std::os::fd::AsRawFd::as_raw_fd(&held)
    );
    let seen = || fs::read(&path).ok();
    assert_eq!(fs::read(&file).expect("good"), b"low");
    store.sweep(&pulled.layers).expect("swept");
    assert_eq!(
        seen().as_deref(),
        Some(&b"changed"[..]),
        "who uses it goes on"
    );
    store.sweep(&[]).expect("swept");
    assert_eq!((seen(), scene.count("replaced")), (None, 0));
    assert_eq!(fs::read(&file).expect("good"), b"low");
}
