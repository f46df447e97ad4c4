//! Limits, as the module meets them.

use kobune_tests::privileged;
use serde_json::json;

use crate::lab::{Lab, version_2};

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
    let (shown, locked): (&[(&str, &str)], &[&str]) = if version_2() {
        (
            &[
                ("read /sys/fs/cgroup/cpu.max", "50000 100000"),
                ("read /sys/fs/cgroup/memory.max", "67108864"),
            ],
            &[
                "write /sys/fs/cgroup/cpu.max max",
                "write /sys/fs/cgroup/memory.max max",
                "write /sys/fs/cgroup/cgroup.subtree_control +memory",
            ],
        )
    } else {
        (
            &[
                ("read /sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000"),
                (
                    "read /sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "67108864",
                ),
            ],
            &[
                "write /sys/fs/cgroup/memory/memory.limit_in_bytes -1",
                "write /sys/fs/cgroup/devices/devices.allow a",
            ],
        )
    };
    let list = "read /sys/fs/cgroup/devices/devices.list";
    let lines = shown.iter().map(|(line, _)| line).chain(locked);
    let lines: Vec<&str> = lines.copied().chain([list]).collect();
    let options = json!({ "HostConfig": { "NanoCpus": 500_000_000, "Memory": 64 << 20 } });
    let seen = Lab::new().steps(&options, &lines);
    seen.expect(shown);
    for line in locked {
        assert_eq!(seen.answer(line), "EROFS", "{line}");
    }
    // Version 2 has no list to be read: what opens is asked elsewhere.
    let devices = seen.answer(list);
    assert_eq!(devices == "ENOENT", version_2());
    assert!(
        !devices.contains("10:200") && !devices.contains("a *:*"),
        "{devices}"
    );
}
