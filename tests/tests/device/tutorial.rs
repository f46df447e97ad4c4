//! The tutorial, with a button to press.

use kobune_tests::{Device, Machine, MachineFiles, machine, tutorial};

use crate::{apply, device_files, files_for, full, move_button, wait_running};

#[test]
fn a_pressed_button_lights_the_led_through_two_modules() {
    if let Some((files, _turn)) = device_files() {
        run_tutorial(&files);
    }
}

#[test]
fn a_pressed_button_lights_the_led_on_64_bit_arm_too() {
    if !full() {
        return;
    }
    if let Some((files, _turn)) = files_for("arm64") {
        run_tutorial(&files);
    }
}

fn run_tutorial(files: &MachineFiles) {
    let lab = Device::new();
    let mut device = Machine::new(&lab, files);
    let registry = machine::registry(&lab, files, &["1.0"]);
    device.boot("");
    println!(
        "{}",
        device.run("uname -a; grep Available /proc/meminfo").stdout
    );
    let before = device.flash_written();
    apply(&mut device, &tutorial::deployment(&registry, "1.0"));
    let cold = wait_running(&mut device);
    works(&lab, &mut device);
    let written = device.flash_written() - before;
    println!("the first deployment wrote {written} bytes to flash");
    println!(
        "{}",
        device
            .run("free; ps -o pid,rss,args | grep kobun[e]")
            .stdout
    );

    // No network at the second boot, and no registry to ask.
    drop(registry);
    device.boot("kobune.network=off");
    let warm = wait_running(&mut device);
    let routes = device.run("cat /proc/net/route").ok();
    assert!(!routes.contains("eth0"), "{routes}");
    move_button(&mut device, "press", "on");
    println!(
        "both modules run {cold:.1} s after the first boot began, {warm:.1} s after the second"
    );
    let _ = device.run("network-up").ok();
    works(&lab, &mut device);
}

/// Holds what the tutorial promises, inside the device and from beside it.
fn works(lab: &Device, device: &mut Machine<'_>) {
    // By name, over the bridge, and to a real adapter.
    let button = device.wait_for("kobune logs button-acr", 60, |log| {
        log.contains("POST http://led-acr/False 200")
    });
    assert!(button.contains("Qwiic button on /dev/i2c-1"), "{button}");
    let led = device.run("kobune logs led-acr").ok();
    assert!(led.contains("Qwiic button on /dev/i2c-1"), "{led}");
    for (moved, lit) in [("press", "on"), ("release", "off"), ("press", "on")] {
        move_button(device, moved, lit);
    }
    // The published port.
    let url = format!("http://127.0.0.1:{}/True", machine::FORWARDED_PORT);
    let (code, body) = lab.http("POST", &url).expect("the published port answers");
    assert_eq!(code, 200, "{body}");
    let mounts = device
        .run("touch /etc/written; grep ' / ' /proc/mounts")
        .stdout;
    assert!(mounts.contains("Read-only file system"), "{mounts}");
}
