//! Pulls over HTTP from the project's own small registry: kinds of images, ways to authenticate, and
//! everything that can go wrong on the way.
#![allow(clippy::print_stdout, reason = "says why a test is skipped")]

#[path = "registry/bundle.rs"]
mod bundle;
#[path = "registry/damage.rs"]
mod damage;
#[path = "registry/delta.rs"]
mod delta;
#[path = "registry/faults.rs"]
mod faults;
#[path = "registry/full.rs"]
mod full;
#[path = "registry/killed.rs"]
mod killed;
#[path = "registry/metered.rs"]
mod metered;
#[path = "registry/preloaded.rs"]
mod preloaded;
#[path = "registry/resume.rs"]
mod resume;
#[path = "registry/save.rs"]
mod save;
#[path = "registry/scene.rs"]
mod scene;
#[path = "registry/signed.rs"]
mod signed;
#[path = "registry/update.rs"]
mod update;
#[path = "registry/ways.rs"]
mod ways;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Mutex;

use kobune_fixtures::{
    Compression, Content, Digest, Fault, Format, ImageBuilder, Index, Layer, LayerBuilder, Options,
    Platform as FixturePlatform, Target, Times,
};
use kobune_puller::{
    LayerProgress, LayerState, PullError, PullRequest, Store, VerifyError, parse_reference,
};

use scene::*;

#[tokio::test]
async fn both_formats_and_all_compressions_are_pulled() {
    if !is_root() {
        return;
    }
    for (format, compression) in [
        (Format::Oci, Compression::Gzip),
        (Format::Oci, Compression::None),
        (Format::Oci, Compression::Zstd),
        (Format::Docker, Compression::Gzip),
        (Format::Docker, Compression::None),
        (Format::Docker, Compression::Zstd),
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
async fn zstd_streams_may_have_many_frames_but_no_huge_window() {
    if !is_root() {
        return;
    }
    let plain = layer("a", Compression::Zstd);
    let (first, second) = plain.tar.split_at(1000);
    let frame = |data: &[u8]| zstd::encode_all(data, 19).expect("compressed");
    let skippable = [
        &0x184D_2A50_u32.to_le_bytes()[..],
        &3_u32.to_le_bytes(),
        b"toc",
    ]
    .concat();
    let mut long = zstd::Encoder::new(Vec::new(), 3).expect("an encoder");
    long.window_log(27).expect("a window");
    std::io::Write::write_all(&mut long, &plain.tar).expect("compressed");
    for (blob, is_good) in [
        (frame(&plain.tar), true),
        (
            [frame(first), skippable.clone(), frame(second), skippable].concat(),
            true,
        ),
        (long.finish().expect("compressed"), false),
        ([frame(&plain.tar), vec![7; 9]].concat(), false),
    ] {
        let layer = Layer {
            digest: Digest::of(&blob),
            blob,
            ..plain.clone()
        };
        let image = ImageBuilder::new(amd64()).layer(layer).build();
        let scene = Scene::serving(&image);
        match scene.pull(":1.0").await {
            Ok(_) => assert!(is_good),
            Err(error) => {
                assert!(!is_good, "{}", chain(&error));
                scene.assert_clean(&error, image.layers[0].digest.as_str());
            }
        }
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
    let pull = scene.puller.pull(&request, &sink);
    assert_send(&pull);
    pull.await.expect("pulled");
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
