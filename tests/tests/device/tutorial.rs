//! The tutorial, with a button to press.

use kobune_tests::{Device, Machine, machine, tutorial};

use crate::{apply, device_files, wait_running};

#[test]
fn a_pressed_button_lights_the_led_through_two_modules() {
    let Some((files, _turn)) = device_files() else {
        return;
    };
    let lab = Device::new();
    let mut device = Machine::new(&lab, &files);
    let registry = machine::registry(&lab, &files, &["1.0"]);
    device.boot("");
    println!(
        "{}",
        device.run("uname -a; grep Available /proc/meminfo").stdout
    );
    apply(&mut device, &tutorial::deployment(&registry, "1.0"));
    let cold = wait_running(&mut device);

    // By name, over the bridge, and to a real adapter.
    let button = device.wait_for("kobune logs button-acr", 30, |log| {
        log.contains("POST http://led-acr/False 200")
    });
    assert!(button.contains("Qwiic button on /dev/i2c-1"), "{button}");
    let led = device.run("kobune logs led-acr").ok();
    assert!(led.contains("Qwiic button on /dev/i2c-1"), "{led}");
    for (moved, lit) in [("press", "on\n"), ("release", "off\n"), ("press", "on\n")] {
        let _ = device.run(&format!("echo {moved} > /run/button")).ok();
        device.wait_for("cat /run/led", 10, |led| led == lit);
    }

    // The published port, from beside the device.
    let url = format!("http://127.0.0.1:{}/True", machine::FORWARDED_PORT);
    let (code, body) = lab.http("POST", &url).expect("the published port answers");
    assert_eq!(code, 200, "{body}");
    println!(
        "{}",
        device
            .run("free; ps -o pid,rss,args | grep kobun[e]")
            .stdout
    );
    println!("{}", device.run("kobune list").ok());
    let _ = device.run("sync").ok();

    // No registry at the second boot, and none is asked.
    drop(registry);
    device.boot("");
    let warm = wait_running(&mut device);
    let _ = device.run("echo press > /run/button").ok();
    device.wait_for("cat /run/led", 15, |led| led == "on\n");
    println!(
        "both modules run {cold:.1} s after the first boot began, {warm:.1} s after the second"
    );
}
