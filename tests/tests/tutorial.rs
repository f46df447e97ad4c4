//! The tutorial, from its deployment file to two running modules.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use kobune_tests::{Agent, Device, privileged, tutorial};
use nix::sys::stat::makedev;
use serde_json::json;

/// The LED's and the button's device, `/dev/i2c-1`.
const I2C_1: (u64, u64) = (89, 1);

#[test]
fn the_tutorial_runs_from_a_private_registry() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = tutorial::registry(&device, &["1.0"]);
    let agent = Agent::start(&device, "");
    let applied = agent.apply(&tutorial::deployment(&registry, "1.0"));
    assert_eq!(applied.ok(), "deployment applied, modules: 2\n");
    let pulls = registry.take_requests();
    assert!(
        pulls.iter().any(|request| request.status == 401),
        "the registry is private: {pulls:?}"
    );

    for name in ["button-acr", "led-acr"] {
        let module = agent.wait_running(name);
        assert_eq!(module["restartCount"], 0);
        assert_eq!(module["restartPolicy"], "always");
        assert_eq!(module["warnings"], json!([]));
        let node = fs::metadata(format!("/proc/{}/root/dev/i2c-1", module["pid"]));
        let node = node.expect("the module has the device");
        assert!(node.file_type().is_char_device());
        assert_eq!(node.rdev(), makedev(I2C_1.0, I2C_1.1));
    }
    // The button finds the LED by its name.
    agent.wait_log("button-acr", "POST http://led-acr/False 200");
    agent.wait_log("led-acr", "POST /False 200 LED off");
    // And so does everybody on the device, by the published port.
    let answer = device.http("POST", "http://127.0.0.1/True").expect("200");
    assert_eq!(answer.0, 200);
    agent.wait_log("led-acr", "POST /True 200 LED on");
    assert_eq!(
        agent.module("led-acr")["ports"],
        json!(["0.0.0.0:80->80/tcp"])
    );

    let list = agent.cli(&["list"]).ok();
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 3, "{list}");
    assert!(
        lines[1].starts_with("button-acr     running        Up "),
        "{list}"
    );
    assert!(lines[2].ends_with("/led-acr:1.0"), "{list}");

    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

#[test]
fn a_module_that_ends_is_restarted_and_found_again() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = tutorial::registry(&device, &["1.0"]);
    let agent = Agent::start(&device, "");
    let _ = agent.apply(&tutorial::deployment(&registry, "1.0")).ok();
    let before = agent.wait_running("led-acr");
    let pid = before["pid"].as_i64().expect("a pid");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).expect("it runs");

    let waiting = agent.wait_for("led-acr", 5, |module| module["status"] == "backoff");
    assert_eq!(waiting["exitCode"], 137);
    let text = waiting["description"].as_str().unwrap_or_default();
    assert!(text.starts_with("backoff: restarts in "), "{text}");
    let after = agent.wait_running("led-acr");
    assert_eq!(after["restartCount"], 1);
    assert_ne!(after["pid"], before["pid"]);
    assert_eq!(after["address"], before["address"]);
    let (code, _) = device.http("GET", "http://127.0.0.1/").expect("an answer");
    assert_eq!(code, 200);

    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}
