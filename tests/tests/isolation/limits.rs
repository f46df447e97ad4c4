//! Limits, as the module meets them.

use kobune_tests::privileged;
use serde_json::json;

use crate::lab::{Lab, with_steps};

#[test]
fn a_module_that_takes_more_than_its_memory_is_killed() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let image = lab.image(&json!({}));
    let limited = |mib: &str| {
        let options = json!({ "HostConfig": { "Memory": 32 << 20 }, "Cmd": ["alloc", mib] });
        lab.run(&image, &options, &[]).unwrap()
    };
    assert_eq!(limited("8").code, 0);
    assert_eq!(limited("100").code, 137);
}

#[test]
fn the_number_of_processes_is_bounded() {
    if !privileged() {
        return;
    }
    let options = json!({ "HostConfig": { "PidsLimit": 4 } });
    let seen = Lab::new().steps(&options, &["fork 8"]);
    seen.expect(&[("fork 8", "3 of 8 (EAGAIN)")]);
}

#[test]
fn limits_show_inside_and_cannot_be_lifted_there() {
    if !privileged() {
        return;
    }
    if !std::path::Path::new("/sys/fs/cgroup/cpu").exists() {
        return;
    }
    let lab = Lab::new();
    let id = lab.create(
        &lab.image(&json!({})),
        &json!({ "HostConfig": { "NanoCpus": 500_000_000, "Memory": 64 << 20 } }),
        &with_steps(&[
            "read /sys/fs/cgroup/cpu/cpu.cfs_quota_us",
            "read /sys/fs/cgroup/memory/memory.limit_in_bytes",
            "write /sys/fs/cgroup/memory/memory.limit_in_bytes -1",
            "write /sys/fs/cgroup/devices/devices.allow a",
            "read /sys/fs/cgroup/devices/devices.list",
        ]),
    );
    lab.start(&id).unwrap();
    let seen = lab.wait(&id);
    lab.remove(&id);
    seen.expect(&[
        ("read /sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000"),
        (
            "read /sys/fs/cgroup/memory/memory.limit_in_bytes",
            "67108864",
        ),
        (
            "write /sys/fs/cgroup/memory/memory.limit_in_bytes -1",
            "EROFS",
        ),
        ("write /sys/fs/cgroup/devices/devices.allow a", "EROFS"),
    ]);
    let devices = seen.answer("read /sys/fs/cgroup/devices/devices.list");
    assert!(
        !devices.contains("10:200") && !devices.contains("a *:*"),
        "{devices}"
    );
}
