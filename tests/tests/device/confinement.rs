//! What the kernel enforces on cgroup v2.

use kobune_tests::{Device, Machine};

use crate::turn;

/// Options of `run`, what the probe is asked, and its answer.
const DEVICE_RULES: [(&str, &str, &str); 6] = [
    ("", "open /dev/i2c-1 rw", "ENOENT"),
    // The rules allow nodes to be made, not to be used.
    ("", "mknod /tmp/bus 89 1", "ok"),
    ("--device /dev/i2c-1", "open /dev/i2c-1 rw", "ok"),
    (
        "--device /dev/i2c-1:/dev/i2c-1:r",
        "open /dev/i2c-1 r",
        "ok",
    ),
    (
        "--device /dev/i2c-1:/dev/i2c-1:r",
        "open /dev/i2c-1 rw",
        "EPERM",
    ),
    ("--privileged", "open /dev/i2c-1 rw", "ok"),
];

#[test]
fn device_rules_and_limits_hold_on_cgroup_v2() {
    let Some(turn) = turn() else {
        return;
    };
    let lab = Device::new();
    let mut device = turn.machine(&lab);
    let registry = turn.probe_registry(&lab);
    device.boot("");
    let image = registry.reference("probe", "1");
    for (number, (options, question, answer)) in DEVICE_RULES.into_iter().enumerate() {
        let name = format!("rule-{number}");
        run(
            &mut device,
            &format!("--name {name} {options} {image} {question}"),
        );
        let said = device.wait_for(&format!("kobune logs {name}"), 20, |log| !log.is_empty());
        assert_eq!(said.trim(), answer, "{options} {question}");
    }

    let limits = "--memory 16m --pids-limit 8";
    run(
        &mut device,
        &format!("--name greedy {limits} {image} alloc 64"),
    );
    device.wait_for("kobune inspect greedy -o json", 20, |m| m.contains("137"));
    run(
        &mut device,
        &format!("--name many {limits} {image} fork 50"),
    );
    let lived = device.wait_for("kobune logs many", 20, |log| !log.is_empty());
    let lived: u32 = lived
        .split(' ')
        .next()
        .unwrap_or_default()
        .parse()
        .expect(&lived);
    assert!((1..8).contains(&lived), "{lived} children");
}

#[track_caller]
fn run(device: &mut Machine<'_>, arguments: &str) {
    let _ = device.run(&format!("kobune run {arguments}")).ok();
}
