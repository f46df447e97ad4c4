//! A disk that is full from some step on: at each of the steps that pulls, imports, repairs and
//! collections take, one after the other. Nothing is lost, the error says why, and the same works when
//! there is room again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kobune_fixtures::{Options, Registry};

use super::power_cut::{Tree, copy_tree, images, layers, puller, request};
use super::{Roots, Store};
use crate::layout::{self, SaveFormat};
use crate::pull::{PullRequest, Repair};

type Failure = Box<dyn std::error::Error>;

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Pull,
    Load,
    Repair,
    Collect,
}

/// A store with the first of two images, and where the second one is.
struct Scene {
    directory: tempfile::TempDir,
    registry: Registry,
    archive: PathBuf,
    /// The layers of a store with both.
    both: BTreeMap<String, Tree>,
    /// And of one with the first only.
    one: BTreeMap<String, Tree>,
}

impl Scene {
    async fn new() -> Self {
        let registry = Registry::start(images(), Options::default()).expect("a registry");
        let directory = tempfile::tempdir().expect("a directory");
        let [base, whole] = ["base", "whole"].map(|name| directory.path().join(name));
        let (first, second) = (request(&registry, "1"), request(&registry, "2"));
        let store = Store::open(&base).expect("a store");
        puller(store).pull(&first, &()).await.expect("pulled");
        copy_tree(&base, &whole).expect("copied");
        let store = Store::open(&whole).expect("a store");
        puller(store.clone())
            .pull(&second, &())
            .await
            .expect("pulled");
        let archive = directory.path().join("archive");
        layout::save(&store, &[second.reference], &archive, SaveFormat::Archive).expect("saved");
        let (both, one) = (layers(&whole), layers(&base));
        Self {
            directory,
            registry,
            archive,
            both,
            one,
        }
    }

    /// A store to begin with.
    fn store(&self, work: Work) -> PathBuf {
        let path = self.directory.path().join("store");
        let _ = fs::remove_dir_all(&path);
        let from = if work == Work::Collect {
            "whole"
        } else {
            "base"
        };
        copy_tree(&self.directory.path().join(from), &path).expect("copied");
        if work == Work::Repair {
            let has = |layer: &PathBuf| layer.join("etc/base").exists();
            let all = fs::read_dir(path.join("layers")).expect("listed");
            let damaged = all.map(|layer| layer.expect("a layer").path()).find(has);
            fs::write(damaged.expect("it is there").join("etc/base"), "rotten").expect("written");
        }
        path
    }

    async fn attempt(&self, work: Work, store: &Store) -> Result<(), Failure> {
        let second = request(&self.registry, "2");
        match work {
            Work::Pull => Ok(puller(store.clone()).pull(&second, &()).await.map(drop)?),
            Work::Load => {
                let loaded = layout::load(store, &self.archive, &second.platform, 0);
                Ok(loaded.map(drop)?)
            }
            Work::Repair => {
                for repair in Repair::plan(&store.verify()?.damage) {
                    let puller = puller(store.clone());
                    puller.repair(&repair, None, &()).await?;
                }
                Ok(())
            }
            Work::Collect => {
                let mut roots = Roots::default();
                roots.references.insert(self.first().reference.whole());
                Ok(store.collect(&roots, Duration::ZERO).map(drop)?)
            }
        }
    }

    fn first(&self) -> PullRequest {
        request(&self.registry, "1")
    }

    /// The first image is there, and is what it was, but for what was damaged before.
    fn check_kept(&self, work: Work, store: &Store, case: &str) {
        let first = store.lookup(&self.first().reference).expect(case);
        assert!(first.is_some(), "{case}");
        let damage = store.verify().expect(case).damage;
        assert!(
            damage.is_empty() || work == Work::Repair,
            "{case}: {damage:?}"
        );
    }
}

fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("No space left") || error.to_string().contains("ENOSPC") {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Until a step is reached that the work does not take.
async fn fill_at_every_step(scene: &Scene, work: Work) -> usize {
    for room in 0.. {
        let case = format!("{work:?} with room for {room} steps");
        let path = scene.store(work);
        let store = Store::open(&path).expect(&case);
        store.disk().journal.set_room(Some(room));
        let done = scene.attempt(work, &store).await;
        store.disk().journal.set_room(None);
        let Err(error) = done else {
            return room;
        };
        assert!(is_full(&*error), "{case}: {error:?}");
        // A disk that has no room even for giving a damaged layer its name back gets it back when the
        // store is opened.
        if work != Work::Repair {
            scene.check_kept(work, &store, &case);
        }
        drop(store);
        let store = Store::open(&path).expect(&case);
        scene.check_kept(work, &store, &case);
        let again = scene.attempt(work, &store).await;
        again.unwrap_or_else(|error| panic!("{case}, then all: {error:?}"));
        assert!(store.verify().expect(&case).damage.is_empty(), "{case}");
        store.sweep(&[]).expect(&case);
        check_layers(scene, work, &path, &case);
    }
    unreachable!("the work ends")
}

fn check_layers(scene: &Scene, work: Work, path: &Path, case: &str) {
    match work {
        // Archived layers are others, with the same content: one for each of the image's.
        Work::Load => assert_eq!(layers(path).len(), scene.both.len() + 1, "{case}"),
        Work::Pull => assert_eq!(layers(path), scene.both, "{case}"),
        Work::Repair | Work::Collect => {
            assert_eq!(layers(path), scene.one, "{case}");
        }
    }
    for name in ["staging", "replaced"] {
        let left = fs::read_dir(path.join(name)).expect(name).count();
        assert_eq!(left, 0, "{case}: {name}");
    }
}

#[tokio::test]
async fn a_disk_that_is_full_at_any_step_loses_nothing_and_goes_on_when_it_is_not() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "layers need root");
        return;
    }
    let scene = Scene::new().await;
    for (work, least) in [
        (Work::Pull, 10),
        (Work::Load, 10),
        (Work::Repair, 8),
        (Work::Collect, 3),
    ] {
        let steps = fill_at_every_step(&scene, work).await;
        assert!(steps >= least, "{work:?} took {steps} steps");
    }
}
