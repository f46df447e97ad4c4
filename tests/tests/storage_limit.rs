//! A bound on the disk that a module's writable layer takes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::Command;

use kobune_tests::{Agent, Device, privileged, probe};
use serde_json::json;

/// Mounts an ext4 of its own, with project quotas if `quotas`, where the agent keeps its state.
const MOUNT: &str = r#"
set -e
truncate -s 96M "$1/disk"
mkfs.ext4 -q -O quota,project -E quotatype=prjquota "$1/disk"
mkdir "$1/state"
# The device's /dev has none.
mknod /dev/loop-control c 10 237
for number in $(seq 0 31); do mknod "/dev/loop$number" b 7 "$number"; done
mount -o "loop,$2" "$1/disk" "$1/state"
"#;

/// Whether the kernel took it.
fn own_disk(device: &Device, options: &str) -> bool {
    let mut mount = device.command("sh");
    let mount = mount
        .args(["-c", MOUNT, "sh"])
        .arg(device.dir())
        .arg(options);
    mount.output().unwrap().status.success()
}

fn bounded(registry: &kobune_fixtures::Registry, limit: serde_json::Value) -> serde_json::Value {
    let steps = [
        "steps",
        "fill /first 1",
        "fill /second 4",
        "write /third x",
        "sleep 600",
    ];
    probe::module_with(registry, &steps, limit)
}

fn size() -> serde_json::Value {
    json!({ "StorageOpt": { "size": "2m" } })
}

#[test]
fn a_limit_that_the_file_system_cannot_keep_is_refused() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let _ = agent.apply(&probe::deployment([
        ("bounded", bounded(&registry, size())),
        ("plain", probe::module(&registry, "1", &["sleep", "600"])),
    ]));
    agent.wait_running("plain");
    let module = agent.module("bounded");
    assert_eq!(module["status"], "failed");
    let problem = module["problem"].as_str().unwrap();
    let reason = "refused: settings.createOptions.HostConfig.StorageOpt (or DiskQuota) cannot be met: \
                  the file system of ";
    assert!(problem.starts_with(reason), "{problem}");
    assert!(problem.ends_with("mounted with prjquota"), "{problem}");
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

/// Needs a kernel with quotas; the virtual device's has them.
#[allow(clippy::print_stderr)]
#[test]
fn a_module_that_writes_more_than_its_limit_is_told() {
    if !privileged() {
        return;
    }
    let made = Command::new("mkfs.ext4").arg("-V").output();
    let _ = made.expect("the set-up of the tests installs e2fsprogs");
    let device = Device::new();
    if !own_disk(&device, "prjquota") {
        eprintln!("skipped: this kernel has no project quotas");
        return;
    }
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    let other = ["steps", "fill /first 8", "sleep 600"];
    let _ = agent.apply(&probe::deployment([
        ("bounded", bounded(&registry, size())),
        ("quota", bounded(&registry, json!({ "DiskQuota": 2 << 20 }))),
        ("other", probe::module(&registry, "1", &other)),
    ]));
    for name in ["bounded", "quota"] {
        let log = agent.wait_log(name, "> sleep");
        assert!(
            log.contains("> fill /first 1\nok\n> fill /second 4\nEDQUOT\n"),
            "{name}: {log}"
        );
    }
    let log = agent.wait_log("other", "> sleep");
    assert!(log.contains("> fill /first 8\nok\n"), "{log}");
    agent.clear();
}
