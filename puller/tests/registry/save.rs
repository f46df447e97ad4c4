//! Images written to files, and read again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kobune_fixtures::{ImageBuilder, LayerBuilder, Options, Platform};
use kobune_puller::{LayoutError, SaveFormat, Saved, Store, load, save};

use super::scene::*;

/// Two layers that no packer of ours made: unsorted, without the directories above.
fn foreign() -> kobune_fixtures::Image {
    let low = LayerBuilder::new()
        .file("usr/z", 0o4755, "z")
        .file("usr/a", 0o644, "a")
        .hardlink("usr/b", "usr/a");
    let high = LayerBuilder::new()
        .file("usr/.wh.a", 0o644, "")
        .dir("tmp", 0o1777)
        .file("new", 0o600, "new");
    ImageBuilder::new(Platform::linux("amd64", ""))
        .layer(low.build())
        .layer(high.build())
        .build()
}

fn empty_store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path()).expect("a store");
    (directory, store)
}

fn written(
    store: &Store,
    names: &[oci_spec::distribution::Reference],
    path: &Path,
    format: SaveFormat,
) -> Vec<Saved> {
    match save(store, names, path, format) {
        Ok(saved) => saved,
        Err(error) => panic!("{}", chain(&error)),
    }
}

/// Names, types, modes and contents of all layers of a store's image. Directories that nobody listed
/// have the time they were made at.
fn seen(layers: &[PathBuf]) -> String {
    let script = "for d; do cd $d; find . -printf '%P %y %m %U %G %l\\n' | grep -v '/a c' | sort; \
        find . -type f | sort | xargs sha256sum; done";
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", script, "-"]).args(layers).output();
    String::from_utf8_lossy(&output.expect("sh runs").stdout).into_owned()
}

#[tokio::test]
async fn what_is_saved_is_the_same_image_wherever_it_is_loaded() {
    if !is_root() {
        return;
    }
    let scene = Scene::new(content(&foreign()), Options::default());
    let pulled = scene.pull(":1.0").await.expect("pulled");
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let names = [scene.reference(":1.0")];
    let saved = written(
        scene.puller.store(),
        &names,
        &path("1"),
        SaveFormat::Archive,
    );
    assert_eq!(saved[0].id, pulled.id);
    assert_eq!(saved[0].name, names[0].whole());
    assert_ne!(saved[0].saved_id, pulled.id, "its archives were others");
    written(
        scene.puller.store(),
        &names,
        &path("2"),
        SaveFormat::Archive,
    );
    let bytes = fs::read(path("1")).expect("a file");
    assert_eq!(bytes, fs::read(path("2")).expect("a file"), "byte for byte");

    let (_kept, other) = empty_store();
    let platform = "linux/amd64".parse().expect("a platform");
    let loaded = load(&other, &path("1"), &platform, 0).expect("loaded");
    let image = &loaded.images[0];
    assert_eq!(image.reference, names[0]);
    assert_eq!(image.id, saved[0].saved_id);
    assert_eq!(seen(&image.layers), seen(&pulled.layers));
    assert_eq!(
        image.config.config(),
        pulled.config.config(),
        "its settings"
    );

    // From there on it is what it is.
    let again = written(&other, &names, &path("3"), SaveFormat::Archive);
    assert_eq!(again[0].id, again[0].saved_id);
    assert_eq!(bytes, fs::read(path("3")).expect("a file"));
    written(&other, &names, &path("layout"), SaveFormat::Directory);
    let (_kept, third) = empty_store();
    let loaded = load(&third, &path("layout"), &platform, 0).expect("loaded");
    assert_eq!(loaded.images[0].id, again[0].id);
}

#[tokio::test]
async fn an_image_known_by_digest_gets_a_name_that_does_not_lie() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    let scene = Scene::serving(&image);
    let name = format!("@{}", image.digest.as_str());
    scene.pull(&name).await.expect("pulled");
    let file = scene.directory.path().join("file");
    let names = [scene.reference(&name)];
    let saved = written(scene.puller.store(), &names, &file, SaveFormat::Archive);
    let expected = format!(":sha256-{}", image.digest.encoded());
    assert!(saved[0].name.ends_with(&expected), "{saved:?}");
}

#[tokio::test]
async fn what_is_damaged_or_unknown_is_refused_and_the_old_file_stays() {
    if !is_root() {
        return;
    }
    let scene = Scene::serving(&image(&["a"]));
    let pulled = scene.pull(":1.0").await.expect("pulled");
    let store = scene.puller.store();
    let file = scene.directory.path().join("file");
    fs::write(&file, "what was there").expect("written");
    let unknown = [scene.reference(":2.0")];
    let error = save(store, &unknown, &file, SaveFormat::Archive).expect_err("unknown");
    assert!(matches!(error, LayoutError::NotHere { .. }), "{error}");
    fs::write(pulled.layers[0].join("etc/a"), "rotten").expect("written");
    let names = [scene.reference(":1.0")];
    let error = save(store, &names, &file, SaveFormat::Archive).expect_err("damaged");
    assert!(chain(&error).contains("etc/a"), "{}", chain(&error));
    let error = save(store, &names, scene.directory.path(), SaveFormat::Directory);
    error.expect_err("a directory that is not empty");
    assert_eq!(fs::read(&file).expect("a file"), b"what was there");
    assert!(!file.with_extension("new").exists());
}
