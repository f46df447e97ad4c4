//! The tutorial, with a button to press.

use kobune_tests::{Device, full, machine, tutorial};

use crate::{Turn, apply, move_button, turn, turn_of, wait_running};

#[test]
fn a_pressed_button_lights_the_led_through_two_modules() {
    if let Some(turn) = turn() {
        run(&turn);
    }
}

#[test]
fn on_arm64_too() {
    if !full() {
        return;
    }
    if let Some(turn) = turn_of("arm64") {
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
