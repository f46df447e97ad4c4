//! Images in files: bundles of ours, and what skopeo writes and reads.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kobune_fixtures::{Fault, Image, Options, Registry, Times};
use kobune_puller::{
    BundleRequest, Bundled, LayoutError, Loaded, PullRequest, RegistryOptions, Store, load,
};

use super::scene::*;

/// Layers, one image, and a second that shares a layer.
fn scene() -> (Scene, Image, Image) {
    let (one, two) = (image(&["a", "b"]), image(&["a", "c"]));
    let mut all = content(&one);
    all.add_image(REPOSITORY, "2.0", &two);
    (Scene::new(all, Options::default()), one, two)
}

async fn bundle(scene: &Scene, names: &[&str], have: &[&str], file: &Path) -> Bundled {
    let work = tempfile::tempdir().expect("a directory");
    let image = |name: &&str| PullRequest {
        reference: scene.reference(name),
        credentials: None,
        platform: scene.platform.clone(),
    };
    let request = BundleRequest {
        images: names.iter().map(image).collect(),
        deployment: Some("{\"modules\":{}}".to_owned()),
        have: have.iter().map(|&hex| hex.to_owned()).collect(),
    };
    let bundled = scene.puller.bundle(&request, work.path(), file).await;
    bundled.expect("bundled")
}

fn empty_store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path()).expect("a store");
    (directory, store)
}

#[allow(clippy::result_large_err, reason = "there are few")]
fn take(store: &Store, path: &Path) -> Result<Loaded, LayoutError> {
    load(store, path, &"linux/amd64".parse().expect("a platform"), 0)
}

fn has_file(store: &Store, image: &Image, name: &str) -> bool {
    let has = |layer: &kobune_fixtures::Layer| {
        let root = store.root().join("layers").join(layer.diff_id.encoded());
        fs::read(root.join("etc").join(name)).is_ok_and(|body| body == name.as_bytes())
    };
    image.layers.iter().any(has)
}

#[tokio::test]
async fn a_bundle_made_twice_is_the_same_file_and_needs_no_network() {
    if !is_root() {
        return;
    }
    let (scene, one, two) = scene();
    let directory = tempfile::tempdir().expect("a directory");
    let (first, second) = (directory.path().join("1"), directory.path().join("2"));
    let made = bundle(&scene, &[":1.0", ":2.0"], &[], &first).await;
    let again = bundle(&scene, &[":2.0", ":1.0"], &[], &second).await;
    assert_eq!(made, again);
    let bytes = fs::read(&first).expect("a file");
    assert_eq!(bytes, fs::read(&second).expect("a file"));
    assert_eq!(made.size, bytes.len() as u64);
    let names = [":1.0", ":2.0"].map(|name| scene.reference(name));
    drop(scene);
    let (_kept, store) = empty_store();
    let loaded = take(&store, &first).expect("loaded");
    assert_eq!(loaded.deployment.as_deref(), Some("{\"modules\":{}}"));
    let found: Vec<_> = loaded
        .images
        .iter()
        .map(|it| it.reference.clone())
        .collect();
    assert_eq!(found, names);
    assert_eq!(
        loaded.images[0].manifest_digest.as_ref(),
        one.digest.as_str()
    );
    assert!(has_file(&store, &one, "b") && has_file(&store, &two, "c"));
    assert!(store.verify().expect("verified").damage.is_empty());
    take(&store, &first).expect("again costs nothing and is fine");
}

#[tokio::test]
async fn what_the_device_has_is_left_out_and_needed() {
    if !is_root() {
        return;
    }
    let (scene, one, two) = scene();
    let directory = tempfile::tempdir().expect("a directory");
    let (base, update) = (
        directory.path().join("base"),
        directory.path().join("update"),
    );
    let whole = bundle(&scene, &[":1.0"], &[], &base).await;
    let have = [
        one.layers[0].diff_id.encoded(),
        one.layers[1].diff_id.encoded(),
    ];
    let part = bundle(&scene, &[":2.0"], &have, &update).await;
    assert_eq!(part.left_out, 1, "they share one");
    assert!(part.size < whole.size * 2 / 3, "{part:?} of {whole:?}");
    let (_kept, store) = empty_store();
    let error = take(&store, &update).expect_err("the base is missing");
    assert!(matches!(error, LayoutError::Missing { .. }), "{error}");
    assert!(
        chain(&error).contains(one.layers[0].digest.encoded()),
        "{error}"
    );
    assert!(store.images().expect("images").images.is_empty());
    take(&store, &base).expect("loaded");
    take(&store, &update).expect("loaded");
    assert!(has_file(&store, &two, "c"));
}

#[tokio::test]
async fn a_bundle_that_was_tampered_with_is_refused_by_name() {
    if !is_root() {
        return;
    }
    let (scene, one, _) = scene();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("bundle");
    bundle(&scene, &[":1.0"], &[], &file).await;
    let sound = fs::read(&file).expect("a file");
    let mut archive = tar::Archive::new(sound.as_slice());
    let places: Vec<(String, u64, u64)> = archive
        .entries()
        .expect("entries")
        .map(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.path().expect("a name").display().to_string();
            (name, entry.raw_file_position(), entry.size())
        })
        .collect();
    assert_eq!(places.len(), 3 + 2 + one.layers.len() + 1);
    for (name, offset, size) in places.iter().filter(|(name, ..)| name != "oci-layout") {
        let mut bad = sound.clone();
        bad[usize::try_from(offset + size / 2).expect("small")] ^= 1;
        fs::write(&file, &bad).expect("written");
        let (_kept, store) = empty_store();
        let error = take(&store, &file).expect_err("tampered with");
        let text = chain(&error);
        let named = name.replace("index.sha256", "index.json");
        assert!(text.contains(&named), "{text} does not name {named}");
        assert!(store.images().expect("images").images.is_empty());
    }
    for cut in [100, sound.len() / 2, sound.len() - 2000] {
        fs::write(&file, &sound[..cut]).expect("written");
        let (_kept, store) = empty_store();
        take(&store, &file).expect_err("cut off");
    }
}

/// Runs skopeo, which is there where tests are set up.
fn skopeo(arguments: &[&str]) -> Option<String> {
    let output = match Command::new("skopeo").args(arguments).output() {
        Ok(output) => output,
        Err(error) => {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "skopeo: {error}"
            );
            println!("skipped: no skopeo");
            return None;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn skopeo_reads_a_bundle_and_what_it_writes_is_read() {
    if !is_root() {
        return;
    }
    let (scene, one, _) = scene();
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    bundle(&scene, &[":1.0"], &[], Path::new(&path("bundle"))).await;
    let from = format!(
        "oci-archive:{}:{}",
        path("bundle"),
        scene.reference(":1.0").whole()
    );
    let inspected = skopeo(&["inspect", "--raw", &from]);
    let Some(inspected) = inspected else { return };
    assert_eq!(inspected.as_bytes(), one.manifest, "the very manifest");
    for (format, name) in [
        ("oci", "layout"),
        ("oci-archive", "o.tar"),
        ("docker-archive", "d.tar"),
    ] {
        let to = format!("{format}:{}:example.com/led:{name}", path(name));
        skopeo(&["--insecure-policy", "copy", &from, &to]);
        let (_kept, store) = empty_store();
        let loaded = take(&store, &PathBuf::from(path(name))).expect(format);
        assert_eq!(
            loaded.images[0].reference.whole(),
            format!("example.com/led:{name}")
        );
        assert_eq!(loaded.images[0].id.as_ref(), config_digest(&one).as_str());
        assert!(
            has_file(&store, &one, "a") && has_file(&store, &one, "b"),
            "{format}"
        );
        assert_eq!(loaded.deployment, None);
    }
    let layers: HashSet<_> = one.layers.iter().map(|layer| &layer.diff_id).collect();
    assert_eq!(layers.len(), 2);
}

#[tokio::test]
async fn a_bundle_comes_from_mirrors_first_and_is_the_same_whoever_served_it() {
    let image = image(&["a", "b"]);
    let mirror = Registry::start(content(&image), Options::default()).expect("a mirror");
    let place = mirror.addr().to_string();
    let scene = Scene::configured(content(&image), Options::default(), |config, registry| {
        let mirrors = vec!["127.0.0.1:1".to_owned(), place];
        let options = RegistryOptions {
            mirrors,
            ..RegistryOptions::default()
        };
        config.registries.insert(registry.to_owned(), options);
    });
    let directory = tempfile::tempdir().expect("a directory");
    let (first, second) = (directory.path().join("1"), directory.path().join("2"));
    let mirrored = bundle(&scene, &[":1.0"], &[], &first).await;
    assert!(scene.registry.requests().is_empty(), "the mirror has it");

    // The mirror breaks in the middle of the image: what came from there does not count.
    let have = [image.layers[0].diff_id.encoded()];
    let whole = bundle(&scene, &[":1.0"], &have, &first).await;
    let flipped = Fault::FlipByte { at: 99 };
    mirror.fault(blob(&image.layers[1]), flipped, Times::Always);
    let fallen_back = bundle(&scene, &[":1.0"], &have, &second).await;
    assert!(!scene.registry.requests().is_empty());
    assert_eq!(fallen_back, whole);
    assert!(whole.left_out == 1 && whole.size < mirrored.size);
}
