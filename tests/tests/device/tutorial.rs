//! The tutorial, with a button to press.

use kobune_tests::{Device, System, full, machine, tutorial};
use serde_json::{Value, json};

use crate::{Turn, apply, leave_out, move_button, turn, turn_of, wait_running};

/// How long the hub may wait for the device to report a deployment carried out, in seconds.
const REPORTED: u64 = 600;

#[test]
fn a_pressed_button_lights_the_led_through_two_modules() {
    if let Some(turn) = turn() {
        run(&turn);
    }
}

#[test]
fn on_arm64_too() {
    if !full() {
        leave_out("its programs are built for minutes");
        return;
    }
    if let Some(turn) = turn_of("arm64", System::Minimal) {
        run(&turn);
    }
}

fn run(turn: &Turn) {
    let lab = Device::new();
    let mut device = turn.machine(&lab);
    let registry = machine::registry(&lab, &turn.files, &["1.0"]);
    device.boot("");
    apply(&mut device, &tutorial::deployment(&registry, "1.0"));
    wait_running(&mut device);

    // By name, over the bridge, and to a real adapter.
    let button = device.wait_for("kobune logs button-acr", 30, |log| {
        log.contains("POST http://led-acr/False 200")
    });
    assert!(button.contains("Qwiic button on /dev/i2c-1"), "{button}");
    let led = device.run("kobune logs led-acr").ok();
    assert!(led.contains("Qwiic button on /dev/i2c-1"), "{led}");
    for (moved, lit) in [("press", "on"), ("release", "off"), ("press", "on")] {
        move_button(&mut device, moved, lit);
    }

    // The published port, from beside the device; the kernel forwards it.
    let url = format!("http://127.0.0.1:{}/True", machine::FORWARDED_PORT);
    let (code, body) = lab.http("POST", &url).expect("the published port answers");
    assert_eq!(code, 200, "{body}");
    let loaded = device.run("cat /proc/modules; ps -o args").ok();
    assert!(loaded.contains("nft_nat "), "{loaded}");
    assert!(!loaded.contains("kobune-shim forward"), "{loaded}");
    let _ = device.run("sync").ok();

    // No registry at the second boot, and none is asked.
    drop(registry);
    device.boot("");
    wait_running(&mut device);
    move_button(&mut device, "press", "on");
}

#[test]
fn a_hub_enrols_and_drives_the_device() {
    let Some(turn) = turn() else {
        return;
    };
    let lab = Device::new();
    let mut device = turn.machine(&lab);
    let registry = machine::registry(&lab, &turn.files, &["1.0"]);
    let hub = machine::hub(&lab);
    let id = "virtual-device";
    device.boot("");
    device.enrol(&hub, id);
    hub.set_modules(id, &tutorial::deployment(&registry, "1.0"));
    let twin = hub.wait_in_sync(id, REPORTED);
    let modules = &twin["properties"]["reported"]["modules"];
    for module in ["button-acr", "led-acr"] {
        assert_eq!(modules[module]["runtimeStatus"], "running", "{twin}");
    }
    move_button(&mut device, "press", "on");

    let request = json!({"schemaVersion": "1.0", "encoding": "none", "contentType": "text",
        "items": [{"id": "led-acr", "filter": {}}]});
    let (status, logs) = hub.call(id, "GetModuleLogs", &request);
    let said = logs[0]["payload"].as_str().unwrap_or_default();
    assert!(status == 200 && said.contains("Qwiic button"), "{logs}");
    let _ = device.run("sync").ok();

    // Enrolled is enrolled, also after the power was away.
    device.boot("");
    hub.set_modules(id, &tutorial::set_modules(&json!({})));
    let twin = hub.wait_in_sync(id, REPORTED);
    let modules = &twin["properties"]["reported"]["modules"];
    assert!(modules.get("led-acr").is_none_or(Value::is_null), "{twin}");
    device.wait_for("kobune list -o json", 60, |list| !list.contains("led-acr"));
}
