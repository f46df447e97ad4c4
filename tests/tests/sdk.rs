//! Microsoft's own device, module and service clients against kobune-hub, in a network of
//! its own where the ports that they insist on are free.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kobune_tests::{Device, Programs, packages};

/// The service's client needs `six` and does not say so.
const PACKAGES: [&str; 3] = [
    "azure-iot-device==2.14.0",
    "azure-iot-hub==2.7.0",
    "six==1.17.0",
];

#[test]
fn sdks_work_against_the_hub_as_they_are() {
    let Some(python) = prepared() else { return };
    let device = Device::new();
    let state = device.dir().join("hub");
    let hub = Hub::start(&device, &state);
    let connection_string = state.join("service.connection-string");
    let connection_string = std::fs::read_to_string(connection_string).unwrap();
    let ca = state.join("ca.pem");
    let mut tests = device.command(python);
    tests
        .args([
            "-W",
            "ignore",
            "-m",
            "unittest",
            "test_clients",
            "test_service",
        ])
        .env("PYTHONPATH", suite())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HUB_CONNECTION_STRING", connection_string.trim())
        .env("HUB_CA", &ca)
        .env("REQUESTS_CA_BUNDLE", &ca);
    must_succeed(&mut tests);
    println!("memory of the hub after the suite: {} KiB", hub.resident());
}

#[test]
fn a_killed_hub_has_nothing_half_done() {
    let Some(python) = prepared() else { return };
    let device = Device::new();
    let mut tests = device.command(python);
    tests
        .args(["-W", "ignore", "-m", "unittest", "crash"])
        .env("PYTHONPATH", suite())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HUB_PROGRAM", hub_program())
        .env("HUB_STATE", device.dir().join("hub"));
    must_succeed(&mut tests);
}

#[test]
fn the_command_line_enrols_devices() {
    if !kobune_tests::privileged() {
        return;
    }
    let device = Device::new();
    let state = device.dir().join("hub");
    let hub = Hub::start(&device, &state);
    let said = hub.greeting.join("\n");
    assert!(
        !said.contains("SharedAccessKey="),
        "it may be a log: {said}"
    );
    assert!(said.contains("service.connection-string"), "{said}");
    let run = |args: &[&str]| {
        let mut command = device.command(hub_program());
        let output = command.args(args).arg("--state").arg(&state).output();
        let output = output.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    };
    let (made, string) = run(&["device", "create", "pump-1", "--edge"]);
    assert!(made, "{string}");
    assert!(string.starts_with("HostName=localhost;DeviceId=pump-1;SharedAccessKey="));
    let (again, text) = run(&["device", "create", "pump-1"]);
    assert!(!again && text.contains("DeviceAlreadyExists"), "{text}");
    assert_eq!(
        run(&["device", "connection-string", "pump-1"]),
        (true, string)
    );
    let (_, list) = run(&["device", "list"]);
    let line: Vec<_> = list
        .lines()
        .nth(1)
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    assert_eq!(line, ["pump-1", "enabled", "edge", "never", "{}"]);
    assert!(run(&["device", "delete", "pump-1"]).0);
    assert!(!run(&["device", "list"]).1.contains("pump-1"));
    let (found, text) = run(&["device", "connection-string", "pump-1"]);
    assert!(!found && text.contains("DeviceNotFound"), "{text}");
}

/// A hub on a device; ends with this.
struct Hub {
    process: Child,
    /// What it said until it was ready.
    greeting: Vec<String>,
}

impl Hub {
    fn start(device: &Device, state: &Path) -> Self {
        let process = device
            .command(hub_program())
            .args(["serve", "--state"])
            .arg(state)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the hub starts");
        let mut hub = Self {
            process,
            greeting: Vec::new(),
        };
        let stdout = hub.process.stdout.take().expect("stdout is piped");
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let last = line.starts_with("listening");
            hub.greeting.push(line);
            if last {
                return hub;
            }
        }
        panic!("the hub does not listen: {:?}", hub.greeting);
    }

    /// Resident memory in KiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or_default()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn must_succeed(command: &mut Command) {
    let output = command.output().expect("python runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
}

/// Python with the SDKs; `None` where the test cannot run and need not.
fn prepared() -> Option<PathBuf> {
    kobune_tests::privileged()
        .then(|| packages::python("sdk-venv", &PACKAGES))
        .flatten()
}

fn hub_program() -> PathBuf {
    Programs::built().hub()
}

fn suite() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/sdk"))
}
