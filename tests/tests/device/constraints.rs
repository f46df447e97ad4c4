//! Half the memory, a wrong clock, and an agent that is replaced under running modules.

use kobune_tests::{Device, Machine, machine, tutorial};

use crate::{Turn, apply, identities, identity, move_button, turn, wait_running};

/// A device with the tutorial on it, after `set_up`.
fn with_tutorial(
    turn: &Turn,
    set_up: impl FnOnce(&mut Machine<'_>),
    test: impl FnOnce(&mut Machine<'_>),
) {
    let lab = Device::new();
    let mut device = turn.machine(&lab);
    let registry = machine::registry(&lab, &turn.files, &["1.0"]);
    set_up(&mut device);
    device.boot("");
    apply(&mut device, &tutorial::deployment(&registry, "1.0"));
    wait_running(&mut device);
    move_button(&mut device, "press", "on");
    move_button(&mut device, "release", "off");
    test(&mut device);
}

#[test]
fn the_tutorial_fits_in_64_mb() {
    let Some(turn) = turn() else {
        return;
    };
    with_tutorial(
        &turn,
        |device| device.set_memory(64),
        |device| {
            let memory = device.run("head -n 3 /proc/meminfo").ok();
            let killed = device.run("dmesg | grep -i 'killed process'").stdout;
            assert_eq!(killed, "", "{memory}");
        },
    );
}

#[test]
fn modules_run_with_the_clock_in_1970_and_its_jump_to_today_restarts_none() {
    let Some(turn) = turn() else {
        return;
    };
    with_tutorial(
        &turn,
        |device| device.set_clock("1970-01-02T00:00:00"),
        |device| {
            assert_eq!(device.run("date +%Y").ok().trim(), "1970");
            let before = identities(device);
            let _ = device.run("date -s '2030-01-01 12:00:00'").ok();
            move_button(device, "press", "on");
            assert_eq!(identities(device), before);
            // What ends after the jump is started again, as ever.
            let _ = device.run("kill -9 $(pidof led)").ok();
            move_button(device, "release", "off");
        },
    );
}

#[test]
fn an_agent_that_is_replaced_adopts_modules_that_worked_on_without_it() {
    let Some(turn) = turn() else {
        return;
    };
    with_tutorial(
        &turn,
        |_| {},
        |device| {
            let before = identities(device);
            let _ = device
                .run("mkdir /run/next && cp /usr/bin/kobune* /run/next/")
                .ok();
            let _ = device.run("kill $(pidof kobune)").ok();
            device.wait_for("pidof kobune || echo none", 60, |pids| pids == "none\n");
            // Nobody supervises, and the modules work.
            move_button(device, "press", "on");
            let next = "/run/next/kobune daemon > /run/kobune.log 2>&1 &";
            let _ = device.run(next).ok();
            device.wait_for("kobune list > /dev/null && echo up", 60, |said| {
                said.ends_with("up\n")
            });
            let program = device.run("readlink /proc/$(pidof kobune)/exe").ok();
            assert_eq!(program.trim(), "/run/next/kobune");
            assert_eq!(identities(device), before);
            move_button(device, "release", "off");
            // It is in charge of them.
            let _ = device.run("kobune restart led-acr").ok();
            move_button(device, "press", "on");
            assert_ne!(identity(device, "led-acr"), before[1]);
        },
    );
}
