//! The whole agent on an emulated Arm machine: another processor, another kernel, cgroup v2,
//! 128 MB, and a Qwiic Button that answers on `/dev/i2c-1`; and what modules meet on cgroup v2,
//! in a guest with this machine's own files.

mod cgroup_v2;
mod confinement;
mod constraints;
mod debian;
mod images;
mod init;
mod network;
mod power;
mod storage;
mod tutorial;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kobune_fixtures::{Content, Options, Registry, module_image};
use kobune_tests::{Device, Machine, MachineFiles, System, cross_built, full, machine, privileged};
use serde_json::Value;

/// How long the tests may take together, beside what is built for them.
const TIME_BOX: Duration = Duration::from_secs(20 * 60);
/// The same with `KOBUNE_FULL`.
const FULL_TIME_BOX: Duration = Duration::from_secs(4 * 60 * 60);

/// What the tests have in common. As many run at a time as there are processors, of which
/// each device's emulation takes one.
struct Shared {
    /// Files of a processor and a system; `None` where there is no QEMU for them.
    files: BTreeMap<(&'static str, System), Option<MachineFiles>>,
    /// When the time is over; set when the first device has its files.
    end: Option<Instant>,
}

static SHARED: Mutex<Shared> = Mutex::new(Shared {
    files: BTreeMap::new(),
    end: None,
});

/// What a test boots, and when all must be over.
struct Turn {
    files: MachineFiles,
    end: Instant,
}

impl Turn {
    /// A device with an empty data partition beside `lab`, switched off.
    fn machine<'d>(&self, lab: &'d Device) -> Machine<'d> {
        Machine::new(lab, &self.files, self.end)
    }

    /// A registry that the device reaches, with the probe as `probe:1`.
    fn probe_registry(&self, lab: &Device) -> Registry {
        let program = std::fs::read(self.files.program("probe")).expect("the probe");
        let mut content = Content::new();
        let image = module_image(self.files.platform(), "probe", &program, &[]);
        content.add_image("probe", "1", &image);
        machine::serve(lab, content, Options::default())
    }
}

/// A turn with an armv7 device; `None` where the machine cannot emulate one.
fn turn() -> Option<Turn> {
    turn_of("armv7", System::Minimal)
}

/// A turn with a device of the processor `arch` and with `system`; `None` where the machine
/// cannot emulate it.
///
/// # Panics
/// Where QEMU is there and the files cannot be made.
fn turn_of(arch: &'static str, system: System) -> Option<Turn> {
    if !cross_built() || !privileged() {
        return None;
    }
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let files = shared.files.entry((arch, system));
    let files = files.or_insert_with(|| prepare(arch, system));
    let files = files.clone()?;
    let time = if full() { FULL_TIME_BOX } else { TIME_BOX };
    let end = *shared.end.get_or_insert_with(|| Instant::now() + time);
    Some(Turn { files, end })
}

/// Says that a test is left out, and why, where only `KOBUNE_FULL` has it run.
fn leave_out(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: KOBUNE_FULL=1 runs it: {why}");
}

fn prepare(arch: &str, system: System) -> Option<MachineFiles> {
    match MachineFiles::prepared(arch, system) {
        Ok(files) => Some(files),
        Err(error) => {
            let has_qemu = Path::new("/usr/bin/qemu-system-arm").exists();
            assert!(!has_qemu, "the device's files: {error}");
            let line = "\n*** SKIPPED: no QEMU, nothing was tested on Arm ***\n";
            let _ = writeln!(std::io::stderr(), "{line}{error}");
            None
        }
    }
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

/// The [`identity`] of both of the tutorial's modules.
#[track_caller]
fn identities(device: &mut Machine<'_>) -> [Value; 2] {
    ["button-acr", "led-acr"].map(|module| identity(device, module))
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

/// Waits until the tutorial's modules run.
#[track_caller]
fn wait_running(machine: &mut Machine<'_>) {
    machine.wait_for("kobune list -o json", 90, |list| {
        let modules: Vec<Value> = serde_json::from_str(list).unwrap_or_default();
        let running = modules
            .iter()
            .filter(|module| module["status"] == "running");
        running.count() == 2
    });
}
