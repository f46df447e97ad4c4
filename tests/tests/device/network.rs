//! Ports without netfilter, layers without overlayfs, and boots without a network.

use kobune_tests::{Device, Machine, machine, tutorial};

use crate::{apply, move_button, turn, wait_running};

#[test]
fn without_netfilter_and_overlayfs_ports_are_forwarded_and_layers_copied() {
    let Some(turn) = turn() else {
        return;
    };
    let lab = Device::new();
    let mut device = turn.machine(&lab);
    let registry = machine::registry(&lab, &turn.files, &["1.0"]);
    device.boot("kobune.modprobe=off kobune.overlay=off");
    apply(&mut device, &tutorial::deployment(&registry, "1.0"));
    wait_running(&mut device);
    let loaded = device.run("cat /proc/modules").ok();
    assert!(
        !loaded.contains("nf_tables") && !loaded.contains("overlay"),
        "{loaded}"
    );
    let warned = device.run("cat /run/kobune.log").ok();
    assert!(warned.contains("runs from a copy of its image"), "{warned}");
    let mounts = device.run("cat /proc/mounts").ok();
    assert!(!mounts.contains("overlay"), "{mounts}");
    let processes = device.run("ps -o args").ok();
    assert!(processes.contains("kobune-shim forward"), "{processes}");
    let url = format!("http://127.0.0.1:{}/True", machine::FORWARDED_PORT);
    let (code, body) = lab.http("POST", &url).expect("the published port answers");
    assert_eq!(code, 200, "{body}");
}

#[test]
fn what_was_deployed_starts_before_there_is_a_network_and_the_rest_when_it_comes() {
    let Some(turn) = turn() else {
        return;
    };
    let lab = Device::new();
    let mut device = turn.machine(&lab);
    let registry = machine::registry(&lab, &turn.files, &["1.0", "2.0"]);
    device.boot("");
    apply(&mut device, &tutorial::deployment(&registry, "1.0"));
    wait_running(&mut device);
    let _ = device.run("sync").ok();

    device.boot("kobune.network=off");
    wait_running(&mut device);
    let links = device.run("ls /sys/class/net; ip route").ok();
    assert!(
        !links.contains("eth") && !links.contains("default"),
        "{links}"
    );
    // They reach each other all the same.
    move_button(&mut device, "press", "on");
    move_button(&mut device, "release", "off");

    // A deployment whose images cannot be had takes nothing away.
    let next = tutorial::deployment(&registry, "2.0").to_string();
    device.write("/tmp/deployment.json", &next);
    let _ = device
        .run("kobune apply --detach /tmp/deployment.json")
        .ok();
    device.wait_for("kobune list", 60, |list| {
        list.to_lowercase().contains("pull")
    });
    move_button(&mut device, "press", "on");
    assert_eq!(images_of_version(&mut device, "1.0"), 2);

    let _ = device.run("network-up").ok();
    let line = "kobune list -o json";
    device.wait_for(line, 200, |list| list.matches(":2.0").count() >= 2);
    wait_running(&mut device);
    move_button(&mut device, "release", "off");
    move_button(&mut device, "press", "on");
    let url = format!("http://127.0.0.1:{}/False", machine::FORWARDED_PORT);
    let (code, body) = lab.http("POST", &url).expect("the published port answers");
    assert_eq!(code, 200, "{body}");
}

/// How many modules run an image with the tag `version`.
fn images_of_version(device: &mut Machine<'_>, version: &str) -> usize {
    let list = device.run("kobune list -o json").ok();
    list.matches(&format!(":{version}\"")).count()
}
