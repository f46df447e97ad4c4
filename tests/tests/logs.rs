//! Where modules' output goes: memory that is saved when a module fails.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kobune_fixtures::Registry;
use kobune_tests::{Agent, Device, privileged, probe, until};
use serde_json::{Value, json};

/// Seconds in which everything here happens.
const SOON: u64 = 30;

/// A module that runs `script` by busybox and never again.
fn shell(registry: &Registry, script: &str, log: &Value) -> Value {
    let host = json!({ "LogConfig": log });
    probe::shell(registry, &["/bin/sh", "-c", script], host)
}

/// Runs `test` with an agent that runs the modules, each with its script and its `LogConfig`.
fn with_modules(
    modules: &[(&str, &str, Value)],
    test: impl FnOnce(&mut Agent<'_>, &Registry, &Device),
) {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let mut agent = Agent::start(&device, "");
    let modules = modules
        .iter()
        .map(|(name, script, log)| (*name, shell(&registry, script, log)));
    let _ = agent.apply(&probe::deployment(modules)).ok();
    test(&mut agent, &registry, &device);
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

fn home(device: &Device, module: &str) -> PathBuf {
    device.dir().join("state/modules").join(module)
}

fn saved(device: &Device, module: &str) -> String {
    fs::read_to_string(home(device, module).join("log.saved")).unwrap_or_default()
}

/// The names below a directory whose files are the log's, links not followed.
fn log_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let logs = files.filter(|entry| entry.file_name().to_string_lossy().starts_with("log"));
    logs.map(|entry| entry.path()).collect()
}

#[test]
fn a_log_in_memory_is_bounded_and_goes_on_without_the_agent() {
    let count = "n=0; while [ $n -lt 5000 ]; do n=$((n+1)); echo line $n; done; \
                 busybox sleep 2; echo later; exec busybox sleep 600";
    let ring = json!({ "Type": "ring", "Config": { "max-size": "200k" } });
    with_modules(&[("m", count, ring)], |agent, _, device| {
        agent.wait_log("m", "line 5000\n");
        let pid = agent.module("m")["pid"].clone();
        agent.kill();
        agent.restart();
        let log = agent.wait_log("m", "later\n");
        assert_eq!(agent.module("m")["pid"], pid);
        assert!(log.ends_with("line 4999\nline 5000\nlater\n"), "{log}");
        assert!(!log.contains("line 1000\n"));

        let ring = device.dir().join("run/modules/m/log");
        let mode = fs::metadata(&ring).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "it is root's alone");
        let sizes: Vec<u64> = log_files(&ring)
            .iter()
            .map(|file| fs::metadata(file).unwrap().len())
            .collect();
        let bytes: u64 = sizes.iter().sum();
        assert!(
            sizes.len() == 4 && bytes > 150_000 && bytes <= 200_000,
            "{sizes:?}"
        );
        // On purpose it is not a failure, and nothing of it reaches the disk.
        let _ = agent.cli(&["stop", "m"]).ok();
        assert_eq!(agent.logs("m"), log);
        assert_eq!(log_files(&home(device, "m")), Vec::<PathBuf>::new());
        let followed = agent.cli(&["logs", "--tail", "1", "m"]).ok();
        assert_eq!(followed, "later\n");
    });
}

#[test]
fn a_log_in_memory_is_saved_when_its_module_fails_and_is_there_after_a_reboot() {
    let ring = || json!({ "Type": "ring" });
    let modules = [
        ("failing", "echo last words; exit 3", ring()),
        (
            "hungry",
            "busybox sleep 1; busybox sh -c 'echo greed; kill -9 $$' ; exit 137",
            ring(),
        ),
        ("fine", "echo nothing to tell", ring()),
    ];
    with_modules(&modules, |agent, _, device| {
        until(SOON, "saved", || {
            saved(device, "failing").contains("stdout F last words\n")
                && saved(device, "hungry").contains("greed")
        });
        let file = home(device, "failing").join("log.saved");
        let mode = fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        agent.wait_for("fine", SOON, |module| module["exitCode"] == 0);
        assert_eq!(agent.logs("fine"), "nothing to tell\n");
        assert_eq!(saved(device, "fine"), "");

        // As a reboot does it.
        agent.kill();
        fs::remove_dir_all(device.dir().join("run/modules")).unwrap();
        agent.restart();
        until(SOON, "both runs are told", || {
            agent.logs("failing") == "last words\nlast words\n"
        });
        until(SOON, "only the second run is told", || {
            agent.logs("fine") == "nothing to tell\n"
        });
    });
}

#[test]
fn a_log_in_memory_is_saved_when_its_module_becomes_unhealthy() {
    with_modules(&[], |agent, registry, device| {
        let script = "echo is not well; exec busybox sleep 600";
        let mut module = shell(registry, script, &json!({ "Type": "ring" }));
        module["settings"]["createOptions"]["Healthcheck"] =
            json!({ "Test": ["CMD", "busybox", "false"], "Interval": 200_000_000, "Retries": 2 });
        let _ = agent.apply(&probe::deployment([("m", module)])).ok();
        agent.wait_for("m", SOON, |module| module["health"] == "starting");
        assert_eq!(saved(device, "m"), "");
        agent.wait_for("m", SOON, |module| module["health"] == "unhealthy");
        until(SOON, "saved", || saved(device, "m").contains("is not well"));
    });
}
