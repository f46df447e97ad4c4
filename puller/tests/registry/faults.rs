//! What can go wrong on the way, and what is left afterwards: nothing.

use std::fs;
use std::time::Duration;

use kobune_fixtures::{
    Compression, Fault, ImageBuilder, LayerBuilder, Listener, Options, Target, Times,
};
use kobune_puller::{Credentials, PullError, Secret, VerifyError};

use super::scene::*;

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
    let escape = LayerBuilder::new().file("../escape", 0o644, "").build();
    let other = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    let cases = [
        (
            good().edit_manifest(|m| m["layers"][0]["mediaType"] = "application/z".into()),
            "application/z",
        ),
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

#[tokio::test]
async fn a_manifest_must_be_what_the_registry_says_it_is() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    let scene = Scene::serving(&image);
    let other = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";
    let fault = Fault::Header {
        name: "Docker-Content-Digest".into(),
        value: other.into(),
    };
    let target = Target::Manifest("1.0".into());
    scene.registry.fault(target, fault, Times::Always);
    let error = scene.pull(":1.0").await.expect_err("another digest");
    assert!(matches!(&error, PullError::Verify { .. }), "{error}");
    scene.assert_clean(&error, other);
}
