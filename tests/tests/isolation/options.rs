//! What the fields of docker's create options do, seen from inside: many of them in one start.

use std::fs;

use kobune_tests::privileged;
use serde_json::json;

use crate::lab::{Lab, Seen, with_steps};

fn v1() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cpu").exists()
}

/// The line of `text` that starts with `head`, its words one blank apart.
#[track_caller]
fn line(text: &str, head: &str) -> String {
    let found = text.lines().find(|line| line.starts_with(head));
    let found = found.unwrap_or_else(|| panic!("no {head:?} in {text}"));
    found.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The mount on `target`: its own options, and those of its file system.
#[track_caller]
fn mount(seen: &Seen, target: &str) -> String {
    let mounts = seen.answer("mounts");
    let on = |line: &&str| line.split(' ').nth(4) == Some(target);
    let found = mounts.lines().find(on);
    found
        .unwrap_or_else(|| panic!("nothing on {target}: {mounts}"))
        .to_owned()
}

#[test]
fn process_names_and_kernel_parameters() {
    if !privileged() {
        return;
    }
    let options = json!({
        "User": "app", "Hostname": "unit", "Domainname": "plant.example",
        "HostConfig": {
            "GroupAdd": ["video", "7"],
            "Ulimits": [
                { "Name": "nofile", "Soft": 100, "Hard": 200 },
                { "Name": "core", "Soft": 0, "Hard": 0 },
            ],
            "Sysctls": { "net.core.somaxconn": "77", "kernel.shm_rmid_forced": "1" },
            "ShmSize": 1 << 20,
            "Dns": ["192.0.2.53"], "DnsSearch": ["plant.example"], "DnsOptions": ["ndots:3"],
            "OomScoreAdj": 321,
            "SecurityOpt": ["no-new-privileges"],
        },
    });
    let seen = Lab::new().steps(
        &options,
        &[
            "id",
            "caps",
            "read /proc/self/limits",
            "read /proc/sys/net/core/somaxconn",
            "read /proc/sys/kernel/shm_rmid_forced",
            "read /proc/sys/kernel/hostname",
            "read /proc/sys/kernel/domainname",
            "read /etc/hostname",
            "read /proc/self/oom_score_adj",
            "read /etc/resolv.conf",
            "mounts",
            "exec /as-root status Uid",
        ],
    );
    assert_eq!(seen.field("id", "Groups"), "7 44 989 1000");
    assert_eq!(seen.field("caps", "NoNewPrivs"), "1");
    assert_eq!(seen.field("caps", "Seccomp"), "2");
    let limits = seen.answer("read /proc/self/limits");
    assert_eq!(
        line(limits, "Max open files"),
        "Max open files 100 200 files"
    );
    assert_eq!(
        line(limits, "Max core file size"),
        "Max core file size 0 0 bytes"
    );
    seen.expect(&[
        ("read /proc/sys/net/core/somaxconn", "77"),
        ("read /proc/sys/kernel/shm_rmid_forced", "1"),
        ("read /proc/sys/kernel/hostname", "unit"),
        ("read /proc/sys/kernel/domainname", "plant.example"),
        ("read /etc/hostname", "unit"),
        ("read /proc/self/oom_score_adj", "321"),
    ]);
    names_are_resolved_as_asked(&seen);
    assert!(mount(&seen, "/dev/shm").contains("size=1024k"));
    // A set-user-id program gives nothing.
    let uids = seen.field("exec /as-root status Uid", "Uid");
    assert_eq!(uids.split_whitespace().collect::<Vec<_>>(), ["1000"; 4]);
}

fn names_are_resolved_as_asked(seen: &Seen) {
    let resolvers = seen.answer("read /etc/resolv.conf");
    for own in [
        "nameserver 192.0.2.53",
        "search plant.example",
        "options ndots:3",
    ] {
        assert!(resolvers.lines().any(|line| line == own), "{resolvers}");
    }
    assert_eq!(resolvers.matches("nameserver").count(), 1, "{resolvers}");
}

#[test]
fn an_unknown_group_and_a_parameter_of_the_host_are_refused_by_name() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    for (host_config, part) in [
        (json!({ "GroupAdd": ["nobodies"] }), "no group \"nobodies\""),
        (
            json!({ "Sysctls": { "vm.swappiness": "1" } }),
            "sysctl \"vm.swappiness\"",
        ),
        (
            json!({ "NetworkMode": "host", "Sysctls": { "net.core.somaxconn": "1" } }),
            "it shares its network namespace",
        ),
        (
            json!({ "Ulimits": [{ "Name": "nofiles", "Soft": 1 }] }),
            "ulimit \"nofiles\"",
        ),
        (
            json!({ "SecurityOpt": ["apparmor=docker-default"] }),
            "no AppArmor",
        ),
    ] {
        if part == "no AppArmor" && fs::exists("/sys/kernel/security/apparmor").unwrap() {
            continue;
        }
        let options = json!({ "HostConfig": host_config });
        let error = lab.run(&lab.image(&json!({})), &options, &[]).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn limits_of_the_cgroup() {
    if !privileged() || !v1() {
        return;
    }
    let options = json!({ "HostConfig": {
        "Memory": 64 << 20, "MemorySwap": 96 << 20, "MemoryReservation": 32 << 20,
        "MemorySwappiness": 7, "OomKillDisable": true,
        "CpuShares": 512, "CpuPeriod": 50_000, "CpuQuota": 25_000,
        "CpusetCpus": "0", "CpusetMems": "0",
        "BlkioWeight": 300,
    }});
    let lacks = |file: &str| !fs::exists(format!("/sys/fs/cgroup/{file}")).unwrap();
    let mut files = vec![
        ("memory/memory.limit_in_bytes", "67108864"),
        ("memory/memory.soft_limit_in_bytes", "33554432"),
        ("memory/memory.swappiness", "7"),
        ("cpu/cpu.shares", "512"),
        ("cpu/cpu.cfs_period_us", "50000"),
        ("cpu/cpu.cfs_quota_us", "25000"),
        ("cpuset/cpuset.cpus", "0"),
        ("cpuset/cpuset.mems", "0"),
    ];
    // Not every kernel counts swap, or has weights.
    let weights = [
        ("blkio/blkio.weight", "300"),
        ("blkio/blkio.bfq.weight", "300"),
    ];
    let swap = ("memory/memory.memsw.limit_in_bytes", "100663296");
    let weight = weights.into_iter().find(|(file, _)| !lacks(file));
    files.extend(weight.into_iter().chain((!lacks(swap.0)).then_some(swap)));
    let mut steps: Vec<String> = files
        .iter()
        .map(|(file, _)| format!("read /sys/fs/cgroup/{file}"))
        .collect();
    steps.push("read /sys/fs/cgroup/memory/memory.oom_control".to_owned());
    steps.push("status Cpus_allowed_list".to_owned());
    let words: Vec<&str> = steps.iter().map(String::as_str).collect();
    let seen = Lab::new().steps(&options, &words);
    for ((file, value), step) in files.iter().zip(&words) {
        assert_eq!(seen.answer(step), *value, "{file}");
    }
    let control = seen.answer("read /sys/fs/cgroup/memory/memory.oom_control");
    assert_eq!(line(control, "oom_kill_disable"), "oom_kill_disable 1");
    let step = "status Cpus_allowed_list";
    assert_eq!(seen.field(step, "Cpus_allowed_list"), "0");
    // What this kernel lacks is named, and does not keep the module from running.
    let unsupported = |name: &str| seen.warnings.iter().any(|line| line.starts_with(name));
    assert_eq!(unsupported("BlkioWeight"), weight.is_none());
}

#[test]
fn rates_of_a_block_device() {
    let partitions = fs::read_to_string("/proc/partitions").unwrap_or_default();
    let numbers = partitions.lines().nth(2).and_then(|line| {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some((words.next()?, words.next()?))
    });
    let Some((major, minor)) = numbers.filter(|_| privileged() && v1()) else {
        return;
    };
    let lab = Lab::new();
    let node = lab.path("disk");
    let made = lab
        .device()
        .command("mknod")
        .arg(&node)
        .args(["b", &major, &minor])
        .status();
    assert!(made.unwrap().success());
    let rate = |rate: u64| json!([{ "Path": node, "Rate": rate }]);
    let options = json!({ "HostConfig": {
        "BlkioDeviceReadBps": rate(1_000_000), "BlkioDeviceWriteBps": rate(2_000_000),
        "BlkioDeviceReadIOps": rate(30), "BlkioDeviceWriteIOps": rate(40),
    }});
    let files = [
        ("read_bps", 1_000_000),
        ("write_bps", 2_000_000),
        ("read_iops", 30),
        ("write_iops", 40),
    ];
    let step = |name: &str| format!("read /sys/fs/cgroup/blkio/blkio.throttle.{name}_device");
    let steps = files.map(|(name, _)| step(name));
    let words: Vec<&str> = steps.iter().map(String::as_str).collect();
    let seen = lab.steps(&options, &words);
    for (name, rate) in files {
        assert_eq!(seen.answer(&step(name)), format!("{major}:{minor} {rate}"));
    }
}

#[test]
fn paths_are_masked_as_asked() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let lines = [
        "read /text",
        "write /opt/file x",
        "write /proc/sys/kernel/msgmax 8192",
        "read /proc/timer_list",
    ];
    let own = json!({ "HostConfig": {
        "MaskedPaths": ["/text"], "ReadonlyPaths": ["/opt"],
    }});
    let seen = lab.steps(&own, &lines);
    seen.expect(&[
        ("read /text", ""),
        ("write /opt/file x", "EROFS"),
        ("write /proc/sys/kernel/msgmax 8192", "ok"),
    ]);
    let open = json!({ "HostConfig": { "SecurityOpt": ["systempaths=unconfined"] } });
    let seen = lab.steps(&open, &lines);
    seen.expect(&[
        ("read /text", "no program"),
        ("write /opt/file x", "ok"),
        ("write /proc/sys/kernel/msgmax 8192", "ok"),
    ]);
    assert_ne!(seen.answer("read /proc/timer_list"), "");
}

#[test]
fn output_goes_nowhere_on_request() {
    if !privileged() {
        return;
    }
    let options = json!({ "HostConfig": { "LogConfig": { "Type": "none" } } });
    let seen = Lab::new().steps(&options, &["fds"]);
    assert_eq!(
        (seen.code, seen.stdout.as_str(), seen.stderr.as_str()),
        (0, "", "")
    );
}

#[test]
fn exposed_ports_are_published_on_free_ports() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let image = lab.image(&json!({ "ExposedPorts": { "80/tcp": {}, "81/tcp": {} } }));
    let options = json!({
        "ExposedPorts": { "53/udp": {} },
        "HostConfig": {
            "PublishAllPorts": true,
            "PortBindings": { "81/tcp": [{ "HostPort": "8181" }] },
        },
    });
    let id = lab.create(&image, &options, &with_steps(&["await-signal"]));
    lab.start(&id).unwrap();
    let mut ports = lab.ports(&id);
    lab.remove(&id);
    ports.sort_unstable();
    let inside: Vec<u16> = ports.iter().map(|(inside, _)| *inside).collect();
    assert_eq!(inside, [53, 80, 81]);
    assert_eq!(ports[2].1, 8181);
    assert!(ports.iter().all(|(_, host)| *host > 0), "{ports:?}");
}
