//! Going on where it was: after a silence, after a refusal for now, and in another process.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kobune_fixtures::{Fault, Image, Options, Times};
use kobune_puller::{PullRequest, Puller, PullerConfig, Store, parse_reference};

use super::scene::*;

/// Says to a second run of a test what to pull, and whereto.
const REFERENCE: &str = "KOBUNE_TEST_REFERENCE";
const DIRECTORY: &str = "KOBUNE_TEST_DIRECTORY";

fn stall(after: usize) -> Fault {
    Fault::Stall {
        after,
        pause: Duration::from_secs(60),
    }
}

fn size(image: &Image) -> usize {
    image.layers.iter().map(|layer| layer.blob.len()).sum()
}

#[tokio::test]
async fn what_stalls_or_breaks_costs_next_to_no_bytes_twice() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    for (fault, times) in [
        (stall(100_000), Times::First(1)),
        (stall(250_000), Times::First(1)),
        (Fault::DropAfter { bytes: 10_000 }, Times::Always),
        (Fault::DropAfter { bytes: 70_000 }, Times::Always),
    ] {
        let scene = Scene::configured(content(&image), Options::default(), |config, _| {
            config.silence = Duration::from_millis(300);
        });
        scene
            .registry
            .fault(blob(&image.layers[0]), fault.clone(), times);
        let pull = tokio::time::timeout(Duration::from_secs(20), scene.pull(":1.0"));
        pull.await.expect("in time").expect("pulled");
        let whole = size(&image) + image.config.len();
        assert!(
            scene.sent() * 10 <= whole * 11,
            "{fault:?}: {} of {whole}",
            scene.sent()
        );
    }
}

#[tokio::test]
async fn a_registry_that_wants_to_be_left_alone_is() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    let busy = |seconds| Fault::Status {
        status: 429,
        retry_after: Some(seconds),
    };
    let scene = Scene::serving(&image);
    scene
        .registry
        .fault(blob(&image.layers[0]), busy(1), Times::First(1));
    let begin = Instant::now();
    scene.pull(":1.0").await.expect("pulled after a while");
    assert!(begin.elapsed() >= Duration::from_secs(1));

    let scene = Scene::serving(&image);
    let fault = scene
        .registry
        .fault(blob(&image.layers[0]), busy(7200), Times::Always);
    let error = scene
        .pull(":1.0")
        .await
        .expect_err("two hours are too long");
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7200)));
    assert!(error.is_transient() && scene.registry.fired(fault) == 1);
}

fn spooling(directory: &Path) -> Puller {
    let store = Store::open(directory).expect("a store");
    let mut config = PullerConfig::new(store);
    config.spool_from = Some(100_000);
    Puller::new(config).expect("a puller")
}

#[tokio::test]
async fn what_a_killed_process_fetched_is_not_fetched_again() {
    if !is_root() {
        return;
    }
    let platform = "linux/amd64".parse().expect("a platform");
    let request = |reference: &str| PullRequest {
        reference: parse_reference(reference).expect("a reference"),
        credentials: None,
        platform,
    };
    if let Ok(reference) = std::env::var(REFERENCE) {
        let directory = std::env::var(DIRECTORY).expect("a directory");
        let puller = spooling(Path::new(&directory));
        let _ = puller.pull(&request(&reference), &()).await;
        return;
    }
    let image = image(&["a"]);
    let scene = Scene::serving(&image);
    scene
        .registry
        .fault(blob(&image.layers[0]), stall(200_000), Times::First(1));
    let directory = tempfile::tempdir().expect("a directory");
    let reference = format!("{}/{REPOSITORY}:1.0", scene.registry.addr());
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args([
            "--exact",
            "resume::what_a_killed_process_fetched_is_not_fetched_again",
        ])
        .env(REFERENCE, &reference)
        .env(DIRECTORY, directory.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("the test runs again");
    let name = image.layers[0].digest.to_string().replace("sha256:", "");
    let spool = directory.path().join("spool").join(name);
    let begin = Instant::now();
    let kept = loop {
        let length = fs::metadata(&spool).map_or(0, |metadata| metadata.len());
        if length >= 200_000 || begin.elapsed() > Duration::from_secs(20) {
            break length;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert_eq!(kept, 200_000, "all that was sent is on disk");

    scene.registry.clear_requests();
    let puller = spooling(directory.path());
    let pulled = puller
        .pull(&request(&reference), &())
        .await
        .expect("pulled");
    let file = fs::metadata(pulled.layers[0].join("a.bin")).expect("a file");
    assert_eq!(file.len(), 300_000);
    let ranges: Vec<_> = scene.blob_requests().into_iter().flatten().collect();
    assert_eq!(ranges, ["bytes=200000-"]);
    assert!(!spool.exists(), "it is done with");
}

#[tokio::test]
async fn a_beginning_that_is_wrong_is_thrown_away() {
    if !is_root() {
        return;
    }
    let image = image(&["a"]);
    let layer = &image.layers[0];
    let name = layer.digest.to_string().replace("sha256:", "");
    let half = layer.blob.len() / 2;
    let mut torn = layer.blob[..half].to_vec();
    torn[half - 4096..].fill(0);
    for (beginning, again) in [
        (vec![7; 1000], true),
        (torn, true),
        (vec![0; layer.blob.len()], true),
        (vec![0; layer.blob.len() + 1], false),
        (layer.blob.clone(), false),
        (Vec::new(), false),
    ] {
        let scene = Scene::configured(content(&image), Options::default(), |config, _| {
            config.spool_from = Some(1);
        });
        let spool = scene.directory.path().join("spool").join(&name);
        fs::write(&spool, &beginning).expect("written");
        let pulled = scene.pull(":1.0").await.expect("pulled");
        let file = fs::metadata(pulled.layers[0].join("a.bin")).expect("a file");
        assert_eq!(file.len(), 300_000);
        assert!(!spool.exists());
        let whole = scene
            .blob_requests()
            .into_iter()
            .filter(Option::is_none)
            .count();
        let expected = usize::from(beginning != layer.blob && (again || beginning.len() != half));
        // The configuration is a blob too.
        assert_eq!(whole, 1 + expected, "{} bytes kept", beginning.len());
    }
}
