//! What of a bind mount a module gets: what is mounted below it, and what comes later.

use std::path::Path;
use std::time::Duration;

use kobune_tests::privileged;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::lab::{Lab, Seen, with_steps};

/// Runs a line of a shell on the device.
fn on_device(lab: &Lab, line: &str) {
    let status = lab.device().command("sh").args(["-ec", line]).status();
    assert!(status.unwrap().success(), "{line}");
}

/// A directory of the device with a memory file system mounted at `below`.
fn with_a_mount_below(lab: &Lab, name: &str) -> std::path::PathBuf {
    let dir = lab.path(name);
    let path = dir.display();
    on_device(
        lab,
        &format!("mkdir -p {path}/below && mount -t tmpfs tmpfs {path}/below"),
    );
    dir
}

fn bind(source: &Path, read_only: bool, bind_options: &Value) -> Value {
    json!({ "HostConfig": { "Mounts": [{
        "Type": "bind", "Source": source, "Target": "/m", "ReadOnly": read_only,
        "BindOptions": bind_options,
    }]}})
}

#[test]
fn a_read_only_mount_is_so_below_only_where_that_is_demanded() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let source = with_a_mount_below(&lab, "source");
    let lines = ["write /m/file x", "write /m/below/file x"];
    for (read_only, options, answers) in [
        (false, json!({}), ["ok", "ok"]),
        (true, json!({}), ["EROFS", "ok"]),
        (
            true,
            json!({ "ReadOnlyNonRecursive": true }),
            ["EROFS", "ok"],
        ),
        (
            true,
            json!({ "ReadOnlyForceRecursive": true, "Propagation": "rprivate" }),
            ["EROFS", "EROFS"],
        ),
    ] {
        let seen = lab.steps(&bind(&source, read_only, &options), &lines);
        let expected = [(lines[0], answers[0]), (lines[1], answers[1])];
        seen.expect(&expected);
    }
}

#[test]
fn what_is_mounted_below_comes_with_it_unless_that_is_left_out() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let source = with_a_mount_below(&lab, "source");
    on_device(
        &lab,
        &format!("echo here > {}/below/file", source.display()),
    );
    for (options, is_there) in [(json!({}), true), (json!({ "NonRecursive": true }), false)] {
        let seen = lab.steps(&bind(&source, false, &options), &["list /m/below"]);
        assert_eq!(
            seen.answer("list /m/below").contains("file"),
            is_there,
            "{options}"
        );
    }
}

/// What a module sees of a file system that is mounted below its bind mount while it runs.
fn mounted_later(propagation: &str) -> Seen {
    let lab = Lab::new();
    let source = lab.path("source");
    let path = source.display();
    on_device(
        &lab,
        &format!(
            "mkdir {path} && mount -t tmpfs tmpfs {path} && mount --make-shared {path} && mkdir {path}/below"
        ),
    );
    let options = bind(&source, false, &json!({ "Propagation": propagation }));
    let steps = with_steps(&["await-signal", "list /m/below"]);
    let id = lab.create(&lab.image(&json!({})), &options, &steps);
    lab.start(&id).unwrap();
    lab.wait_for(&id, "waiting");
    on_device(
        &lab,
        &format!("mount -t tmpfs tmpfs {path}/below && echo > {path}/below/late"),
    );
    std::thread::sleep(Duration::from_millis(50));
    kill(Pid::from_raw(lab.pid(&id)), Signal::SIGUSR1).unwrap();
    let seen = lab.wait(&id);
    lab.remove(&id);
    on_device(&lab, &format!("umount {path}/below"));
    seen
}

#[test]
fn a_slave_mount_gets_what_is_mounted_later_and_a_private_one_does_not() {
    if !privileged() {
        return;
    }
    for (propagation, comes) in [("rslave", true), ("rprivate", false)] {
        let seen = mounted_later(propagation);
        let listed = seen.answer("list /m/below");
        assert_eq!(listed.contains("late"), comes, "{propagation}: {listed}");
    }
}
