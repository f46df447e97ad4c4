//! Devices that modules request by name, on a device with an agent: what is missing is said,
//! waited for, and held against the owner's policy.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use kobune_tests::{Agent, Device, etc, privileged, probe};
use serde_json::json;

/// As NVIDIA's tools write it, with a node that every machine has.
const DESCRIPTION: &str = r#"---
cdiVersion: 0.5.0
kind: nvidia.com/gpu
containerEdits:
  env: [NVIDIA_VISIBLE_DEVICES=void]
  mounts:
  - hostPath: /etc/hostname
    containerPath: /etc/nvidia
    options: [ro, nosuid, nodev, rbind, rprivate]
devices:
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvhost
      hostPath: /dev/i2c-1
"#;

#[test]
fn a_module_starts_when_its_gpu_is_described() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    // Before the agent watches it.
    etc::write(&device, "/etc/own", "");
    let agent = Agent::start(&device, "");
    let module = probe::module_with(&registry, &["sleep", "600"], json!({ "runtime": "nvidia" }));
    let said = agent.apply(&probe::deployment([
        ("vision", module),
        ("plain", probe::module(&registry, "1", &["sleep", "600"])),
    ]));
    assert!(
        format!("{said:?}").contains("nothing for NVIDIA's GPUs"),
        "{said:?}"
    );
    agent.wait_running("plain");
    let refused = agent.module("vision");
    assert_eq!(refused["status"], "failed");
    let problem = refused["problem"].as_str().unwrap();
    assert_eq!(
        problem,
        "refused: settings.createOptions.HostConfig.DeviceRequests cannot be met: this device \
         has nothing for NVIDIA's GPUs: neither a CDI file of nvidia.com/gpu in /etc/cdi or \
         /var/run/cdi nor lists in /etc/nvidia-container-runtime/host-files-for-container.d"
    );

    // The driver is installed.
    etc::write(&device, "/etc/cdi/nvidia.yaml", DESCRIPTION);
    agent.wait_running("vision");
    let opened = agent.cli(&["exec", "vision", "/probe", "open", "/dev/nvhost", "rw"]);
    assert_eq!(opened.ok().trim(), "ENXIO");
    let env = agent.cli(&["exec", "vision", "/probe", "env"]).ok();
    assert!(env.contains("NVIDIA_VISIBLE_DEVICES=void"), "{env}");
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

#[test]
fn the_owners_policy_holds_for_what_comes_with_a_device() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    etc::write(&device, "/etc/cdi/nvidia.yaml", DESCRIPTION);
    let policy = r#"
        [[rule]]
        modules = "by-name"
        devices = ["nvidia.com/gpu=*"]

        [[rule]]
        modules = "by-parts"
        devices = ["/dev/i2c-*"]
        mounts = ["/etc/hostname:ro"]

        [[rule]]
        modules = "node-only"
        devices = ["/dev/i2c-*"]
    "#;
    let path = device.dir().join("modules.toml");
    std::fs::write(&path, policy).unwrap();
    let agent = Agent::start(&device, &format!("module_policy = {path:?}"));
    let host = json!({ "DeviceRequests": [{ "Count": -1, "Capabilities": [["gpu"]] }] });
    let names = ["by-name", "by-parts", "node-only", "none"];
    let module = probe::module_with(&registry, &["sleep", "600"], host);
    let _ = agent.apply(&probe::deployment(names.map(|name| (name, module.clone()))));
    agent.wait_running("by-name");
    agent.wait_running("by-parts");
    for (name, asked) in [("node-only", "/etc/hostname"), ("none", "/dev/i2c-1")] {
        let module = agent.module(name);
        assert_eq!(module["status"], "failed");
        let problem = module["problem"].as_str().unwrap();
        let expected = format!("HostConfig.DeviceRequests asks for {asked}: ");
        assert!(problem.contains(&expected), "{problem}");
        assert!(problem.contains("of the owner's policy"), "{problem}");
    }
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}
