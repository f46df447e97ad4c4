//! What a new deployment changes, and what it leaves alone.

use std::time::Duration;

use kobune_fixtures::{Fault, Options, Target, Times};
use kobune_tests::{Agent, Device, privileged, probe};
use serde_json::{Value, json};

const SLEEP: &[&str] = &["sleep", "1000"];

fn without_leftovers(device: &Device, agent: &Agent<'_>) {
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

#[test]
fn everything_is_pulled_before_anything_is_stopped() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1", "2"]);
    let agent = Agent::start(&device, "");
    let module = |tag| probe::module(&registry, tag, SLEEP);
    let _ = agent
        .apply(&probe::deployment([
            ("a", module("1")),
            ("b", module("1")),
            ("gone", module("1")),
        ]))
        .ok();
    let before: Vec<Value> = ["a", "b", "gone"]
        .map(|name| agent.wait_running(name))
        .into();

    // The image of b is slow; that of a is there already, and gone needs none.
    let slow = registry.fault(
        Target::Manifest("2".to_owned()),
        Fault::Stall {
            after: 10,
            pause: Duration::from_secs(3),
        },
        Times::Always,
    );
    let mut changed = module("1");
    changed["env"] = json!({ "NEW": { "value": "1" } });
    let next = probe::deployment([("a", changed), ("b", module("2"))]);
    let _ = agent.apply_with(&next, &["--detach"]).ok();
    let pulling = agent.wait_for("b", 5, |module| module["description"] == "Pulling image");
    assert_eq!(pulling["status"], "running");
    while registry.fired(slow) == 0 {
        std::thread::yield_now();
    }
    agent.wait_agent_log(0, "image is here module=a");
    let pulling = agent.module("b");
    if pulling["description"] == "Pulling image" {
        for (module, name) in before.iter().zip(["a", "b", "gone"]) {
            assert_eq!(agent.module(name)["pid"], module["pid"], "{name} runs on");
        }
    }
    agent.wait_for("gone", 20, Value::is_null);
    for (module, name) in before.iter().zip(["a", "b"]) {
        let after = agent.wait_for(name, 20, |m| {
            m["status"] == "running" && m["pid"] != module["pid"]
        });
        assert_eq!(after["restartCount"], 0);
    }
    let log = agent.log();
    assert!(
        at(&log, "image is here module=b") < at(&log, "module=gone action=stop"),
        "{log}"
    );
    assert!(
        at(&log, "image is here module=b") < at(&log, "module=a action=stop"),
        "{log}"
    );
    without_leftovers(&device, &agent);
}

/// Where `text` stands last.
fn at(log: &str, text: &str) -> usize {
    let found = log.rfind(text);
    found.unwrap_or_else(|| panic!("no {text:?} in {log}"))
}

#[test]
fn a_module_that_ends_while_its_update_is_pulled_is_restarted() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1", "2"]);
    let agent = Agent::start(&device, "");
    let module = |tag: &str, seconds: &str| {
        let mut module = probe::module(&registry, tag, &["sleep", seconds]);
        module["restartPolicy"] = json!("always");
        module
    };
    let _ = agent
        .apply(&probe::deployment([("m", module("1", "2"))]))
        .ok();
    let pause = Duration::from_secs(60);
    registry.fault(
        Target::Manifest("2".to_owned()),
        Fault::Stall { after: 1, pause },
        Times::First(1),
    );
    let next = probe::deployment([("m", module("2", "1000"))]);
    let _ = agent.apply_with(&next, &["--detach"]).ok();
    let restarted = agent.wait_for("m", 20, |m| {
        m["restartCount"] == 1 && m["status"] == "running"
    });
    assert_eq!(restarted["description"], "Pulling image");
    // An update that replaces the one that is stuck need not wait for it.
    let mut other = module("1", "1000");
    other["version"] = json!("other");
    let _ = agent.apply(&probe::deployment([("m", other)])).ok();
    let replaced = agent.wait_running("m");
    assert_eq!(
        (&replaced["restartCount"], &replaced["imageId"]),
        (&json!(0), &restarted["imageId"])
    );
    without_leftovers(&device, &agent);
}

#[test]
fn only_modules_that_changed_are_touched() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1", "2"]);
    let agent = Agent::start(&device, "");
    let module = |tag| probe::module(&registry, tag, SLEEP);
    let _ = agent
        .apply(&probe::deployment([
            ("same", module("1")),
            ("new", module("1")),
        ]))
        .ok();
    let (same, old) = (agent.wait_running("same"), agent.wait_running("new"));
    let _ = agent
        .apply(&probe::deployment([
            ("same", module("1")),
            ("new", module("2")),
        ]))
        .ok();
    assert_eq!(agent.module("same"), same_but_for_time(&agent, &same));
    let new = agent.wait_running("new");
    assert_ne!(
        (&new["pid"], &new["imageId"]),
        (&old["pid"], &old["imageId"])
    );
    // An image that is wanted by nobody's change is not asked for.
    registry.clear_requests();
    let _ = agent
        .apply(&probe::deployment([
            ("same", module("1")),
            ("new", module("2")),
        ]))
        .ok();
    assert_eq!(registry.requests(), []);
    without_leftovers(&device, &agent);
}

/// The module as it was, with the description of now, which has a time in it.
fn same_but_for_time(agent: &Agent<'_>, module: &Value) -> Value {
    let mut module = module.clone();
    let now = agent.module(module["name"].as_str().unwrap_or_default());
    module["description"] = now["description"].clone();
    module
}

#[test]
fn an_invalid_deployment_changes_nothing_and_names_every_problem() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let good = probe::module(&registry, "1", SLEEP);
    let _ = agent
        .apply(&probe::deployment([("old", good.clone())]))
        .ok();
    let old = agent.wait_running("old");

    let mut policy = good.clone();
    policy["restartPolicy"] = json!("sometimes");
    policy["startupOrder"] = json!(-1);
    let mut image = good.clone();
    image["settings"]["image"] = json!("Not An Image");
    let mut options = good.clone();
    options["settings"]["createOptions"]["HostConfig"] = json!({
        "Devices": [{ "PathOnHost": "relative" }],
        "PortBindings": { "80/sctp-x": [{ "HostPort": "99999" }] },
    });
    let bad = probe::deployment([
        ("policy", policy),
        ("image", image),
        ("options", options),
        ("old", good),
    ]);
    let said = agent.apply(&bad).failed(1);
    println!("{said}");
    for text in [
        "the deployment is not valid; nothing was changed",
        "module policy: restartPolicy: ",
        "module policy: startupOrder: ",
        "module image: settings.image: ",
        "module options: settings.createOptions.HostConfig.Devices[0]",
        "module options: settings.createOptions.HostConfig.PortBindings",
    ] {
        assert!(said.contains(text), "{text:?} is not in {said}");
    }
    assert_eq!(agent.module("old")["pid"], old["pid"]);
    let list = agent.cli(&["list", "-o", "json"]).ok();
    let list: Value = serde_json::from_str(&list).expect("json");
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    without_leftovers(&device, &agent);
}

#[test]
fn a_deployment_with_a_bad_module_leaves_the_old_module_and_runs_the_others() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry_with(&device, &["1"], Options::with_basic("user", "right"));
    let agent = Agent::start(&device, "");
    let with_password = |password: &str, modules: Vec<(&str, Value)>| {
        let mut deployment = probe::deployment(modules);
        deployment["runtime"] = json!({ "type": "docker", "settings": { "registryCredentials": { "r": {
            "address": registry.addr().to_string(), "username": "user", "password": password } } } });
        deployment
    };
    let module = |tag| probe::module(&registry, tag, SLEEP);
    let _ = agent
        .apply(&with_password("right", vec![("old", module("1"))]))
        .ok();
    let old = agent.wait_running("old");

    let unknown = vec![("old", module("unknown")), ("beside", module("1"))];
    let said = agent.apply(&with_password("right", unknown)).failed(1);
    assert!(
        said.contains("the deployment was accepted and is not carried out"),
        "{said}"
    );
    assert!(said.contains("module old: pull failed: "), "{said}");
    assert!(said.contains("probe:unknown"), "{said}");
    let beside = agent.wait_running("beside");
    let failed = agent.module("old");
    assert_eq!(
        (&failed["status"], &failed["pid"]),
        (&json!("running"), &old["pid"])
    );
    assert!(
        failed["problem"]
            .as_str()
            .is_some_and(|p| p.starts_with("pull failed: ")),
        "{failed:#}"
    );

    let mut changed = module("1");
    changed["version"] = json!("2");
    let wrong = vec![("old", changed), ("beside", module("1"))];
    let said = agent.apply(&with_password("wrong", wrong)).failed(1);
    assert!(said.contains("module old: pull failed: "), "{said}");
    println!("{said}");
    assert!(!said.contains("wrong\""), "no password is shown: {said}");
    assert_eq!(agent.module("old")["pid"], old["pid"]);
    assert_eq!(agent.module("beside")["pid"], beside["pid"]);

    // The same again with the right password is tried at once.
    let mut changed = module("1");
    changed["version"] = json!("2");
    let right = vec![("old", changed), ("beside", module("1"))];
    let _ = agent.apply(&with_password("right", right)).ok();
    let new = agent.wait_running("old");
    assert_ne!(new["pid"], old["pid"]);
    assert_eq!(new["problem"], Value::Null);
    without_leftovers(&device, &agent);
}

#[test]
fn modules_start_in_their_startup_order() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let module = |order: Value| {
        let mut module = probe::module(&registry, "1", SLEEP);
        if !order.is_null() {
            module["startupOrder"] = order;
        }
        module
    };
    let modules = [
        ("a-last", Value::Null),
        ("b-third", json!(3)),
        ("c-second", json!(2)),
        ("d-first", json!(0)),
    ];
    let names: Vec<&str> = modules.iter().rev().map(|(name, _)| *name).collect();
    let _ = agent
        .apply(&probe::deployment(
            modules.map(|(name, order)| (name, module(order))),
        ))
        .ok();
    let started = |agent: &Agent<'_>| {
        let mut starts: Vec<(String, &str)> = names
            .iter()
            .map(|name| (agent.module(name)["lastStart"].to_string(), *name))
            .collect();
        starts.sort();
        starts.into_iter().map(|(_, name)| name).collect::<Vec<_>>()
    };
    assert_eq!(started(&agent), names);
    without_leftovers(&device, &agent);
}

#[test]
fn a_stopped_module_frees_its_port_for_one_that_starts() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let module = |status: &str, order: u32| {
        let ports = json!({ "PortBindings": { "7/tcp": [{ "HostPort": "7000" }] } });
        let mut module = probe::module_with(&registry, &["listen", "tcp", "7"], ports);
        module["status"] = json!(status);
        module["startupOrder"] = json!(order);
        module
    };
    let _ = agent
        .apply(&probe::deployment([
            ("a", module("stopped", 1)),
            ("b", module("running", 9)),
        ]))
        .ok();
    let b = agent.wait_running("b");
    assert_eq!(agent.module("a")["status"], "stopped");
    // The other way round: b is stopped before a, which comes first in startup order.
    let _ = agent
        .apply(&probe::deployment([
            ("a", module("running", 1)),
            ("b", module("stopped", 9)),
        ]))
        .ok();
    let a = agent.wait_running("a");
    assert_eq!(a["ports"], b["ports"]);
    // b keeps its container; only its status changed.
    let stopped = agent.module("b");
    assert_eq!(
        (&stopped["status"], &stopped["lastStart"]),
        (&json!("stopped"), &b["lastStart"])
    );
    without_leftovers(&device, &agent);
}

#[test]
fn the_deployment_file_is_applied_when_it_changes_and_ignored_where_it_is_not_valid() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let file = device.dir().join("source.json");
    let write = |text: &str| {
        let temporary = file.with_extension("new");
        std::fs::write(&temporary, text).expect("a file");
        std::fs::rename(&temporary, &file).expect("a file");
    };
    let module = || probe::module(&registry, "1", SLEEP);
    write(&probe::deployment([("first", module())]).to_string());
    let agent = Agent::start(&device, &format!("deployment = {file:?}"));
    let first = agent.wait_running("first");
    write(&probe::deployment([("first", module()), ("second", module())]).to_string());
    agent.wait_running("second");
    let read = agent.log().len();
    write(r#"{"schemaVersion":"1.1","modules":{"third":{"settings":{}}}}"#);
    agent.wait_agent_log(read, "the deployment file was refused");
    agent.wait_agent_log(read, "module third: settings.image: ");
    std::fs::remove_file(&file).expect("the file");
    agent.wait_agent_log(read, "the deployment file is gone: nothing is changed");
    assert_eq!(agent.module("first")["pid"], first["pid"]);
    assert_eq!(agent.module("second")["status"], "running");
    without_leftovers(&device, &agent);
}
