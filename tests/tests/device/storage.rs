//! A root that nobody can write to, one data partition, and overlays on it.

use kobune_tests::{Device, Machine};

use crate::turn;

/// What a module is asked: to read a file that a former run of it left, and to leave it. The
/// second comes from a lower layer.
const STEPS: &str = "\"read /kept\" \"write /kept yes\" \"write /etc/passwd mine\"";

#[test]
fn with_a_read_only_root_modules_write_to_overlays_on_the_data_partition() {
    let Some(turn) = turn() else {
        return;
    };
    let lab = Device::new();
    let mut device = turn.machine(&lab);
    let registry = turn.probe_registry(&lab);
    let image = registry.reference("probe", "1");

    device.boot("");
    let written = device.run("touch /etc/written");
    assert!(
        written.stdout.contains("Read-only file system"),
        "{written:?}"
    );
    let run = format!("kobune run --name keeper --restart always {image} steps {STEPS}");
    let _ = device.run(&run).ok();
    let first = device.wait_for("kobune logs keeper", 60, |log| log.contains("> write /etc"));
    let heading = "> read /kept\n";
    let answer = first.split(heading).nth(1).unwrap_or_default();
    assert!(!answer.starts_with("yes"), "{first}");
    // Started again as it ends, it finds what it wrote.
    device.wait_for("kobune logs keeper", 120, |log| {
        log.contains(&format!("{heading}yes"))
    });

    let _ = device
        .run(&format!("kobune run --name still {image} sleep 600"))
        .ok();
    let mounts = device.wait_for("cat /proc/mounts", 60, |mounts| {
        mounts.contains("overlay /run/kobune/modules/still/rootfs overlay rw")
    });
    let disks: Vec<_> = mounts
        .lines()
        .filter(|line| line.starts_with("/dev/vd"))
        .collect();
    let [root, data] = disks[..] else {
        panic!("two disks: {mounts}");
    };
    assert!(root.contains(" / ext4 ro"), "{root}");
    assert!(data.contains(" /var/lib/kobune ext4 rw"), "{data}");

    // All of it is there after a boot, in the overlay and not in the layers.
    let _ = device.run("sync").ok();
    device.boot("");
    let upper = "/var/lib/kobune/modules/keeper/upper";
    let kept = device
        .run(&format!("cat {upper}/kept {upper}/etc/passwd"))
        .ok();
    assert_eq!(kept.replace('\n', ""), "yesmine");
    let lower = device.run("cat /var/lib/kobune/layers/*/etc/passwd").ok();
    assert!(lower.starts_with("root:x:0:0"), "{lower}");
    device.wait_for("kobune list -o json", 90, |list| {
        list.matches("\"running\"").count() >= 1 && list.contains("still")
    });
}

/// `StorageOpt` by a project quota of the data partition: what a module finds when it writes more,
/// also where the kernel does not know quotactl_fd, as before Linux 5.14, and what the device says
/// where the partition has no quotas.
#[test]
fn a_modules_writable_layer_is_bounded_where_the_data_partition_has_quotas() {
    let Some(turn) = turn() else {
        return;
    };
    let lab = Device::new();
    let mut device = turn.machine(&lab);
    let registry = turn.probe_registry(&lab);
    let image = registry.reference("probe", "1");
    let run = |name: &str| {
        format!(
            "kobune run --name {name} --storage-opt size=2m {image} steps \"fill /first 1\" \
             \"fill /second 4\" \"fill /tmp/third 1\""
        )
    };

    device.boot("");
    let said = device.run(&run("bounded"));
    let inspected = device.run("kobune inspect bounded -o json").stdout;
    assert!(
        inspected
            .contains("HostConfig.StorageOpt (or DiskQuota) cannot be met: the file system of")
            && inspected.contains("mounted with prjquota"),
        "{said:?} {inspected}"
    );
    let _ = device.run("kobune rm bounded");

    device.enable_quotas();
    device.boot("");
    let _ = device.run(&run("bounded")).ok();
    let bounded = |device: &mut Machine<'_>, name: &str| {
        let logs = format!("kobune logs {name}");
        let log = device.wait_for(&logs, 90, |log| log.contains("/tmp/third"));
        assert!(log.contains("> fill /first 1\nok\n"), "{name}: {log}");
        assert!(log.contains("> fill /second 4\nEDQUOT\n"), "{name}: {log}");
    };
    bounded(&mut device, "bounded");

    let _ = device.run("kill $(pidof kobune)").ok();
    device.wait_for("pidof kobune || echo none", 60, |pids| pids == "none\n");
    let older = "$(ls /var/lib/kobune/layers/*/probe) without quotactl_fd";
    let known = device.run(&format!(
        "{older} $(ls /var/lib/kobune/layers/*/probe) syscall quotactl_fd"
    ));
    assert_eq!(known.ok().trim(), "ENOSYS");
    let _ = device.run(&format!("{older} $(which agent-up)")).ok();
    let _ = device.run(&run("older")).ok();
    bounded(&mut device, "older");
}
