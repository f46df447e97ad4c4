//! Device nodes and who may open which.
//!
//! `/dev/i2c-1` (89:1) has no adapter: ENXIO says that the rules let the call through, EPERM
//! that they did not. A node that is not there is made with mknod, which docker allows.

use kobune_tests::privileged;
use serde_json::{Value, json};

use crate::lab::Lab;

/// Docker's default set, and the links it makes; of a terminal there is none.
const DEV: &str = "fd -> /proc/self/fd
full c 1:7 0666 0:0
mqueue d 1777 0:0
null c 1:3 0666 0:0
ptmx -> pts/ptmx
pts d 0755 0:0
random c 1:8 0666 0:0
shm d 1777 0:0
stderr -> /proc/self/fd/2
stdin -> /proc/self/fd/0
stdout -> /proc/self/fd/1
tty c 5:0 0666 0:0
urandom c 1:9 0666 0:0
zero c 1:5 0666 0:0";

fn i2c(permissions: &str) -> Value {
    json!({ "HostConfig": { "Devices": [{
        "PathOnHost": "/dev/i2c-1",
        "PathInContainer": "/dev/i2c-1",
        "CgroupPermissions": permissions,
    }]}})
}

#[test]
fn a_module_with_one_device_opens_that_one_and_no_other() {
    if !privileged() {
        return;
    }
    let seen = Lab::new().steps(
        &i2c("mrw"),
        &[
            "open /dev/i2c-1 rw",
            "mknod /dev/tun 10 200",
            "open /dev/tun rw",
            "mknod /dev/mem 1 1",
            "open /dev/mem r",
            "mknod /dev/i2c-2 89 2",
            "open /dev/i2c-2 r",
            "open /dev/null w",
            "open /dev/ptmx rw",
        ],
    );
    seen.expect(&[
        ("open /dev/i2c-1 rw", "ENXIO"),
        ("mknod /dev/tun 10 200", "ok"),
        ("open /dev/tun rw", "EPERM"),
        ("mknod /dev/mem 1 1", "ok"),
        ("open /dev/mem r", "EPERM"),
        ("mknod /dev/i2c-2 89 2", "ok"),
        ("open /dev/i2c-2 r", "EPERM"),
        ("open /dev/null w", "ok"),
        ("open /dev/ptmx rw", "ok"),
    ]);
}

#[test]
fn a_module_without_devices_has_dockers_defaults() {
    if !privileged() {
        return;
    }
    let seen = Lab::new().steps(
        &json!({}),
        &[
            "list /dev",
            "mknod /dev/i2c 89 1",
            "open /dev/i2c r",
            "open /dev/i2c-1 r",
        ],
    );
    seen.expect(&[
        ("mknod /dev/i2c 89 1", "ok"),
        ("open /dev/i2c r", "EPERM"),
        ("open /dev/i2c-1 r", "ENOENT"),
    ]);
    // `core` is there where the kernel has /proc/kcore.
    let listed = seen.answer("list /dev").lines();
    let listed: Vec<&str> = listed
        .filter(|line| *line != "core -> /proc/kcore")
        .collect();
    assert_eq!(listed.join("\n"), DEV);
}

#[test]
fn permissions_of_a_device_are_the_asked_for() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let questions = [
        "open /dev/i2c-1 r",
        "open /dev/i2c-1 w",
        "open /dev/i2c-1 rw",
    ];
    for (permissions, answers) in [
        ("r", ["ENXIO", "EPERM", "EPERM"]),
        ("w", ["EPERM", "ENXIO", "EPERM"]),
        ("rw", ["ENXIO", "ENXIO", "ENXIO"]),
        ("m", ["EPERM", "EPERM", "EPERM"]),
    ] {
        let seen = lab.steps(&i2c(permissions), &questions);
        let given = questions.map(|line| seen.answer(line));
        assert_eq!(given, answers, "{permissions}");
    }
}

#[test]
fn a_device_may_have_another_name_inside_and_keeps_mode_and_owner() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let node = lab
        .device()
        .command("chown")
        .args(["5:989", "/dev/i2c-1"])
        .status();
    assert!(node.unwrap().success());
    let mode = lab
        .device()
        .command("chmod")
        .args(["640", "/dev/i2c-1"])
        .status();
    assert!(mode.unwrap().success());
    let options = json!({ "User": "app", "HostConfig": { "Devices": [{
        "PathOnHost": "/dev/i2c-1",
        "PathInContainer": "/dev/sensors/button",
        "CgroupPermissions": "rwm",
    }]}});
    let seen = lab.steps(
        &options,
        &[
            "list /dev/sensors",
            "open /dev/sensors/button r",
            "open /dev/sensors/button w",
        ],
    );
    seen.expect(&[
        ("list /dev/sensors", "button c 89:1 0640 5:989"),
        // The user is in group 989.
        ("open /dev/sensors/button r", "ENXIO"),
        ("open /dev/sensors/button w", "EACCES"),
    ]);
}

#[test]
fn rules_apply_to_nodes_that_come_later() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let questions = [
        "mknod /dev/i2c-7 89 7",
        "open /dev/i2c-7 rw",
        "mknod /dev/tun 10 200",
        "open /dev/tun r",
    ];
    for (rule, [first, second]) in [
        ("c 89:* rw", ["ENXIO", "EPERM"]),
        ("c 89:8 rw", ["EPERM", "EPERM"]),
        ("b 89:* rw", ["EPERM", "EPERM"]),
        ("a 89:* rw", ["ENXIO", "EPERM"]),
        ("c *:7 rwm", ["ENXIO", "EPERM"]),
    ] {
        let options = json!({ "HostConfig": { "DeviceCgroupRules": [rule] } });
        let seen = lab.steps(&options, &questions);
        let given = [seen.answer(questions[1]), seen.answer(questions[3])];
        assert_eq!(given, [first, second], "{rule}");
    }
}

#[test]
fn a_privileged_module_has_the_hosts_nodes_and_opens_any() {
    if !privileged() {
        return;
    }
    let options = json!({ "HostConfig": { "Privileged": true, "DeviceCgroupRules": ["c 1:1 r"] } });
    let seen = Lab::new().steps(
        &options,
        &[
            "list /dev",
            "open /dev/i2c-1 rw",
            "mknod /dev/other 89 77",
            "open /dev/other rw",
        ],
    );
    seen.expect(&[
        ("open /dev/i2c-1 rw", "ENXIO"),
        ("mknod /dev/other 89 77", "ok"),
        ("open /dev/other rw", "ENXIO"),
    ]);
    let listed = seen.answer("list /dev");
    assert!(listed.contains("i2c-1 c 89:1 0666 0:0"), "{listed}");
    // All devices are open already.
    let warning = "device rules have no effect in a privileged container";
    assert_eq!(seen.warnings, [warning]);
}
