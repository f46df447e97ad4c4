//! What a store keeps, finds, forgets and refuses.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};

use oci_spec::distribution::Reference;
use oci_spec::image::Digest;

use super::power_cut::Step;
use super::*;
use crate::digest::sha256;
use crate::unpack::Unpacked;

const CONFIG: &str =
    r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;

fn reference(name: &str) -> Reference {
    crate::reference::parse_reference(name).expect("a reference")
}

/// Adds a layer and gives its digest.
fn layer(store: &Store, name: &str) -> Digest {
    let diff_id = sha256(name.as_bytes());
    let staging = store.stage().expect("staged");
    fs::write(staging.path().join(name), name).expect("a file");
    staging
        .commit(&diff_id, &Unpacked::default(), None)
        .expect("committed");
    diff_id
}

fn image(store: &Store, name: &str, diff_ids: &[Digest]) -> Reference {
    let reference = reference(name);
    let id = sha256(CONFIG.as_bytes());
    let mut record = Record::new(
        &reference,
        SystemTime::now(),
        sha256(b"manifest"),
        id.clone(),
    );
    record.diff_ids = diff_ids.to_vec();
    store.put_config(&id, CONFIG.as_bytes()).expect("a config");
    store.put_record(&reference, &record).expect("a record");
    reference
}

fn record_files(store: &Store) -> Vec<PathBuf> {
    let entries = fs::read_dir(store.root().join("images")).expect("images");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.extension().is_some()).collect()
}

fn scene() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path()).expect("a store");
    (directory, store)
}

#[test]
fn opening_empties_staging_but_not_under_a_pull() {
    let (directory, store) = scene();
    let staging = store.stage().expect("staged");
    fs::create_dir(store.root().join("staging/left-over")).expect("a left-over");
    let again = Store::open(directory.path()).expect("the same store");
    assert!(
        staging.path().is_dir(),
        "the second open leaves the first one's work"
    );
    drop((staging, store, again));
    let store = Store::open(directory.path()).expect("opened");
    assert_eq!(
        fs::read_dir(store.root().join("staging"))
            .expect("staging")
            .count(),
        0
    );
}

#[test]
fn a_store_is_open_in_one_process_only() {
    let (directory, store) = scene();
    let lock = directory.path().join("lock");
    let try_lock = || {
        let status = Command::new("flock")
            .arg("-n")
            .arg(&lock)
            .arg("true")
            .status();
        status.expect("flock runs").success()
    };
    assert!(!try_lock(), "another process must see the lock");
    drop(store);
    let mut other = Command::new("flock")
        .arg(&lock)
        .args(["sh", "-c", "echo held; read line"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("flock runs");
    let mut held = [0; 4];
    let mut output = other.stdout.take().expect("piped");
    std::io::Read::read_exact(&mut output, &mut held).expect("it holds the lock");
    let error = Store::open(directory.path()).expect_err("busy");
    assert!(matches!(error, StoreError::Busy { .. }), "{error}");
    drop(other.stdin.take());
    other.wait().expect("it ends");
}

#[test]
fn what_is_dropped_before_its_commit_is_gone() {
    let (_directory, store) = scene();
    let staging = store.stage().expect("staged");
    let path = staging.path().to_owned();
    fs::write(path.join("file"), "").expect("a file");
    drop(staging);
    assert!(!path.exists());
    let diff_id = layer(&store, "a");
    let again = store.stage().expect("staged");
    let kept = again
        .commit(&diff_id, &Unpacked::default(), None)
        .expect("there is one already");
    assert!(kept.join("a").is_file(), "the first one stays");
}

#[test]
fn a_flush_waits_for_the_spool_of_a_layer_that_may_come_soon() {
    let (_directory, store) = scene();
    let mut spool = store.spool(&sha256(b"blob"), 10).expect("a spool");
    spool.append(b"begin").expect("spooled");
    let other = std::thread::spawn({
        let store = store.clone();
        move || layer(&store, "a")
    });
    // Time to get it wrong.
    std::thread::sleep(Duration::from_millis(200));
    spool.remove();
    other.join().expect("committed");
    let steps = store.inner.disk.journal.steps();
    let flushed = steps.iter().position(|step| matches!(step, Step::Flush));
    let removed =
        |step: &Step| matches!(step, Step::Remove(path) if path.starts_with(store.path("spool")));
    assert!(steps.iter().position(removed) < flushed, "{steps:?}");
}

#[test]
fn a_removed_image_leaves_its_layers_to_the_sweep() {
    let (_directory, store) = scene();
    let (a, b, c, orphan) = (
        layer(&store, "a"),
        layer(&store, "b"),
        layer(&store, "c"),
        layer(&store, "o"),
    );
    let first = image(&store, "first", &[a.clone(), b.clone()]);
    image(&store, "second", &[a.clone(), c.clone()]);
    assert_eq!(store.images().expect("images").images.len(), 2);
    assert!(store.remove(&first).expect("removed"));
    assert!(!store.remove(&first).expect("removed before"));
    assert_eq!(store.lookup(&first).expect("read"), None);

    let pins = store.pin([orphan.clone()]);
    let keep = [store.layer(&b).expect("still there")];
    assert_eq!(
        store.sweep(&keep).expect("swept"),
        Swept::default(),
        "all are in use"
    );
    drop(pins);
    assert_eq!(store.sweep(&keep).expect("swept").layers, 1);
    assert!(store.layer(&orphan).is_none() && store.layer(&b).is_some());
    assert_eq!(store.sweep(&[]).expect("swept").layers, 1);
    assert!(store.layer(&a).is_some() && store.layer(&c).is_some());
    assert_eq!(
        fs::read_dir(store.root().join("staging"))
            .expect("staging")
            .count(),
        0
    );
}

#[test]
fn an_unreadable_record_costs_one_image() {
    let (_directory, store) = scene();
    let a = layer(&store, "a");
    image(&store, "good", std::slice::from_ref(&a));
    let unsafe_digest = r#"{"schema":1,"reference":"x","manifest_digest":"md5:x","id":"md5:../../x","diff_ids":[],"size":0,"pulled_at":0}"#;
    for (body, word) in [
        ("", "record"),
        ("{\"schema\":1}", "record"),
        ("{\"schema\":2}", "schema is 2"),
        (unsafe_digest, "record"),
    ] {
        let bad = image(&store, "bad", std::slice::from_ref(&a));
        let good = sha256(reference("good").whole().as_bytes());
        let files = record_files(&store);
        let file = files
            .iter()
            .find(|path| !path.ends_with(format!("{}.json", good.digest())));
        let file = file.expect("the bad one");
        fs::write(file, body).expect("spoilt");
        let error = store.lookup(&bad).expect_err("unreadable").to_string();
        assert!(
            error.contains(word) && error.contains(&*file.to_string_lossy()),
            "{error}"
        );
        let found = store.images().expect("the others");
        assert_eq!((found.images.len(), found.broken.len()), (1, 1), "{body}");
        store.sweep(&[]).expect("swept");
        assert!(store.layer(&a).is_some());
    }
}

#[test]
fn a_spoilt_configuration_is_noticed() {
    let (_directory, store) = scene();
    let image = image(&store, "a", &[]);
    let found = store.lookup(&image).expect("read").expect("whole");
    fs::write(&found.config_path, CONFIG.replace("amd64", "arm64")).expect("spoilt");
    let error = store.lookup(&image).expect_err("its digest differs");
    assert!(matches!(error, StoreError::Record { .. }), "{error}");
    fs::remove_file(&found.config_path).expect("removed");
    assert_eq!(store.lookup(&image).expect("read"), None, "absent");
}
