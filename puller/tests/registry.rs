//! Pulls over HTTP from the project's own small registry: kinds of images, ways to authenticate, and
//! everything that can go wrong on the way.
#![allow(clippy::print_stdout, reason = "says why a test is skipped")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use kobune_fixtures::{
    Auth, Compression, Content, Digest, Fault, Format, Image, ImageBuilder, Index, Layer,
    LayerBuilder, Listener, Options, Platform as FixturePlatform, Registry, Target, Times,
};
use kobune_puller::{
    Credentials, LayerProgress, LayerState, Platform, PullError, PullRequest, PulledImage, Puller,
    PullerConfig, Secret, Store, VerifyError, parse_reference,
};

const REPOSITORY: &str = "factory/led";

/// A registry, a store and a puller between them.
struct Scene {
    registry: Registry,
    puller: Puller,
    directory: tempfile::TempDir,
    credentials: Option<Credentials>,
    platform: Platform,
}

impl Scene {
    fn new(content: Content, options: Options) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path()).expect("a store");
        let mut config = PullerConfig::new(store);
        config.retry_delay = Duration::from_millis(5);
        Self {
            registry: Registry::start(content, options).expect("a registry"),
            puller: Puller::new(config).expect("a puller"),
            directory,
            credentials: None,
            platform: "linux/amd64".parse().expect("a platform"),
        }
    }

    fn serving(image: &Image) -> Self {
        Self::new(content(image), Options::default())
    }

    async fn pull(&self, name: &str) -> Result<PulledImage, PullError> {
        let reference = format!("{}/{REPOSITORY}{name}", self.registry.addr());
        let request = PullRequest {
            reference: parse_reference(&reference).expect("a reference"),
            credentials: self.credentials.clone(),
            platform: self.platform.clone(),
        };
        self.puller.pull(&request, &()).await
    }

    fn layers(&self) -> usize {
        self.count("layers")
    }

    fn count(&self, name: &str) -> usize {
        let path = self.directory.path().join(name);
        fs::read_dir(path).expect("a directory").count()
    }

    /// Nothing half done is left, and what went wrong is said of the right thing.
    fn assert_clean(&self, error: &PullError, word: &str) {
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
    fn blob_requests(&self) -> Vec<Option<String>> {
        let log = self.registry.requests();
        let blobs = log
            .into_iter()
            .filter(|request| request.path.contains("/blobs/"));
        blobs.map(|request| request.range).collect()
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

fn amd64() -> FixturePlatform {
    FixturePlatform::linux("amd64", "")
}

/// A layer that does not compress, so that its blob has some length.
fn layer(name: &str, compression: Compression) -> Layer {
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

fn image(names: &[&str]) -> Image {
    let layers = names.iter().map(|name| layer(name, Compression::Gzip));
    layers
        .fold(ImageBuilder::new(amd64()), ImageBuilder::layer)
        .build()
}

fn config_digest(image: &Image) -> Digest {
    Digest::of(&image.config)
}

fn content(image: &Image) -> Content {
    let mut content = Content::new();
    content.add_image(REPOSITORY, "1.0", image);
    content
}

fn blob(layer: &Layer) -> Target {
    Target::Blob(layer.digest.clone())
}

/// Tells whether a failure is the one a fault should cause.
type Expected = fn(&VerifyError) -> bool;

/// Layers have owners: unpacking them takes root.
fn is_root() -> bool {
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

#[tokio::test]
async fn both_formats_and_both_compressions_are_pulled() {
    if !is_root() {
        return;
    }
    for (format, compression) in [
        (Format::Oci, Compression::Gzip),
        (Format::Oci, Compression::None),
        (Format::Docker, Compression::Gzip),
        (Format::Docker, Compression::None),
    ] {
        let layers = [layer("low", compression), layer("high", compression)];
        let image = layers
            .iter()
            .cloned()
            .fold(
                ImageBuilder::new(amd64()).format(format),
                ImageBuilder::layer,
            )
            .env("LED", "on")
            .build();
        let scene = Scene::serving(&image);
        let pulled = scene.pull(":1.0").await.expect("pulled");
        assert_eq!(pulled.manifest_digest.as_ref(), image.digest.as_str());
        assert_eq!(pulled.id.as_ref(), config_digest(&image).as_str());
        let expected: Vec<PathBuf> = layers
            .iter()
            .map(|layer| {
                scene
                    .puller
                    .store()
                    .root()
                    .join("layers")
                    .join(layer.diff_id.encoded())
            })
            .collect();
        assert_eq!(pulled.layers, expected, "lowest first");
        assert_eq!(
            fs::read(pulled.layers[1].join("etc/high")).expect("a file"),
            b"high"
        );
        let sum: usize = layers.iter().map(|layer| layer.blob.len()).sum();
        assert_eq!(pulled.size, sum as u64);
        let config = pulled.config.config().as_ref().expect("a config");
        assert!(
            config
                .env()
                .as_ref()
                .is_some_and(|env| env.contains(&"LED=on".to_owned()))
        );
        assert_eq!(
            fs::read(&pulled.config_path).expect("the config"),
            image.config
        );
        assert_eq!(scene.count("staging"), 0);
    }
}

#[tokio::test]
async fn an_image_is_found_again_without_network() {
    if !is_root() {
        return;
    }
    let image = image(&["a", "b"]);
    let scene = Scene::serving(&image);
    let pulled = scene.pull(":1.0").await.expect("pulled");
    let Scene {
        registry,
        puller,
        directory,
        ..
    } = scene;
    drop((registry, puller));
    let store = Store::open(directory.path()).expect("opened again");
    assert_eq!(
        store.lookup(&pulled.reference).expect("read"),
        Some(pulled.clone())
    );
    fs::remove_dir_all(&pulled.layers[0]).expect("a layer lost");
    assert_eq!(
        store.lookup(&pulled.reference).expect("read"),
        None,
        "absent, not broken"
    );
}

#[tokio::test]
async fn layers_are_shared_and_fetched_once() {
    if !is_root() {
        return;
    }
    let mut content = content(&image(&["base", "one"]));
    content.add_image(REPOSITORY, "2.0", &image(&["base", "two"]));
    content.add_image(REPOSITORY, "3.0", &image(&["base", "two", "base"]));
    let scene = Scene::new(content, Options::default());
    let (one, two) = tokio::join!(scene.pull(":1.0"), scene.pull(":2.0"));
    let (one, two) = (one.expect("pulled"), two.expect("pulled"));
    assert_eq!(one.layers[0], two.layers[0]);
    assert_eq!(scene.layers(), 3);
    let base = layer("base", Compression::Gzip).digest;
    let path = format!("/v2/{REPOSITORY}/blobs/{base}");
    let asked = scene
        .registry
        .requests()
        .into_iter()
        .filter(|request| request.path == path);
    assert_eq!(asked.count(), 1, "two pulls at once share the transfer");
    let three = scene.pull(":3.0").await.expect("pulled");
    assert_eq!(
        three.layers,
        [two.layers[1].clone(), two.layers[0].clone()],
        "once, at its highest place"
    );
}

#[tokio::test]
async fn directories_used_without_being_listed_look_as_in_the_layer_below() {
    if !is_root() {
        return;
    }
    let below = LayerBuilder::new()
        .dir("tmp", 0o1777)
        .dir("home", 0o755)
        .dir("home/app", 0o700)
        .owner(5, 6)
        .dir("plain", 0o755)
        .dir("opaque", 0o711)
        .build();
    let above = LayerBuilder::new()
        .file("tmp/new", 0o644, "")
        .file("home/app/new", 0o644, "")
        .file("plain/new", 0o644, "")
        .opaque("opaque")
        .file("fresh/new", 0o644, "")
        .build();
    let image = ImageBuilder::new(amd64())
        .layer(below.clone())
        .layer(above)
        .build();
    let alone = ImageBuilder::new(amd64()).layer(below).build();
    let mut content = content(&image);
    content.add_image(REPOSITORY, "2.0", &alone);
    let scene = Scene::new(content, Options::default());
    let pulled = scene.pull(":1.0").await.expect("pulled");
    assert_eq!(pulled.layers.len(), 3, "one more, for the directories");
    let top = &pulled.layers[2];
    let at = |name: &str| {
        let metadata = fs::symlink_metadata(top.join(name)).expect(name);
        (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
    };
    assert_eq!(at("tmp"), (0o1777, 0, 0));
    assert_eq!(at("home/app"), (0o700, 5, 6));
    assert_eq!(at("home"), (0o755, 0, 0));
    for right in ["plain", "opaque", "fresh", "tmp/new"] {
        assert!(!top.join(right).exists(), "{right} needs no correction");
    }
    let again = scene.pull(":1.0").await.expect("pulled again");
    assert_eq!(again.layers, pulled.layers);
    assert_eq!(scene.pull(":2.0").await.expect("pulled").layers.len(), 1);
    let store = scene.puller.store();
    assert_eq!(store.sweep(&[]).expect("swept").layers, 0);
    assert!(store.remove(&pulled.reference).expect("removed"));
    assert_eq!(store.sweep(&[]).expect("swept").layers, 2);
}

#[tokio::test]
async fn progress_reaches_the_end_of_each_layer() {
    if !is_root() {
        return;
    }
    let image = image(&["a", "b"]);
    let scene = Scene::serving(&image);
    let reference = format!("{}/{REPOSITORY}:1.0", scene.registry.addr());
    let request = PullRequest {
        reference: parse_reference(&reference).expect("a reference"),
        credentials: None,
        platform: scene.platform.clone(),
    };
    let steps: Mutex<Vec<LayerProgress>> = Mutex::default();
    let sink = |progress: &LayerProgress| steps.lock().expect("no panic").push(progress.clone());
    scene.puller.pull(&request, &sink).await.expect("pulled");
    let seen = std::mem::take(&mut *steps.lock().expect("no panic"));
    for layer in &image.layers {
        let own: Vec<_> = seen
            .iter()
            .filter(|step| step.layer.as_ref() == layer.digest.as_str())
            .collect();
        assert_eq!(own[0].state, LayerState::Waiting);
        assert!(
            own.iter()
                .any(|step| step.state == LayerState::Downloading && step.done > 0)
        );
        assert!(own.windows(2).all(|pair| pair[0].done <= pair[1].done));
        let last = own.last().expect("steps");
        assert_eq!(
            (last.state, last.done),
            (LayerState::Complete, layer.blob.len() as u64)
        );
    }
    scene
        .puller
        .pull(&request, &sink)
        .await
        .expect("pulled again");
    let again = steps.lock().expect("no panic");
    assert!(again.iter().any(|step| step.state == LayerState::Present));
    assert!(
        again
            .iter()
            .all(|step| step.state != LayerState::Downloading)
    );
}

#[tokio::test]
async fn the_platform_is_chosen_with_its_fallbacks() {
    if !is_root() {
        return;
    }
    let of = |architecture: &str, variant: &str| {
        let platform = FixturePlatform::linux(architecture, variant);
        ImageBuilder::new(platform)
            .layer(layer(architecture, Compression::Gzip))
            .build()
    };
    for format in [Format::Oci, Format::Docker] {
        let images = [of("amd64", ""), of("arm", "v6"), of("arm64", "v8")];
        let digests = images.each_ref().map(|image| image.digest.to_string());
        let index = Index::new(format, images.to_vec());
        let mut content = Content::new();
        content.add_index(REPOSITORY, "1.0", &index);
        let mut scene = Scene::new(content, Options::default());
        for (platform, expected) in [("linux/amd64", 0), ("linux/arm/v7", 1), ("linux/arm64", 2)] {
            scene.platform = platform.parse().expect("a platform");
            let pulled = scene.pull(":1.0").await.expect(platform);
            assert_eq!(
                pulled.manifest_digest.as_ref(),
                digests[expected],
                "{platform}"
            );
        }
        scene.platform = "linux/riscv64".parse().expect("a platform");
        let error = scene.pull(":1.0").await.expect_err("not offered");
        assert!(matches!(error, PullError::NoPlatform { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains("linux/riscv64") && text.contains("linux/arm/v6"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_pinned_digest_must_be_the_content_s() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    let scene = Scene::serving(&image);
    let pinned = format!("@{}", image.digest);
    let pulled = scene.pull(&pinned).await.expect("pulled");
    assert_eq!(pulled.manifest_digest.as_ref(), image.digest.as_str());
    scene
        .pull(&format!(":other{pinned}"))
        .await
        .expect("the digest counts, not the tag");

    let scene = Scene::serving(&image);
    let target = Target::Manifest(image.digest.to_string());
    scene
        .registry
        .fault(target, Fault::FlipByte { at: 9 }, Times::Always);
    let error = scene.pull(&pinned).await.expect_err("another manifest");
    assert!(matches!(
        &error,
        PullError::Verify {
            source: VerifyError::Digest { .. },
            ..
        }
    ));
    scene.assert_clean(&error, image.digest.as_str());
}

#[tokio::test]
async fn credentials_open_registries_and_wrong_ones_do_not() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    for options in [
        Options::with_basic("device", "letmein"),
        Options::with_token("device", "letmein"),
    ] {
        let is_token = matches!(options.auth, Auth::Token(_));
        let mut scene = Scene::new(content(&image), options);
        for (username, password) in [(None, ""), (Some("device"), "hunter2")] {
            scene.credentials = username.map(|username: &str| Credentials {
                username: username.into(),
                password: Secret::new(password),
            });
            let error = scene.pull(":1.0").await.expect_err("refused");
            assert!(error.is_unauthorized() && !error.is_transient(), "{error}");
            assert!(!chain(&error).contains("hunter2"));
            scene.assert_clean(&error, REPOSITORY);
        }
        scene.credentials = Some(Credentials {
            username: "device".into(),
            password: Secret::new("letmein"),
        });
        scene.pull(":1.0").await.expect("let in");
        let tokens = |scene: &Scene| {
            let log = scene.registry.requests();
            log.iter()
                .filter(|request| request.path == "/oauth2/token" && request.status == 200)
                .count()
        };
        scene.pull(":1.0").await.expect("let in again");
        assert_eq!(
            tokens(&scene),
            usize::from(is_token),
            "one token serves both pulls"
        );
    }
}

#[tokio::test]
async fn redirected_blobs_come_without_our_credentials() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    let mut scene = Scene::new(content(&image), Options::with_token("device", "letmein"));
    scene.credentials = Some(Credentials {
        username: "device".into(),
        password: Secret::new("letmein"),
    });
    scene
        .registry
        .fault(blob(&image.layers[0]), Fault::Redirect, Times::Always);
    scene.pull(":1.0").await.expect("pulled");
    let log = scene.registry.requests();
    let stored: Vec<_> = log
        .iter()
        .filter(|request| request.listener == Listener::Storage)
        .collect();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].authorization, None, "the storage saw the token");
}

#[tokio::test]
async fn a_broken_connection_is_taken_up_where_it_broke() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    for faults in [
        vec![Fault::DropAfter { bytes: 100_000 }],
        vec![Fault::DropAfter { bytes: 100_000 }, Fault::NoRange],
        vec![Fault::DropAfter { bytes: 100_000 }, Fault::Chunked],
    ] {
        let scene = Scene::serving(&image);
        for fault in &faults {
            // More interruptions than are allowed in a row: each brings something new.
            let times = if faults.len() == 1 {
                Times::Always
            } else {
                Times::First(1)
            };
            scene
                .registry
                .fault(blob(&image.layers[0]), fault.clone(), times);
        }
        let pulled = scene.pull(":1.0").await.expect("pulled");
        assert_eq!(
            fs::metadata(pulled.layers[0].join("a.bin"))
                .expect("a file")
                .len(),
            300_000
        );
        let ranges: Vec<_> = scene.blob_requests().into_iter().flatten().collect();
        assert!(
            !ranges.is_empty() && ranges[0].starts_with("bytes="),
            "{ranges:?}"
        );
    }
    let scene = Scene::serving(&image);
    scene.registry.fault(
        blob(&image.layers[0]),
        Fault::DropAfter { bytes: 0 },
        Times::Always,
    );
    let error = scene.pull(":1.0").await.expect_err("no byte ever comes");
    assert!(error.is_transient(), "{error}");
    scene.assert_clean(&error, image.layers[0].digest.as_str());
}

#[tokio::test]
async fn content_that_is_not_what_was_promised_leaves_nothing() {
    if !is_root() {
        return;
    }
    let image = image(&["a", "b"]);
    let length = image.layers[1].blob.len();
    let cases: [(Fault, Expected); 6] = [
        (Fault::FlipByte { at: 5 }, |error| {
            matches!(error, VerifyError::Digest { .. })
        }),
        (Fault::FlipByte { at: length / 2 }, |error| {
            matches!(error, VerifyError::Digest { .. })
        }),
        (Fault::FlipByte { at: length - 1 }, |error| {
            matches!(error, VerifyError::Digest { .. })
        }),
        (Fault::Truncate { to: length / 2 }, |error| {
            matches!(error, VerifyError::Truncated { .. })
        }),
        (Fault::Truncate { to: 0 }, |error| {
            matches!(error, VerifyError::Truncated { .. })
        }),
        (Fault::Extend { by: 1 }, |error| {
            matches!(error, VerifyError::TooLong { .. })
        }),
    ];
    for (fault, is_expected) in cases {
        let scene = Scene::serving(&image);
        scene
            .registry
            .fault(blob(&image.layers[1]), fault.clone(), Times::Always);
        let error = scene.pull(":1.0").await.expect_err("refused");
        let PullError::Verify { source, .. } = &error else {
            panic!("{fault:?} gave {}", chain(&error));
        };
        assert!(is_expected(source), "{fault:?} gave {source}");
        scene.assert_clean(&error, image.layers[1].digest.as_str());
        assert!(scene.layers() <= 1, "only the good layer may be there");
        scene.registry.clear_faults();
        scene.pull(":1.0").await.expect("a later pull succeeds");
    }
    let scene = Scene::serving(&image);
    scene.registry.fault(
        Target::Blob(config_digest(&image)),
        Fault::FlipByte { at: 3 },
        Times::Always,
    );
    let error = scene.pull(":1.0").await.expect_err("refused");
    scene.assert_clean(&error, config_digest(&image).as_str());
}

#[tokio::test]
async fn statuses_are_told_apart() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    let scene = Scene::serving(&image);
    let error = scene.pull(":2.0").await.expect_err("no such tag");
    assert!(error.is_not_found() && !error.is_transient(), "{error}");
    scene.assert_clean(&error, "2.0");

    let status = |status| Fault::Status {
        status,
        retry_after: None,
    };
    for (code, transient, times, succeeds) in [
        (500, true, Times::Always, false),
        (503, true, Times::First(2), true),
        (429, true, Times::Always, false),
        (404, false, Times::Always, false),
        (403, false, Times::Always, false),
        (418, false, Times::Always, false),
    ] {
        for target in [Target::Manifest("1.0".into()), blob(&image.layers[0])] {
            let scene = Scene::serving(&image);
            scene.registry.fault(target.clone(), status(code), times);
            match scene.pull(":1.0").await {
                Ok(_) => assert!(succeeds, "{code} on {target:?}"),
                Err(error) => {
                    assert!(!succeeds, "{code} on {target:?}: {error}");
                    assert_eq!(error.is_transient(), transient, "{code}: {error}");
                    scene.assert_clean(&error, REPOSITORY);
                }
            }
        }
    }
}

#[tokio::test]
async fn unusable_images_are_refused_by_name() {
    if !is_root() {
        return;
    }
    let good = || {
        ImageBuilder::new(amd64())
            .layer(layer("a", Compression::Gzip))
            .build()
    };
    let zstd = ImageBuilder::new(amd64())
        .layer(layer("a", Compression::Zstd))
        .build();
    let escape = LayerBuilder::new().file("../escape", 0o644, "").build();
    let other = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    let cases = [
        (zstd, "zstd"),
        (
            ImageBuilder::new(amd64()).layer(escape).build(),
            "../escape",
        ),
        (
            good().edit_manifest(|m| m["config"]["mediaType"] = "application/x".into()),
            "application/x",
        ),
        (
            good().edit_manifest(|m| m["layers"][0]["digest"] = "md5:12".into()),
            "md5:12",
        ),
        (
            good().edit_manifest(|m| m["layers"] = serde_json::json!([])),
            "0 layers but 1",
        ),
        (
            good().edit_manifest(|m| m["config"]["size"] = (5 << 20).into()),
            "4194304",
        ),
        (
            good().edit_manifest(|m| m["mediaType"] = "application/y".into()),
            "application/y",
        ),
        (
            good().edit_config(|c| c["rootfs"]["diff_ids"][0] = other.into()),
            other,
        ),
        (
            good().edit_config(|c| c["rootfs"]["diff_ids"][0] = "../..".into()),
            "../..",
        ),
    ];
    for (image, word) in cases {
        let scene = Scene::serving(&image);
        let error = scene.pull(":1.0").await.expect_err(word);
        assert!(!error.is_transient(), "{error}");
        scene.assert_clean(&error, word);
        assert_eq!(scene.layers(), 0, "{word}");
    }
}

#[tokio::test]
async fn a_dropped_pull_clears_up_and_can_be_repeated() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    let scene = Scene::serving(&image);
    let stall = Fault::Stall {
        after: 1000,
        pause: Duration::from_secs(20),
    };
    scene
        .registry
        .fault(blob(&image.layers[0]), stall, Times::First(1));
    let dropped = tokio::time::timeout(Duration::from_millis(500), scene.pull(":1.0")).await;
    assert!(dropped.is_err(), "it stalls");
    for _ in 0..100 {
        if scene.count("staging") == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((scene.count("staging"), scene.layers()), (0, 0));
    scene.pull(":1.0").await.expect("pulled");
}

#[tokio::test]
async fn one_failing_layer_stops_the_others_and_all_clear_up() {
    if !is_root() {
        return;
    }
    let image = image(&["a", "b", "c", "d"]);
    let scene = Scene::serving(&image);
    for stalled in &image.layers[1..] {
        let stall = Fault::Stall {
            after: 1000,
            pause: Duration::from_secs(20),
        };
        scene.registry.fault(blob(stalled), stall, Times::Always);
    }
    scene.registry.fault(
        blob(&image.layers[0]),
        Fault::FlipByte { at: 100 },
        Times::Always,
    );
    let pull = tokio::time::timeout(Duration::from_secs(10), scene.pull(":1.0"));
    let error = pull
        .await
        .expect("does not wait for the stalled ones")
        .expect_err("refused");
    scene.assert_clean(&error, image.layers[0].digest.as_str());
}
