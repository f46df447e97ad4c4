//! The init script where BusyBox is all there is.

use std::fs;

use kobune_tests::{Device, Machine};

use crate::{identity, turn};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/init/kobune");

/// Pid of the agent; 0 where there is none.
fn agent(device: &mut Machine<'_>) -> i64 {
    let said = device.run("pidof kobune").stdout;
    said.trim().parse().unwrap_or_default()
}

fn wait_for_answer(device: &mut Machine<'_>) {
    device.wait_for("kobune list || echo none", 60, |said| {
        !said.contains("none")
    });
}

#[test]
fn on_busybox_the_script_starts_the_agent_keeps_it_alive_and_stops_it() {
    let Some(turn) = turn() else {
        return;
    };
    let lab = Device::new();
    let mut device = turn.machine(&lab);
    let registry = turn.probe_registry(&lab);
    device.boot("kobune.agent=off");
    device.write(
        "/run/S70kobune",
        &fs::read_to_string(SCRIPT).expect("the script"),
    );
    let _ = device.run("chmod 755 /run/S70kobune").ok();
    assert_eq!(device.run("/run/S70kobune status").code, 3);

    assert!(device.run("/run/S70kobune start").ok().ends_with("OK\n"));
    wait_for_answer(&mut device);
    let again = device.run("/run/S70kobune start").ok();
    assert!(again.ends_with("already running\n"), "{again}");
    let image = registry.reference("probe", "1");
    let run = format!("kobune run --name m --restart always {image} sleep 3600");
    let _ = device.run(&run).ok();
    let module = identity(&mut device, "m");

    // Killed, it comes back and finds the module as it was.
    let first = agent(&mut device);
    let _ = device.run(&format!("kill -9 {first}")).ok();
    device.wait_for("pidof kobune", 60, |pid| {
        pid.trim().parse().is_ok_and(|pid: i64| pid != first)
    });
    wait_for_answer(&mut device);
    assert!(device.run("/run/S70kobune restart").ok().ends_with("OK\n"));
    wait_for_answer(&mut device);
    assert_eq!(identity(&mut device, "m"), module, "the module");
    assert!(device.run("/run/S70kobune stop").ok().ends_with("OK\n"));
    assert_eq!(agent(&mut device), 0);
    assert_eq!(device.run("/run/S70kobune status").code, 3);
    let _ = device.run("pidof kobune-monitor").ok();
}
