//! What the device's owner lets modules ask of the host.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;

use kobune_tests::{Agent, Device, privileged, probe, until};
use serde_json::{Value, json};

const POLICY: &str = r#"
[[rule]]
modules = "bus-*"
devices = ["/dev/i2c-*"]
capabilities = ["SYS_TIME"]
host_namespaces = ["network"]
"#;

#[test]
fn a_module_that_asks_for_more_than_its_rule_is_not_run_and_says_why() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let policy = device.dir().join("modules.toml");
    fs::write(&policy, POLICY).unwrap();
    let mut agent = Agent::start(&device, &format!("module_policy = {policy:?}"));
    let module = |host| probe::module_with(&registry, &["sleep", "600"], host);
    let bus = json!({
        "Devices": [{ "PathOnHost": "/dev/i2c-1" }],
        "CapAdd": ["SYS_TIME"], "NetworkMode": "host",
    });
    let said = agent.apply(&probe::deployment([
        ("bus-1", module(bus.clone())),
        ("other", module(bus)),
        ("bus-2", module(json!({ "Privileged": true }))),
        ("plain", module(json!({}))),
    ]));
    assert!(format!("{said:?}").contains("owner's policy"), "{said:?}");
    agent.wait_running("bus-1");
    agent.wait_running("plain");
    let opened = agent.cli(&["exec", "bus-1", "/probe", "open", "/dev/i2c-1", "rw"]);
    assert_eq!(opened.ok().trim(), "ENXIO");
    check_refusals(&agent);

    // A narrower policy ends what runs beyond it, at the daemon's next start.
    fs::write(&policy, POLICY.replace("\"/dev/i2c-*\"", "")).unwrap();
    assert_eq!(agent.terminate(), 0);
    agent.restart();
    until(60, "it is ended", || {
        let module = agent.module("bus-1");
        module["pid"].is_null() && module["problem"].to_string().contains("HostConfig.Devices")
    });
    agent.wait_running("plain");

    // Without a readable policy nothing is run at all.
    assert_eq!(agent.terminate(), 0);
    fs::write(&policy, "[[rule]]\nmodules = \"*\"\ndevice = []\n").unwrap();
    let daemon = agent.command(&["daemon"]).output().unwrap();
    let said = String::from_utf8_lossy(&daemon.stderr);
    assert!(!daemon.status.success(), "{said}");
    assert!(said.contains("modules.toml, line 3"), "{said}");
    fs::write(&policy, POLICY).unwrap();
    agent.restart();
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

fn check_refusals(agent: &Agent<'_>) {
    let refused = agent.module("other");
    assert_eq!(refused["status"], "failed");
    assert_eq!(refused["pid"], Value::Null);
    let problem = refused["problem"].as_str().unwrap();
    for field in ["Devices", "CapAdd", "NetworkMode"] {
        let path = format!("settings.createOptions.HostConfig.{field} asks for ");
        assert!(problem.contains(&path), "{field}: {problem}");
    }
    assert!(
        problem.contains("no rule of the owner's policy is for this module"),
        "{problem}"
    );
    let refused = agent.module("bus-2");
    let problem = refused["problem"].as_str().unwrap();
    assert!(
        problem.contains("HostConfig.Privileged asks for"),
        "{problem}"
    );
    assert!(
        problem.contains("rule \"bus-*\" of the owner's policy does not allow it"),
        "{problem}"
    );
}

#[test]
fn where_modules_are_in_user_namespaces_the_hosts_is_to_be_allowed() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let policy = device.dir().join("modules.toml");
    let rule = "[[rule]]\nmodules = \"out-*\"\nprivileged = true\nhost_namespaces = [\"user\"]\n";
    fs::write(&policy, rule).unwrap();
    let config = format!("module_policy = {policy:?}\n[userns]\nremap = true");
    let mut agent = Agent::start(&device, &config);
    let module = |host| probe::module_with(&registry, &["sleep", "600"], host);
    let _ = agent.apply(&probe::deployment([
        ("plain", module(json!({}))),
        (
            "out-1",
            module(json!({ "UsernsMode": "host", "Privileged": true })),
        ),
        ("out-2", module(json!({ "Privileged": true }))),
        ("other", module(json!({ "UsernsMode": "host" }))),
    ]));
    let first = |agent: &Agent<'_>, module: &str| {
        let map = agent.cli(&["exec", module, "/probe", "read", "/proc/self/uid_map"]);
        let numbers: Vec<String> = map.ok().split_whitespace().map(str::to_owned).collect();
        numbers[1].clone()
    };
    agent.wait_running("plain");
    agent.wait_running("out-1");
    assert_eq!(first(&agent, "plain"), "1879048192");
    assert_eq!(first(&agent, "out-1"), "0");
    for (module, reason) in [
        (
            "out-2",
            "HostConfig.Privileged cannot be met in a user namespace, which this device puts \
             modules into (userns.remap): HostConfig.UsernsMode must be host",
        ),
        (
            "other",
            "HostConfig.UsernsMode asks for the host's namespace",
        ),
    ] {
        let problem = agent.module(module)["problem"].to_string();
        assert!(problem.contains(reason), "{problem}");
    }
    // An agent that was killed finds the module as it was, and its ids after a restart of it.
    agent.kill();
    agent.restart();
    agent.wait_running("plain");
    let _ = agent.cli(&["restart", "plain"]).ok();
    agent.wait_running("plain");
    assert_eq!(first(&agent, "plain"), "1879048192");
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}
