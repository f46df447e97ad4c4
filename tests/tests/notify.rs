//! Modules that say themselves when they are ready.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use kobune_fixtures::Registry;
use kobune_tests::{Agent, Device, privileged, probe};
use serde_json::{Value, json};

/// Seconds in which everything here happens.
const SOON: u64 = 30;
/// Tells what it is about, waits for `/go/ready`, tells that it is ready, and what `/go/again` is
/// there for.
const SLOW: &str = "/probe notify 'STATUS=loading the model'; \
    until [ -e /go/ready ]; do busybox usleep 10000; done; /probe notify READY=1 STATUS=predicting; \
    until [ -e /go/again ]; do busybox usleep 10000; done; /probe notify STATUS=resting; \
    exec busybox sleep 600";

/// A module of that startup order with busybox, `/go` and further create options.
fn module(device: &Device, registry: &Registry, script: &str, order: u32, more: &Value) -> Value {
    let command = ["/bin/sh", "-c", script];
    let mut module = probe::shell(registry, &command, more["HostConfig"].clone());
    module["startupOrder"] = json!(order);
    let options = &mut module["settings"]["createOptions"];
    let go = format!("{}:/go:ro", device.dir().join("go").display());
    let binds = options["HostConfig"]["Binds"].as_array_mut().unwrap();
    binds.push(json!(go));
    for (name, value) in more.as_object().unwrap() {
        if name != "HostConfig" {
            options[name] = value.clone();
        }
    }
    module
}

/// Runs `test` with a device, a registry and an agent on it.
fn with_agent(test: impl FnOnce(&Device, &Registry, &mut Agent<'_>)) {
    if !privileged() {
        return;
    }
    let device = Device::new();
    fs::create_dir(device.dir().join("go")).unwrap();
    let registry = probe::registry(&device, &["1"]);
    let mut agent = Agent::start(&device, "");
    test(&device, &registry, &mut agent);
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

fn go(device: &Device, name: &str) {
    fs::write(device.dir().join("go").join(name), "").unwrap();
}

fn describes(module: &Value, words: &str) -> bool {
    let description = module["description"].as_str().unwrap_or_default();
    description.ends_with(words)
}

#[test]
fn a_module_is_starting_until_it_says_that_it_is_ready_and_later_ones_wait_for_it() {
    with_agent(|device, registry, agent| {
        // An ordinary user on a read-only root can tell it as well.
        let first = json!({ "User": "1000:1000", "HostConfig": {
            "ReadonlyRootfs": true,
            "Annotations": { "io.containers.sdnotify": "container" },
        }});
        let first = module(device, registry, SLOW, 1, &first);
        let second = "echo here; exec busybox sleep 600";
        let second = module(device, registry, second, 2, &json!({ "HostConfig": {} }));
        let deployment = probe::deployment([("a-second", second), ("b-first", first)]);
        let file = device.dir().join("both.json");
        fs::write(&file, deployment.to_string()).unwrap();
        let mut apply = agent.command(&["apply", &file.to_string_lossy()]);
        let apply = apply.stdout(Stdio::null()).stderr(Stdio::null());
        let mut apply = apply.spawn().unwrap();

        let first = agent.wait_for("b-first", SOON, |module| {
            module["health"] == "starting" && describes(module, "(starting): loading the model")
        });
        assert_eq!(first["status"], "running");
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(agent.module("a-second")["status"], "unknown");
        assert!(
            apply.try_wait().unwrap().is_none(),
            "it is not carried out yet"
        );
        // Another agent waits on.
        agent.kill();
        let _ = apply.wait();
        agent.restart();
        agent.wait_for("b-first", SOON, |module| module["health"] == "starting");
        assert_eq!(agent.module("a-second")["status"], "unknown");

        go(device, "ready");
        agent.wait_for("b-first", SOON, |module| {
            module["health"] == "healthy" && describes(module, "(healthy): predicting")
        });
        agent.wait_log("a-second", "here\n");
        assert_eq!(agent.module("b-first")["pid"], first["pid"]);
        go(device, "again");
        agent.wait_for("b-first", SOON, |module| {
            describes(module, "(healthy): resting")
        });
    });
}

#[test]
fn what_a_module_says_while_no_agent_is_there_is_known_to_the_next() {
    with_agent(|device, registry, agent| {
        let asked =
            json!({ "Labels": { "io.containers.sdnotify": "container" }, "HostConfig": {} });
        let script = format!("/probe env; {SLOW}");
        let told = module(device, registry, &script, 1, &asked);
        // Nobody asked, so nobody is told.
        let mute = module(
            device,
            registry,
            "/probe env; /probe notify READY=1; exec busybox sleep 600",
            2,
            &json!({ "HostConfig": {} }),
        );
        go(device, "again");
        let file = device.dir().join("both.json");
        let deployment = probe::deployment([("told", told), ("mute", mute)]);
        fs::write(&file, deployment.to_string()).unwrap();
        let mut apply = agent.command(&["apply", &file.to_string_lossy()]);
        let apply = apply.stdout(Stdio::null()).stderr(Stdio::null());
        let mut apply = apply.spawn().unwrap();
        agent.wait_log("told", "NOTIFY_SOCKET=/run/notify/notify.sock\n");
        agent.kill();
        let _ = apply.wait();
        go(device, "ready");
        std::thread::sleep(Duration::from_secs(1));
        agent.restart();
        agent.wait_for("told", SOON, |module| {
            describes(module, "(healthy): resting")
        });
        let log = agent.wait_log("mute", "entity not found");
        assert!(!log.contains("NOTIFY_SOCKET="), "{log}");
        assert_eq!(agent.wait_running("mute")["health"], Value::Null);
    });
}
