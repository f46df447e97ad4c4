//! The whole agent on an emulated Arm machine: another processor, another kernel, cgroup v2,
//! 128 MB, and a Qwiic Button that answers on `/dev/i2c-1`.

mod confinement;
mod constraints;
mod power;
mod tutorial;

use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use kobune_tests::{Machine, MachineFiles, cross_built, privileged};
use serde_json::Value;

/// One device at a time: emulation takes all of a processor.
static TURN: Mutex<()> = Mutex::new(());

/// Files to boot from, and the right to; nothing where the machine cannot emulate.
///
/// # Panics
/// Where QEMU is there and the files cannot be made, and where CI has no QEMU.
fn device_files() -> Option<(MachineFiles, MutexGuard<'static, ()>)> {
    static FILES: OnceLock<Option<MachineFiles>> = OnceLock::new();
    if !cross_built() || !privileged() {
        return None;
    }
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let files = FILES.get_or_init(|| match MachineFiles::prepared("armv7") {
        Ok(files) => Some(files),
        Err(error) => {
            let has_qemu = Path::new("/usr/bin/qemu-system-arm").exists();
            assert!(!has_qemu, "the device's files: {error}");
            assert!(std::env::var_os("CI").is_none(), "CI needs QEMU: {error}");
            let line = "\n*** SKIPPED: no QEMU, nothing was tested on Arm ***\n";
            let _ = writeln!(std::io::stderr(), "{line}{error}");
            None
        }
    });
    files.clone().map(|files| (files, turn))
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
