//! The tutorial on the virtual device: `cargo xtask demo --device`.

use std::time::{Duration, Instant};

use kobune_tests::{Device, Machine, machine, tutorial};

use super::Model;
use crate::setup;

/// Name of the device at its hub.
const DEVICE: &str = "tutorial-device";
/// How long the hub may wait for the device's report, in seconds.
const REPORTED: u64 = 600;

/// Boots a device, enrols it at a hub, deploys the tutorial to it from there, presses the button
/// and looks at the LED.
pub(crate) fn run(model: Model) -> Result<(), String> {
    setup::install(setup::DEMO)?;
    say("building the agent, the tutorial's modules and the device");
    let files = model.prepare()?;

    say("a private registry and a device beside it: 128 MB, no docker, a Qwiic Button");
    let lab = Device::new();
    let mut device = Machine::new(&lab, &files, Instant::now() + super::PATIENCE);
    let registry = machine::registry(&lab, &files, &["1.0"]);
    device.boot("");
    show(
        &mut device,
        "uname -a; grep Mem /proc/meminfo; ls -l /dev/i2c-1",
    )?;

    say("kobune-hub beside it; the device is enrolled with a connection string");
    let hub = machine::hub(&lab);
    device.enrol(&hub, DEVICE);
    say("setting the modules in the hub");
    hub.set_modules(DEVICE, &tutorial::deployment(&registry, "1.0"));
    let twin = hub.wait_in_sync(DEVICE, REPORTED);
    let reported = &twin["properties"]["reported"];
    println!("lastDesiredStatus {}", reported["lastDesiredStatus"]);
    for name in ["button-acr", "led-acr"] {
        println!("{name} {}", reported["modules"][name]["runtimeStatus"]);
    }
    show(&mut device, "kobune list")?;

    say("pressing the button");
    let pressed = Instant::now();
    move_button(&mut device, "press", "on")?;
    println!(
        "the LED is on after {:.1} s",
        pressed.elapsed().as_secs_f32()
    );
    move_button(&mut device, "release", "off")?;
    println!("the button is released and the LED off");
    show(
        &mut device,
        "kobune logs button-acr --tail 3; kobune logs led-acr --tail 4",
    )?;
    show(
        &mut device,
        "grep Mem /proc/meminfo; ps -o rss,args | grep kobun[e]; sync",
    )?;

    say("the power goes, registry and hub too; the device boots again");
    drop((registry, hub));
    let off = Instant::now();
    device.boot("");
    move_button(&mut device, "press", "on")?;
    println!(
        "the LED follows the button again after {:.1} s",
        off.elapsed().as_secs_f32()
    );
    show(&mut device, "kobune list")
}

/// Moves the button and waits until the LED follows.
fn move_button(device: &mut Machine<'_>, moved: &str, led: &str) -> Result<(), String> {
    let line = format!("echo {moved} > /run/button");
    let deadline = Instant::now() + Duration::from_secs(60);
    check(device, &line)?;
    while device.run("cat /run/led").stdout.trim() != led {
        if Instant::now() > deadline {
            return Err(format!("the LED is not {led} after {moved}"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn show(device: &mut Machine<'_>, line: &str) -> Result<(), String> {
    say(line);
    println!("{}", check(device, line)?.trim_end());
    Ok(())
}

/// The output of a line of shell that must not fail.
fn check(device: &mut Machine<'_>, line: &str) -> Result<String, String> {
    let output = device.run(line);
    match output.code {
        0 => Ok(output.stdout),
        code => Err(format!("{line}: exit code {code}: {}", output.stdout)),
    }
}

fn say(text: &str) {
    println!("\n\x1b[1m{text}\x1b[0m");
}
