//! Health checks of images and deployments, and the restarts that they cause.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::Duration;

use kobune_fixtures::{Content, Options, Registry};
use kobune_tests::{Agent, Device, privileged, probe};
use serde_json::{Value, json};

/// Healthy for as long as the file is there.
const LOOK: &str = "test -e /tmp/well || { echo not well; exit 1; }";

/// A module that is well from its start on, with busybox as `/bin/sh`; `check` is its
/// `Healthcheck`.
fn module(image: &str, policy: &str, check: &Value) -> Value {
    let script = "busybox mkdir -p /tmp; echo > /tmp/well; busybox sleep 600";
    json!({ "restartPolicy": policy, "settings": { "image": image, "createOptions": {
        "Entrypoint": ["/bin/sh", "-c", script],
        "Env": ["PATH=/bin"],
        "Healthcheck": check,
        "HostConfig": {
            "Binds": ["/bin/busybox:/bin/sh:ro", "/bin/busybox:/bin/busybox:ro"],
        },
    }}})
}

/// A registry with an image whose own check is `LOOK`, several times a second.
fn registry(device: &Device) -> Registry {
    let image = probe::image("1").edit_config(|config| {
        config["config"]["Healthcheck"] = json!({
            "Test": ["CMD-SHELL", LOOK], "Interval": 200_000_000_u64, "Retries": 2,
        });
    });
    let mut content = Content::new();
    content.add_image("probe", "1", &image);
    let start = || Registry::start(content, Options::default());
    device.in_network(start).unwrap()
}

/// Runs `test` with an agent that runs modules of that image, each with its restart policy
/// and its own `Healthcheck`.
fn with_modules(modules: &[(&str, &str, Value)], test: impl FnOnce(&mut Agent<'_>)) {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = registry(&device);
    let image = registry.reference("probe", "1");
    let mut agent = Agent::start(&device, "");
    let modules = modules.iter();
    let modules = modules.map(|(name, policy, check)| (*name, module(&image, policy, check)));
    let _ = agent.apply(&probe::deployment(modules)).ok();
    test(&mut agent);
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

fn is_healthy(module: &Value) -> bool {
    module["health"] == "healthy" && module["status"] == "running"
}

fn is_unhealthy(module: &Value) -> bool {
    module["health"] == "unhealthy" && module["status"] == "unhealthy"
}

#[test]
fn checks_of_image_and_options_decide_the_status() {
    let slow = json!({ "Test": ["CMD", "busybox", "sleep", "60"],
        "Timeout": 200_000_000_u64, "Retries": 1 });
    let absent = json!({ "Test": ["CMD", "nothing"], "Retries": 1 });
    let modules = [
        ("image", "never", Value::Null),
        ("none", "always", json!({ "Test": ["NONE"] })),
        ("slow", "never", slow),
        ("absent", "never", absent),
    ];
    with_modules(&modules, |agent| {
        let image = agent.wait_for("image", 30, is_healthy);
        assert!(
            image["description"]
                .as_str()
                .unwrap()
                .ends_with("(healthy)")
        );
        let none = agent.wait_running("none");
        assert_eq!(none["health"], Value::Null);
        for (name, said) in [
            ("slow", "no result within 200ms"),
            ("absent", "no such file in PATH"),
        ] {
            let unhealthy = agent.wait_for(name, 30, is_unhealthy);
            let output = unhealthy["healthOutput"].as_str().unwrap();
            assert!(output.contains(said), "{output}");
        }
        let _ = agent
            .cli(&["exec", "image", "busybox", "rm", "/tmp/well"])
            .ok();
        let image = agent.wait_for("image", 30, is_unhealthy);
        assert_eq!(image["healthOutput"], "not well");
        let list = agent.cli(&["list"]).ok();
        let row = list.lines().find(|line| line.starts_with("image"));
        assert!(row.unwrap().contains("(unhealthy)"), "{list}");
        // Another agent checks on; one success is enough.
        agent.kill();
        agent.restart();
        let _ = agent
            .cli(&["exec", "image", "sh", "-c", "echo > /tmp/well"])
            .ok();
        agent.wait_for("image", 30, is_healthy);
    });
}

#[test]
fn on_unhealthy_starts_an_unhealthy_module_anew_and_on_failure_does_not() {
    // Retries of the options, the rest of the image.
    let check = json!({ "Retries": 1 });
    let modules = [
        ("again", "on-unhealthy", check.clone()),
        ("kept", "on-failure", check),
    ];
    with_modules(&modules, |agent| {
        let pids = ["again", "kept"].map(|name| {
            let pid = agent.wait_for(name, 30, is_healthy)["pid"].clone();
            let _ = agent
                .cli(&["exec", name, "busybox", "rm", "/tmp/well"])
                .ok();
            pid
        });
        let kept = agent.wait_for("kept", 30, is_unhealthy);
        // After IoT Edge's first wait of 10 seconds.
        let again = agent.wait_for("again", 60, |module| {
            module["restartCount"] == 1 && is_healthy(module)
        });
        assert_ne!(again["pid"], pids[0]);
        assert_eq!((&kept["pid"], &kept["restartCount"]), (&pids[1], &json!(0)));
        assert!(is_unhealthy(&agent.module("kept")));
    });
}

#[test]
fn failures_in_the_start_period_do_not_count_and_checks_come_often_in_it() {
    const HOUR: u64 = 3_600_000_000_000;
    let check = json!({ "Test": ["CMD-SHELL", "test -e /tmp/now || { echo not yet; exit 1; }"],
        "Interval": HOUR, "StartPeriod": HOUR, "StartInterval": 200_000_000_u64, "Retries": 1 });
    with_modules(&[("m", "never", check)], |agent| {
        agent.wait_for("m", 30, |module| module["healthOutput"] == "not yet");
        // Several more, one of which would be too much later.
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(agent.module("m")["health"], "starting");
        let _ = agent
            .cli(&["exec", "m", "sh", "-c", "echo > /tmp/now"])
            .ok();
        agent.wait_for("m", 30, is_healthy);
    });
}
