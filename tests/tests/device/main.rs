//! The whole agent on an emulated Arm machine: another processor, another kernel, cgroup v2,
//! 128 MB, and a Qwiic Button that answers on `/dev/i2c-1`.

mod confinement;
mod constraints;
mod power;
mod tutorial;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kobune_tests::{Machine, MachineFiles, cross_built, privileged};
use serde_json::Value;

/// One device at a time: emulation takes all of a processor.
static TURN: Mutex<()> = Mutex::new(());

/// Files of the 32-bit device to boot from, and the right to: see [`files_for`].
fn device_files() -> Option<(MachineFiles, MutexGuard<'static, ()>)> {
    files_for("armv7")
}

/// Files to boot from, and the right to; nothing where QEMU could not be installed.
///
/// # Panics
/// Where QEMU is there and the files cannot be made.
fn files_for(arch: &str) -> Option<(MachineFiles, MutexGuard<'static, ()>)> {
    static MADE: Mutex<BTreeMap<String, MachineFiles>> = Mutex::new(BTreeMap::new());
    if !cross_built() || !privileged() {
        return None;
    }
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if !Path::new("/usr/bin/qemu-system-arm").exists() {
        // Past the test harness, which keeps what a passed test prints.
        let line = "\n*** SKIPPED: no QEMU here, NOTHING WAS TESTED ON ARM ***\n\n";
        let _ = writeln!(std::io::stderr(), "{line}");
        return None;
    }
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let files = made.entry(arch.to_owned()).or_insert_with(|| {
        MachineFiles::prepared(arch).unwrap_or_else(|error| panic!("the device's files: {error}"))
    });
    Some((files.clone(), turn))
}

/// Whether the long variants were asked for.
fn full() -> bool {
    std::env::var_os("KOBUNE_FULL").is_some()
}

/// Moves the button and waits until the LED follows.
#[track_caller]
fn move_button(device: &mut Machine<'_>, moved: &str, lit: &str) {
    let _ = device.run(&format!("echo {moved} > /run/button")).ok();
    device.wait_for("cat /run/led", 60, |led| led.trim() == lit);
}

/// What is the same of a module as long as nobody touches it: process and start.
#[track_caller]
fn identity(device: &mut Machine<'_>, module: &str) -> Value {
    let inspected = device.run(&format!("kobune inspect {module} -o json")).ok();
    let mut inspected: Value = serde_json::from_str(&inspected).expect("JSON");
    let fields = inspected.as_object_mut().expect("a module");
    fields.remove("description");
    inspected
}

/// Brings the deployment in `manifest` about.
#[track_caller]
fn apply(machine: &mut Machine<'_>, manifest: &Value) {
    machine.write("/tmp/deployment.json", &manifest.to_string());
    let applied = machine.run("kobune apply /tmp/deployment.json");
    if applied.code != 0 {
        let log = machine
            .run("kobune list; tail -n 40 /run/kobune.log")
            .stdout;
        panic!("{}\n{log}\n{}", applied.stdout, machine.console());
    }
}

/// Waits until the tutorial's modules run; the device's own time then, in seconds since its
/// boot.
#[track_caller]
fn wait_running(machine: &mut Machine<'_>) -> f64 {
    let line = "cat /proc/uptime; kobune list -o json";
    let output = machine.wait_for(line, 90, |output| {
        let list = output.split_once('\n').map_or("", |(_, list)| list);
        let modules: Vec<Value> = serde_json::from_str(list).unwrap_or_default();
        let running = modules
            .iter()
            .filter(|module| module["status"] == "running");
        running.count() == 2
    });
    let uptime = output.split(' ').next().and_then(|text| text.parse().ok());
    uptime.expect("the uptime")
}
