//! What the fields of docker's create options do, seen from inside: many of them in one start.

use std::fs;

use kobune_tests::privileged;
use serde_json::json;

use crate::lab::{Lab, Seen, version_2, with_steps};

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

/// What the options of [`limits_of_the_cgroup`] come to, by version of cgroups. Not every
/// kernel counts swap.
const LIMITS: [&[(&str, &str)]; 2] = [
    &[
        ("memory/memory.limit_in_bytes", "67108864"),
        ("memory/memory.memsw.limit_in_bytes", "100663296"),
        ("memory/memory.soft_limit_in_bytes", "33554432"),
        ("memory/memory.swappiness", "7"),
        ("cpu/cpu.shares", "512"),
        ("cpu/cpu.cfs_period_us", "50000"),
        ("cpu/cpu.cfs_quota_us", "25000"),
        ("cpuset/cpuset.cpus", "0"),
        ("cpuset/cpuset.mems", "0"),
        ("pids/pids.max", "100"),
    ],
    &[
        ("memory.max", "67108864"),
        // Beyond the memory.
        ("memory.swap.max", "33554432"),
        ("memory.low", "33554432"),
        // Of a scale on which the default of 1024 shares is 100.
        ("cpu.weight", "59"),
        ("cpu.max", "25000 50000"),
        ("cpuset.cpus", "0"),
        ("cpuset.mems", "0"),
        ("pids.max", "100"),
    ],
];
/// Where a weight of 300 is found, by version: no kernel has all of them.
const WEIGHTS: [&[(&str, &str)]; 2] = [
    &[
        ("blkio/blkio.weight", "300"),
        ("blkio/blkio.bfq.weight", "300"),
    ],
    &[("io.bfq.weight", "300"), ("io.weight", "default 2930")],
];
const SWAP: [&str; 2] = ["memory/memory.memsw.limit_in_bytes", "memory.swap.max"];

/// Of version 1 alone.
const OOM_CONTROL: &str = "read /sys/fs/cgroup/memory/memory.oom_control";

#[test]
fn limits_of_the_cgroup() {
    if !privileged() {
        return;
    }
    let options = json!({ "HostConfig": {
        "Memory": 64 << 20, "MemorySwap": 96 << 20, "MemoryReservation": 32 << 20,
        "MemorySwappiness": 7, "OomKillDisable": true,
        "CpuShares": 512, "CpuPeriod": 50_000, "CpuQuota": 25_000,
        "CpusetCpus": "0", "CpusetMems": "0", "PidsLimit": 100,
        "BlkioWeight": 300,
    }});
    let version = usize::from(version_2());
    let affinity = "status Cpus_allowed_list";
    let step = |file: &str| format!("read /sys/fs/cgroup/{file}");
    let files = [LIMITS[version], WEIGHTS[version]].concat();
    let steps: Vec<String> = files.iter().map(|(file, _)| step(file)).collect();
    let words: Vec<&str> = steps.iter().map(String::as_str).collect();
    let seen = Lab::new().steps(&options, &[&words[..], &[affinity, OOM_CONTROL]].concat());
    for (file, value) in LIMITS[version] {
        let answer = seen.answer(&step(file));
        let uncounted = SWAP.contains(file) && answer == "ENOENT";
        assert!(answer == *value || uncounted, "{file}: {answer}");
    }
    let weights = WEIGHTS[version].iter();
    let weighed: Vec<bool> = weights
        .filter(|(file, _)| seen.answer(&step(file)) != "ENOENT")
        .map(|(file, value)| seen.answer(&step(file)) == *value)
        .collect();
    assert!(weighed.first().is_none_or(|right| *right), "{seen:?}");
    assert_eq!(seen.field(affinity, "Cpus_allowed_list"), "0");
    // What this kernel lacks is named, and does not keep the module from running.
    let unsupported = |name: &str| seen.warnings.iter().any(|line| line.starts_with(name));
    assert_eq!(unsupported("BlkioWeight"), weighed.is_empty(), "{seen:?}");
    assert_eq!(unsupported("MemorySwappiness"), version_2());
    assert_eq!(unsupported("OomKillDisable"), version_2());
    if !version_2() {
        let control = line(seen.answer(OOM_CONTROL), "oom_kill_disable");
        assert_eq!(control, "oom_kill_disable 1");
    }
}

#[test]
fn rates_of_a_block_device() {
    let partitions = fs::read_to_string("/proc/partitions").unwrap_or_default();
    let numbers = partitions.lines().nth(2).and_then(|line| {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some((words.next()?, words.next()?))
    });
    let Some((major, minor)) = numbers.filter(|_| privileged()) else {
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
    let rates = if version_2() {
        vec![("io.max", "rbps=1000000 wbps=2000000 riops=30 wiops=40")]
    } else {
        vec![
            ("blkio/blkio.throttle.read_bps_device", "1000000"),
            ("blkio/blkio.throttle.write_bps_device", "2000000"),
            ("blkio/blkio.throttle.read_iops_device", "30"),
            ("blkio/blkio.throttle.write_iops_device", "40"),
        ]
    };
    let step = |file: &str| format!("read /sys/fs/cgroup/{file}");
    let steps: Vec<String> = rates.iter().map(|(file, _)| step(file)).collect();
    let words: Vec<&str> = steps.iter().map(String::as_str).collect();
    let seen = lab.steps(&options, &words);
    for (file, rate) in rates {
        assert_eq!(seen.answer(&step(file)), format!("{major}:{minor} {rate}"));
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
