//! A registry, a store and a puller between them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kobune_fixtures::{
    Compression, Content, Digest, Image, ImageBuilder, Layer, LayerBuilder, Options,
    Platform as FixturePlatform, Registry, Target,
};
use kobune_puller::{
    Credentials, Platform, ProgressSink, PullError, PullRequest, PulledImage, Puller, PullerConfig,
    Store, VerifyError, parse_reference,
};

use oci_spec::distribution::Reference;

pub(crate) const REPOSITORY: &str = "factory/led";

/// A registry, a store and a puller between them.
pub(crate) struct Scene {
    pub(crate) registry: Registry,
    pub(crate) puller: Puller,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) platform: Platform,
}

impl Scene {
    pub(crate) fn new(content: Content, options: Options) -> Self {
        Self::configured(content, options, |_, _| {})
    }

    /// With the store in a directory below `place`.
    pub(crate) fn below(place: &Path, content: Content) -> Self {
        let directory = tempfile::tempdir_in(place).expect("a directory");
        Self::within(directory, content, Options::default(), |_, _| {})
    }

    /// A puller of a configuration that `change` makes, knowing the registry's address.
    pub(crate) fn configured(
        content: Content,
        options: Options,
        change: impl FnOnce(&mut PullerConfig, &str),
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self::within(directory, content, options, change)
    }

    fn within(
        directory: tempfile::TempDir,
        content: Content,
        options: Options,
        change: impl FnOnce(&mut PullerConfig, &str),
    ) -> Self {
        let store = Store::open(directory.path()).expect("a store");
        let mut config = PullerConfig::new(store);
        config.retry_delay = Duration::from_millis(5);
        let registry = Registry::start(content, options).expect("a registry");
        change(&mut config, &registry.addr().to_string());
        Self {
            registry,
            puller: Puller::new(config).expect("a puller"),
            directory,
            credentials: None,
            platform: "linux/amd64".parse().expect("a platform"),
        }
    }

    pub(crate) fn serving(image: &Image) -> Self {
        Self::new(content(image), Options::default())
    }

    pub(crate) async fn pull(&self, name: &str) -> Result<PulledImage, PullError> {
        self.pull_watched(name, &()).await
    }

    pub(crate) async fn pull_watched(
        &self,
        name: &str,
        progress: &dyn ProgressSink,
    ) -> Result<PulledImage, PullError> {
        let request = PullRequest {
            reference: self.reference(name),
            credentials: self.credentials.clone(),
            platform: self.platform.clone(),
        };
        self.puller.pull(&request, progress).await
    }

    pub(crate) fn reference(&self, name: &str) -> Reference {
        let reference = format!("{}/{REPOSITORY}{name}", self.registry.addr());
        parse_reference(&reference).expect("a reference")
    }

    pub(crate) fn layer_path(&self, layer: &Layer) -> PathBuf {
        let layers = self.directory.path().join("layers");
        layers.join(layer.diff_id.encoded())
    }

    /// Bytes of blobs that the registry sent.
    pub(crate) fn sent(&self) -> usize {
        let log = self.registry.requests();
        let blobs = log.iter().filter(|one| one.path.contains("/blobs/"));
        blobs.map(|request| request.sent).sum()
    }

    pub(crate) fn layers(&self) -> usize {
        self.count("layers")
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        let path = self.directory.path().join(name);
        fs::read_dir(path).expect("a directory").count()
    }

    /// Nothing half done is left, and what went wrong is said of the right thing.
    pub(crate) fn assert_clean(&self, error: &PullError, word: &str) {
        assert_eq!(self.count("staging"), 0, "leftovers after: {error}");
        assert!(
            chain(error).contains(word),
            "{} does not name {word}",
            chain(error)
        );
        assert!(
            self.puller
                .store()
                .images()
                .expect("images")
                .images
                .is_empty()
        );
    }

    /// Requests for blobs, with their `Range`.
    pub(crate) fn blob_requests(&self) -> Vec<Option<String>> {
        let log = self.registry.requests();
        let blobs = log
            .into_iter()
            .filter(|request| request.path.contains("/blobs/"));
        blobs.map(|request| request.range).collect()
    }
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

pub(crate) fn amd64() -> FixturePlatform {
    FixturePlatform::linux("amd64", "")
}

/// A layer that does not compress, so that its blob has some length.
pub(crate) fn layer(name: &str, compression: Compression) -> Layer {
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(300_000)
    .collect();
    LayerBuilder::new()
        .dir("etc", 0o755)
        .file(format!("etc/{name}"), 0o644, name)
        .file(format!("{name}.bin"), 0o644, noise)
        .compression(compression)
        .build()
}

pub(crate) fn image(names: &[&str]) -> Image {
    let layers = names.iter().map(|name| layer(name, Compression::Gzip));
    layers
        .fold(ImageBuilder::new(amd64()), ImageBuilder::layer)
        .build()
}

pub(crate) fn config_digest(image: &Image) -> Digest {
    Digest::of(&image.config)
}

pub(crate) fn content(image: &Image) -> Content {
    let mut content = Content::new();
    content.add_image(REPOSITORY, "1.0", image);
    content
}

pub(crate) fn blob(layer: &Layer) -> Target {
    Target::Blob(layer.digest.clone())
}

/// An agent runs pulls as tasks of their own.
pub(crate) fn assert_send<T: Send>(_: &T) {}

/// Tells whether a failure is the one a fault should cause.
pub(crate) type Expected = fn(&VerifyError) -> bool;

/// Layers have owners: unpacking them takes root.
pub(crate) fn is_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "these tests need root"
    );
    println!("skipped: needs root");
    false
}
