//! Devices by what the host's owner calls them, described in files on the device.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use kobune_tests::{etc, privileged};
use serde_json::{Value, json};

use crate::lab::Lab;

/// As drivers' hooks do: finds the container's root by the state that it is given, and leaves
/// there what it was called with.
const HOOK: &str = r#"#!/bin/sh
bundle=$(sed 's/.*"bundle":"\([^"]*\)".*/\1/')
root=$(sed 's/.*"root":{"path":"\([^"]*\)".*/\1/' "$bundle/config.json")
{ echo "$0 $*"; echo "PATH=$PATH PRELOAD=$LD_PRELOAD"; } > "$root/from-hook"
[ "$1" != fail ]
"#;

/// A device described in `edits`, as `a.com/gpu=0`.
fn describe(lab: &Lab, edits: &Value) {
    let text = json!({
        "cdiVersion": "0.7.0", "kind": "a.com/gpu",
        "devices": [{ "name": "0", "containerEdits": edits }],
    });
    etc::write(lab.device(), "/etc/cdi/a.json", &text.to_string());
}

fn requested() -> Value {
    let request = json!({ "Driver": "cdi", "DeviceIDs": ["a.com/gpu=0"] });
    // A variable of the image's or the deployment's chooses nothing in a program of the host.
    json!({ "Env": ["LD_PRELOAD=/evil.so"], "HostConfig": { "DeviceRequests": [request] } })
}

/// Puts a driver and a hook on the device.
fn install(lab: &Lab) {
    let (driver, hook) = (lab.path("driver"), lab.path("hook"));
    fs::create_dir(&driver).unwrap();
    fs::write(driver.join("libgpu.so"), "a driver").unwrap();
    fs::write(&hook, HOOK).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
}

/// All that a file can say and that is followed; the hook gets `argument`.
fn edits(lab: &Lab, argument: &str) -> Value {
    json!({
        "env": ["GPU=0"],
        "additionalGids": [4242],
        "deviceNodes": [{
            "path": "/dev/gpu0", "hostPath": "/dev/i2c-1", "permissions": "r",
            "fileMode": 0o640, "gid": 44, "type": "c", "major": 89, "minor": 1,
        }],
        "mounts": [{
            "hostPath": lab.path("driver"), "containerPath": "/usr/lib/gpu",
            "options": ["ro", "nosuid", "nodev", "noexec", "rbind", "rprivate"],
        }],
        "hooks": [{
            "hookName": "createContainer", "path": lab.path("hook"),
            "args": ["gpu-hook", argument],
        }],
    })
}

#[test]
fn a_described_device_comes_with_all_that_its_file_says() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    install(&lab);
    describe(&lab, &edits(&lab, "links"));
    let lines = [
        "list /dev",
        "open /dev/gpu0 r",
        "open /dev/gpu0 rw",
        "read /usr/lib/gpu/libgpu.so",
        "write /usr/lib/gpu/x x",
        "mounts",
        "id",
        "env",
        "read /from-hook",
    ];
    let seen = lab.steps(&requested(), &lines);
    // Nothing is behind the node, and the rule lets it be asked for reading alone.
    seen.expect(&[
        ("open /dev/gpu0 r", "ENXIO"),
        ("open /dev/gpu0 rw", "EPERM"),
        ("read /usr/lib/gpu/libgpu.so", "a driver"),
        ("write /usr/lib/gpu/x x", "EROFS"),
    ]);
    let has = |line: &str, text: &str| {
        let answer = seen.answer(line);
        assert!(answer.contains(text), "{text} in {answer}");
    };
    has("list /dev", "gpu0 c 89:1 0640 0:44");
    has("mounts", " /usr/lib/gpu ro,nosuid,nodev,noexec");
    has("env", "GPU=0");
    assert!(seen.field("id", "Groups").contains("4242"));
    has("read /from-hook", "links");
    has("read /from-hook", "PATH=/usr/local/sbin:");
    assert!(!seen.answer("read /from-hook").contains("evil"));

    // A program that fails, or is gone, fails the start; so does a description that is gone.
    describe(&lab, &edits(&lab, "fail"));
    let start = || {
        lab.run(&lab.image(&json!({})), &requested(), &[])
            .unwrap_err()
    };
    let error = start();
    assert!(
        error.contains("failed to run create container hooks"),
        "{error}"
    );
    fs::remove_file(lab.path("hook")).unwrap();
    let error = start();
    assert!(error.contains("/hook, which is not there"), "{error}");
    etc::write(lab.device(), "/etc/cdi/a.json", "{}");
    let error = start();
    assert!(
        error.contains("describes a.com/gpu=0, and /etc/cdi/a.json cannot be read"),
        "{error}"
    );
}

#[test]
fn nvidias_runtime_gives_what_the_lists_of_l4t_name() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let runtime = json!({ "HostConfig": { "Runtime": "nvidia" } });
    let error = lab.run(&lab.image(&json!({})), &runtime, &[]).unwrap_err();
    assert!(
        error.contains("this device has nothing for NVIDIA's GPUs"),
        "{error}"
    );

    let dir = lab.path("tegra");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("libcuda.so.1"), "a driver").unwrap();
    symlink("libcuda.so.1", dir.join("libcuda.so")).unwrap();
    let dir = dir.display();
    let list = format!(
        "dev, /dev/i2c-1\ndev, /dev/nvmap\nlib, {dir}/libcuda.so.1\nsym, {dir}/libcuda.so\n\
         lib, {dir}/of-another-board.so\n"
    );
    let path = "/etc/nvidia-container-runtime/host-files-for-container.d/l4t.csv";
    etc::write(lab.device(), path, &list);
    let (library, link) = (
        format!("read {dir}/libcuda.so.1"),
        format!("read {dir}/libcuda.so"),
    );
    let lines = ["open /dev/i2c-1 rw", library.as_str(), link.as_str(), "env"];
    let seen = lab.steps(&runtime, &lines);
    seen.expect(&[
        ("open /dev/i2c-1 rw", "ENXIO"),
        (&library, "a driver"),
        (&link, "a driver"),
    ]);
    let env = seen.answer("env").to_owned();
    assert!(env.contains(&format!("LD_LIBRARY_PATH={dir}")), "{env}");
    // The image's own directories come first; who asks for no GPU gets none.
    let own = json!({
        "Env": ["LD_LIBRARY_PATH=/own", "NVIDIA_VISIBLE_DEVICES=all"],
        "HostConfig": { "Runtime": "nvidia" },
    });
    let env = lab.steps(&own, &["env"]).answer("env").to_owned();
    assert!(
        env.contains(&format!("LD_LIBRARY_PATH=/own:{dir}")),
        "{env}"
    );
    let none = json!({
        "Env": ["NVIDIA_VISIBLE_DEVICES=void"], "HostConfig": { "Runtime": "nvidia" },
    });
    let seen = lab.steps(&none, &["open /dev/i2c-1 rw", library.as_str()]);
    seen.expect(&[("open /dev/i2c-1 rw", "ENOENT"), (&library, "ENOENT")]);
}

#[test]
fn gpus_are_counted_from_the_first_on_or_named() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let gpu =
        |name: &str| json!({ "name": name, "containerEdits": { "env": [format!("HAS{name}=1")] } });
    let text = json!({
        "cdiVersion": "0.7.0", "kind": "nvidia.com/gpu",
        "devices": [gpu("0"), gpu("1"), gpu("all")],
    });
    etc::write(lab.device(), "/etc/cdi/nvidia.json", &text.to_string());
    let capable = json!([["gpu"]]);
    for (request, has) in [
        (json!({ "Count": 1, "Capabilities": capable }), ["HAS0"]),
        (json!({ "Count": -1, "Capabilities": capable }), ["HASall"]),
        (json!({ "Driver": "nvidia", "DeviceIDs": ["1"] }), ["HAS1"]),
    ] {
        let options = json!({ "HostConfig": { "DeviceRequests": [request] } });
        let seen = lab.steps(&options, &["env"]);
        let variables = seen
            .answer("env")
            .lines()
            .filter_map(|line| line.split_once('='));
        let names: Vec<&str> = variables.map(|(name, _)| name).collect();
        let given: Vec<&str> = names
            .into_iter()
            .filter(|name| name.starts_with("HAS"))
            .collect();
        assert_eq!(given, has, "{options}");
    }
}
