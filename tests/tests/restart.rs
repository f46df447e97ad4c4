//! What the agent keeps over its own restarts, and over those of the device.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use kobune_tests::{Agent, Device, privileged, probe};
use serde_json::{Value, json};

const SLEEP: &[&str] = &["sleep", "1000"];

fn without_leftovers(device: &Device, agent: &Agent<'_>) {
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

/// What must not change of a module that is left alone.
fn identity(module: &Value) -> Value {
    let mut kept = module.clone();
    kept.as_object_mut()
        .expect("a module")
        .remove("description");
    kept
}

/// Sends a byte to the published port.
fn greet(device: &Device) {
    device.in_network(|| {
        let mut stream = TcpStream::connect("127.0.0.1:7000").expect("the port is published");
        stream.write_all(b"x").expect("it takes a byte");
    });
}

#[test]
fn modules_outlive_the_agent_and_are_adopted_untouched() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let mut agent = Agent::start(&device, "");
    let ports = json!({ "PortBindings": { "7/tcp": [{ "HostPort": "7000" }] } });
    let echo = probe::module_with(&registry, &["listen", "tcp", "7"], ports);
    let modules = [
        ("echo", echo),
        ("sleeper", probe::module(&registry, "1", SLEEP)),
    ];
    let _ = agent.apply(&probe::deployment(modules)).ok();
    let _ = agent
        .cli(&[
            "run",
            "--name",
            "byhand",
            "--restart",
            "always",
            &registry.reference("probe", "1"),
            "sleep",
            "1000",
        ])
        .ok();
    let names = ["echo", "sleeper", "byhand"];
    let before = names.map(|name| identity(&agent.wait_running(name)));
    agent.wait_log("echo", "listening tcp");
    greet(&device);
    agent.wait_log("echo", "from ");
    registry.clear_requests();

    for ending in ["SIGTERM", "SIGKILL"] {
        if ending == "SIGTERM" {
            assert_eq!(agent.terminate(), 0);
        } else {
            agent.kill();
        }
        // Nobody supervises, and what is published goes on.
        greet(&device);
        agent.restart();
        for (name, before) in names.iter().zip(&before) {
            assert_eq!(
                identity(&agent.wait_running(name)),
                *before,
                "after {ending}"
            );
        }
        greet(&device);
    }
    // The log goes on where it was: two before, three after.
    let deadline = Instant::now() + Duration::from_secs(5);
    while agent.logs("echo").matches("from ").count() != 5 {
        assert!(Instant::now() < deadline, "{}", agent.logs("echo"));
    }
    assert_eq!(registry.requests(), []);
    without_leftovers(&device, &agent);
}

#[test]
fn modules_end_with_the_agent_where_the_configuration_says_so() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let mut agent = Agent::start(&device, "stop_modules_on_exit = true");
    let mut never = probe::module(&registry, "1", SLEEP);
    never["restartPolicy"] = json!("never");
    let _ = agent.apply(&probe::deployment([("never", never)])).ok();
    let before = agent.wait_running("never");
    assert_eq!(agent.terminate(), 0);
    let pid = before["pid"].as_i64().unwrap_or_default();
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap_or(true));
    assert_eq!(device.leftovers(), Vec::<String>::new());
    // They were stopped, they did not end: whatever their policy, they come back.
    agent.restart();
    let after = agent.wait_running("never");
    assert_eq!(after["restartCount"], 0);
    assert_ne!(after["pid"], before["pid"]);
    without_leftovers(&device, &agent);
}

#[test]
fn restart_policies_and_counts_are_kept_over_restarts_of_the_agent() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let mut agent = Agent::start(&device, "");
    let module = |code: &str, policy: &str| {
        let mut module = probe::module(&registry, "1", &["exit", code]);
        module["restartPolicy"] = json!(policy);
        module
    };
    let modules = [
        ("always", module("0", "always")),
        ("failure", module("3", "on-failure")),
        ("success", module("0", "on-failure")),
        ("never", module("3", "never")),
    ];
    let _ = agent.apply(&probe::deployment(modules)).ok();
    let ended =
        |name: &str, agent: &Agent<'_>| agent.wait_for(name, 10, |m| !m["lastExit"].is_null());
    assert_eq!(ended("success", &agent)["status"], "stopped");
    let never = ended("never", &agent);
    assert_eq!(
        (&never["status"], &never["exitCode"]),
        (&json!("failed"), &json!(3))
    );
    for name in ["always", "failure"] {
        assert_eq!(ended(name, &agent)["status"], "backoff");
    }
    // The wait goes on while no agent is there: the first restart comes ten seconds after
    // the exit, by the next agent.
    let first = agent.module("failure");
    assert_eq!(agent.terminate(), 0);
    agent.restart();
    assert_eq!(agent.module("failure")["lastExit"], first["lastExit"]);
    for name in ["always", "failure"] {
        let module = agent.wait_for(name, 15, |m| {
            m["restartCount"] == 1 && m["status"] == "backoff"
        });
        assert_ne!(module["lastExit"], first["lastExit"]);
    }
    agent.kill();
    agent.restart();
    for name in ["always", "failure"] {
        let module = agent.module(name);
        assert_eq!(
            (&module["restartCount"], &module["status"]),
            (&json!(1), &json!("backoff"))
        );
        let text = module["description"].as_str().unwrap_or_default();
        assert!(text.starts_with("backoff: restarts in "), "{text}");
    }
    assert_eq!(agent.module("never")["lastExit"], never["lastExit"]);
    without_leftovers(&device, &agent);
}

#[test]
fn a_stopped_module_stays_stopped_until_it_is_restarted() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let mut agent = Agent::start(&device, "");
    let mut module = probe::module(&registry, "1", SLEEP);
    module["restartPolicy"] = json!("always");
    let _ = agent.apply(&probe::deployment([("m", module)])).ok();
    agent.wait_running("m");
    let _ = agent.cli(&["stop", "m"]).ok();
    let stopped = agent.module("m");
    assert_eq!(stopped["status"], "stopped");
    agent.kill();
    agent.restart();
    assert_eq!(agent.module("m")["lastExit"], stopped["lastExit"]);
    reboot(&device, &mut agent, &[]);
    let held = agent.module("m");
    assert_eq!(
        (&held["status"], &held["description"]),
        (&json!("stopped"), &json!("Stopped by an operator"))
    );
    let _ = agent.cli(&["restart", "m"]).ok();
    assert_eq!(agent.module("m")["status"], "running");
    without_leftovers(&device, &agent);
}

#[test]
fn after_a_reboot_without_a_network_the_stored_deployment_runs() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let mut agent = Agent::start(&device, "");
    let ports = json!({ "PortBindings": { "7/tcp": [{ "HostPort": "7000" }] } });
    let echo = probe::module_with(&registry, &["listen", "tcp", "7"], ports);
    let never = probe::module(&registry, "1", SLEEP);
    let _ = agent
        .apply(&probe::deployment([("echo", echo), ("never", never)]))
        .ok();
    let _ = agent
        .cli(&[
            "run",
            "--name",
            "byhand",
            &registry.reference("probe", "1"),
            "sleep",
            "1000",
        ])
        .ok();
    let names = ["echo", "never", "byhand"];
    let before = names.map(|name| agent.wait_running(name));
    agent.wait_log("echo", "listening tcp");
    drop(registry);
    reboot(&device, &mut agent, &before);
    for (name, before) in names.iter().zip(&before) {
        let after = agent.wait_running(name);
        assert_ne!(after["pid"], before["pid"]);
        assert_eq!(after["restartCount"], 0);
        assert_eq!(after["problem"], Value::Null);
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while agent.logs("echo").matches("listening tcp").count() < 2 {
        assert!(Instant::now() < deadline, "{}", agent.logs("echo"));
    }
    greet(&device);
    without_leftovers(&device, &agent);
}

/// A power cycle, with the agent started at boot.
fn reboot(device: &Device, agent: &mut Agent<'_>, modules: &[Value]) {
    agent.kill();
    let pids = modules.iter().filter_map(|module| module["pid"].as_i64());
    let pids: Vec<i32> = pids.filter_map(|pid| pid.try_into().ok()).collect();
    device.power_cycle(&pids);
    agent.restart();
}
