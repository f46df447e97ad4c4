//! A registry with two versions of an image, the old one of which is in the store.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use kobune_fixtures::{Content, Fault, Image, ImageBuilder, Layer, LayerBuilder, Target, Times};
use kobune_puller::{LayerProgress, ProgressSink, PullError};

use crate::scene::*;

/// Remembers why whole layers were fetched.
#[derive(Default)]
pub(crate) struct Reasons(pub(crate) Mutex<Vec<String>>);

impl ProgressSink for Reasons {
    fn update(&self, _: &LayerProgress) {}

    fn whole(&self, _: &oci_spec::image::Digest, why: &dyn std::error::Error) {
        self.0.lock().expect("no panic").push(chain(why));
    }
}

/// Bytes that do not compress, different for each seed.
pub(crate) fn noise(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let byte = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(byte).take(length).collect()
}

/// Forty files, of which `changed` have other content than in another version; and what archives
/// have besides.
pub(crate) fn version(number: u32, changed: &[u32]) -> LayerBuilder {
    let mut layer = LayerBuilder::new()
        .dir("./", 0o755)
        .dir("opt", 0o750)
        .file("opt/empty", 0o600, "")
        .symlink("opt/link", "file-1")
        .file(format!("opt/version-{number}"), 0o644, number.to_string())
        .file("a\\b\nc", 0o644, noise(1000, 5000));
    for file in 0..40 {
        let seed = if changed.contains(&file) {
            100 * number + file
        } else {
            file
        };
        let name = format!("opt/file-{file}");
        // Times differ as they do where a package manager installed the version.
        layer = layer
            .file(name, 0o640, noise(seed, 20_000))
            .owner(7, 8)
            .mtime(u64::from(number) + 5);
    }
    layer.hardlink("opt/hard", "opt/file-2")
}

pub(crate) fn image_of(layer: Layer) -> Image {
    ImageBuilder::new(amd64()).layer(layer).build()
}

/// A registry with a plain old version, which is in the store, and a new one.
pub(crate) struct Update {
    pub(crate) scene: Scene,
    pub(crate) new: Image,
}

impl Update {
    pub(crate) async fn new(new: Layer) -> Self {
        Self::below(&std::env::temp_dir(), new).await
    }

    /// With the store in a directory below `place`.
    pub(crate) async fn below(place: &Path, new: Layer) -> Self {
        Self::over(version(1, &[]).build(), place, new).await
    }

    pub(crate) async fn over(old: Layer, place: &Path, new: Layer) -> Self {
        let old = image_of(old);
        let new = image_of(new);
        let mut content = Content::new();
        content.add_image(REPOSITORY, "1.0", &old);
        content.add_image(REPOSITORY, "2.0", &new);
        let scene = Scene::below(place, content);
        scene.pull(":1.0").await.expect("the old version");
        scene.registry.clear_requests();
        Self { scene, new }
    }

    pub(crate) fn layer(&self) -> &Layer {
        &self.new.layers[0]
    }

    /// Where the old version is, as long as nothing else is there.
    pub(crate) fn old_layer(&self) -> PathBuf {
        let layers = self.scene.directory.path().join("layers");
        let layer = fs::read_dir(layers).expect("a directory").next();
        layer.expect("the old layer").expect("readable").path()
    }

    /// Where `part` of the blob begins, from the annotations.
    pub(crate) fn place(&self, part: &str) -> usize {
        let name = format!("io.github.containers.zstd-chunked.{part}-position");
        let place = self.layer().annotations[&name].split(':').next();
        place.and_then(|at| at.parse().ok()).expect("a number")
    }

    pub(crate) fn fault(&self, fault: Fault, times: Times) {
        let target = Target::Blob(self.layer().digest.clone());
        self.scene.registry.fault(target, fault, times);
    }

    /// Pulls the new version; gives why its layer was fetched as a whole.
    pub(crate) async fn pull(&self) -> Result<Vec<String>, PullError> {
        let reasons = Reasons::default();
        self.scene.pull_watched(":2.0", &reasons).await?;
        let whole = self.layer().tar.as_slice();
        let path = self.scene.layer_path(self.layer());
        assert!(tree(&path) == expected(whole).await, "another tree");
        assert_eq!(self.scene.count("staging"), 0);
        Ok(reasons.0.into_inner().expect("no panic"))
    }
}

/// Mode, owner, group, time, number of links and content by name.
pub(crate) type Tree = BTreeMap<PathBuf, (u32, u32, u32, i64, u64, Vec<u8>)>;

/// Everything in a layer.
pub(crate) fn tree(root: &Path) -> Tree {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let metadata = path.symlink_metadata().expect("metadata");
        let content = if metadata.is_file() {
            fs::read(&path).expect("content")
        } else if metadata.is_symlink() {
            fs::read_link(&path)
                .expect("a link")
                .as_os_str()
                .as_bytes()
                .to_vec()
        } else {
            let entries = fs::read_dir(&path).expect("a directory");
            todo.extend(entries.map(|entry| entry.expect("an entry").path()));
            Vec::new()
        };
        let links = if metadata.is_dir() {
            0
        } else {
            metadata.nlink()
        };
        let (mode, uid, gid) = (metadata.mode(), metadata.uid(), metadata.gid());
        let name = path.strip_prefix(root).expect("below").to_owned();
        found.insert(name, (mode, uid, gid, metadata.mtime(), links, content));
    }
    found
}

/// What the archive is when it is pulled as a whole.
pub(crate) async fn expected(tar: &[u8]) -> Tree {
    let layer = LayerBuilder::new().raw(tar).without_end().build();
    let scene = Scene::serving(&image_of(layer.clone()));
    scene.pull(":1.0").await.expect("pulled");
    tree(&scene.layer_path(&layer))
}
