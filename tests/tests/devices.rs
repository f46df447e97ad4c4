//! Devices that come and go while modules want them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use kobune_fixtures::Registry;
use kobune_tests::{Agent, Device, privileged, probe, until};
use serde_json::{Value, json};

/// Longest that anything here may take.
const SOON: u64 = 60;

/// A module that sleeps and maps `path`, restarted always.
fn module(registry: &Registry, path: &str) -> Value {
    let mapping = json!({ "PathOnHost": path, "PathInContainer": "/dev/plug" });
    let host = json!({ "Devices": [mapping] });
    let mut module = probe::module_with(registry, &["sleep", "600"], host);
    module["restartPolicy"] = json!("always");
    module
}

/// Runs `test` with an agent that was given one module `m`, which maps `path`.
fn with_module(path: &str, test: impl FnOnce(&mut Agent<'_>)) {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let mut agent = Agent::start(&device, "");
    let said = agent.apply(&probe::deployment([("m", module(&registry, path))]));
    assert!(format!("{said:?}").contains("waits for device"), "{said:?}");
    test(&mut agent);
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

/// Runs a shell command on the device.
fn plug(agent: &Agent<'_>, script: &str) {
    let status = agent
        .device()
        .command("/bin/sh")
        .args(["-ec", script])
        .status();
    assert!(status.unwrap().success(), "{script}");
}

fn is_waiting(module: &Value, path: &str) -> bool {
    module["status"] == "backoff" && module["problem"] == format!("waits for device {path}")
}

/// What the module finds at `/dev/plug`: its line in the directory, and what opening says.
fn inside(agent: &Agent<'_>) -> (String, String) {
    let list = agent.cli(&["exec", "m", "/probe", "list", "/dev"]).ok();
    let line = list.lines().find(|line| line.contains("plug"));
    let opened = agent.cli(&["exec", "m", "/probe", "open", "/dev/plug", "rw"]);
    (line.unwrap_or_default().to_owned(), opened.ok())
}

#[test]
fn a_module_waits_for_its_device_and_starts_when_it_comes() {
    with_module("/dev/late", |agent| {
        let waiting = agent.module("m");
        assert!(is_waiting(&waiting, "/dev/late"), "{waiting}");
        assert_eq!(waiting["restartCount"], 0);
        plug(agent, "mknod -m 660 /dev/late c 89 3");
        agent.wait_running("m");
        let (line, opened) = inside(agent);
        assert!(line.contains("89:3") && line.contains("0660"), "{line}");
        // There is nothing behind it, and the module may ask.
        assert_eq!(opened.trim(), "ENXIO");

        // Gone under a running module: it goes on. Back as what it was: it still does.
        let pid = agent.module("m")["pid"].clone();
        plug(
            agent,
            "rm /dev/late; sleep 1; mknod -m 660 /dev/late c 89 3; sleep 1",
        );
        assert_eq!(agent.module("m")["pid"], pid);
        // Back under another number: it is started anew, with that one.
        plug(agent, "rm /dev/late; mknod -m 660 /dev/late c 89 4");
        until(SOON, "it is started anew", || {
            let module = agent.module("m");
            module["status"] == "running" && module["pid"] != pid
        });
        let (line, opened) = inside(agent);
        assert!(line.contains("89:4"), "{line}");
        assert_eq!(opened.trim(), "ENXIO");
        assert_eq!(agent.module("m")["restartCount"], 0);

        // It ends while the device is away: it waits for that, not for its turn.
        plug(agent, "rm /dev/late");
        let _ = agent.cli(&["kill", "m"]).ok();
        until(SOON, "it waits", || {
            is_waiting(&agent.module("m"), "/dev/late")
        });
        plug(agent, "mknod -m 660 /dev/late c 89 3");
        agent.wait_running("m");
    });
}

#[test]
fn links_and_directories_that_do_not_exist_yet_are_waited_for() {
    with_module("/dev/serial/by-id/adapter", |agent| {
        plug(agent, "mkdir /dev/serial");
        plug(
            agent,
            "mkdir /dev/serial/by-id; sleep 1; ln -s ../../late /dev/serial/by-id/adapter",
        );
        // A link to nothing is no device.
        plug(agent, "sleep 1");
        let waiting = agent.module("m");
        assert!(
            is_waiting(&waiting, "/dev/serial/by-id/adapter"),
            "{waiting}"
        );
        plug(agent, "mknod -m 660 /dev/late c 89 5");
        agent.wait_running("m");
        assert!(inside(agent).0.contains("89:5"));
        // A daemon that starts finds what changed meanwhile.
        let pid = agent.module("m")["pid"].clone();
        agent.kill();
        plug(agent, "rm /dev/late; mknod -m 660 /dev/late c 89 6");
        agent.restart();
        until(SOON, "it is started anew", || {
            let module = agent.module("m");
            module["status"] == "running" && module["pid"] != pid
        });
        assert!(inside(agent).0.contains("89:6"));
    });
}
