//! A store over one that came with the root file system, which is mounted read-only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kobune_fixtures::{Content, Image, Options};
use kobune_puller::{Puller, PullerConfig, Repair, Roots, SaveFormat, Store, StoreError, save};

use super::scene::*;

/// A directory that nobody can write to; unmounted when dropped.
struct ReadOnly(tempfile::TempDir);

impl ReadOnly {
    /// The store of a scene that pulled `:1.0`.
    async fn new(scene: Scene) -> Self {
        scene.pull(":1.0").await.expect("pulled");
        let Scene {
            directory, puller, ..
        } = scene;
        // Whoever makes a root file system is gone when it is used.
        drop(puller);
        let path = directory.path().to_owned();
        let mount = |arguments: &[&str]| {
            let status = Command::new("mount").args(arguments).arg(&path).status();
            assert!(status.expect("mount runs").success());
        };
        mount(&["--bind", path.to_str().expect("UTF-8")]);
        mount(&["-o", "remount,bind,ro"]);
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn both(one: &Image, two: &Image) -> Content {
    let mut content = content(one);
    content.add_image(REPOSITORY, "2.0", two);
    content
}

/// Where an image's layers really are.
fn real(layers: &[PathBuf]) -> Vec<PathBuf> {
    let real = layers.iter().map(|layer| layer.canonicalize());
    real.collect::<Result<_, _>>().expect("they are there")
}

/// A puller with a store at `root` over `lower`, for the registry of a scene.
fn over(root: &Path, lower: Option<&Path>, scene: &Scene) -> Puller {
    let mut config = PullerConfig::new(Store::open_over(root, lower).expect("a store"));
    config.plain_http = vec![scene.registry.addr().to_string()];
    config.retry_delay = Duration::from_millis(5);
    Puller::new(config).expect("a puller")
}

async fn pull(puller: &Puller, scene: &Scene, name: &str) -> kobune_puller::PulledImage {
    let request = kobune_puller::PullRequest {
        reference: scene.reference(name),
        credentials: None,
        platform: scene.platform.clone(),
    };
    puller.pull(&request, &()).await.expect("pulled")
}

#[tokio::test]
async fn what_is_preloaded_is_used_without_a_copy_and_never_goes() {
    if !is_root() {
        return;
    }
    let (one, two) = (image(&["a", "b"]), image(&["a", "c"]));
    let factory = Scene::new(content(&one), Options::default());
    let preloaded = factory.reference(":1.0");
    let lower = ReadOnly::new(factory).await;
    let scene = Scene::new(both(&one, &two), Options::default());
    let own = tempfile::tempdir().expect("a directory");
    let puller = over(own.path(), Some(lower.path()), &scene);
    let store = puller.store();
    let found = store.lookup(&preloaded).expect("read").expect("there");
    let layers = real(&found.layers);
    assert!(layers.iter().all(|layer| layer.starts_with(lower.path())));

    let pulled = pull(&puller, &scene, ":2.0").await;
    assert_eq!(
        real(&pulled.layers)[0],
        layers[0],
        "the shared one is not fetched"
    );
    assert!(real(&pulled.layers)[1].starts_with(own.path()));
    let verified = store.verify().expect("verified");
    assert_eq!((verified.layers, verified.damage.len()), (3, 0));

    let refused = store.remove(&preloaded).expect_err("it is read-only");
    assert!(matches!(refused, StoreError::Preloaded { .. }), "{refused}");
    let gone = store
        .collect(&Roots::default(), Duration::ZERO)
        .expect("collected");
    assert_eq!(gone.images, [scene.reference(":2.0")]);
    let found = store
        .lookup(&preloaded)
        .expect("read")
        .expect("still there");
    assert_eq!(real(&found.layers), layers);
    let file = own.path().join("saved");
    save(
        store,
        std::slice::from_ref(&preloaded),
        &file,
        SaveFormat::Archive,
    )
    .expect("saved");

    // Another root file system comes without it, and the next one with it.
    drop(puller);
    let without = Store::open_over(own.path(), Some(Path::new("/nowhere"))).expect("a store");
    assert!(without.lookup(&preloaded).expect("read").is_none());
    assert!(without.verify().expect("verified").damage.is_empty());
    drop(without);
    let again = Store::open_over(own.path(), Some(lower.path())).expect("a store");
    assert!(again.lookup(&preloaded).expect("read").is_some());
}

#[tokio::test]
async fn a_preloaded_layer_that_is_damaged_is_replaced_by_one_of_our_own() {
    if !is_root() {
        return;
    }
    let one = image(&["a", "b"]);
    let scene = Scene::serving(&one);
    let rotten = scene.layer_path(&one.layers[1]).join("etc/b");
    let preloaded = scene.reference(":1.0");
    scene.pull(":1.0").await.expect("pulled");
    fs::write(&rotten, "rotten").expect("written");
    let lower = tempfile::tempdir().expect("a directory");
    let mut copy = Command::new("cp");
    copy.arg("-aT")
        .arg(scene.directory.path())
        .arg(lower.path());
    assert!(copy.status().expect("cp runs").success());
    let own = tempfile::tempdir().expect("a directory");
    let puller = over(own.path(), Some(lower.path()), &scene);
    let store = puller.store();
    let found = store.verify().expect("verified");
    assert_eq!(found.damage.len(), 1, "{:?}", found.damage);
    for repair in Repair::plan(&found.damage) {
        assert_eq!(repair.layers.len(), 1);
        puller.repair(&repair, None, &()).await.expect("repaired");
    }
    assert!(store.verify().expect("verified").damage.is_empty());
    let image = store.lookup(&preloaded).expect("read").expect("there");
    let places = real(&image.layers);
    assert!(places[0].starts_with(lower.path()) && places[1].starts_with(own.path()));
    assert_eq!(fs::read(places[1].join("etc/b")).expect("read"), b"b");
    let lowers = lower
        .path()
        .join("layers")
        .join(one.layers[1].diff_id.encoded());
    assert_eq!(
        fs::read(lowers.join("etc/b")).expect("read"),
        b"rotten",
        "untouched"
    );

    store.sweep(&[]).expect("swept");
    drop(puller);
    let again = Store::open_over(own.path(), Some(lower.path())).expect("a store");
    assert!(
        again.verify().expect("verified").damage.is_empty(),
        "it stays repaired"
    );
    let names = again.images().expect("read").images.into_iter();
    let names: Vec<_> = names.map(|image| image.reference).collect();
    assert_eq!(names, [preloaded]);
}
