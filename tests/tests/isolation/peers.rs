//! The same program under another engine and as a module, with options that mean the same: what
//! it sees is the same, but for the [`differences`], each of which is there and has a reason.

mod differences;
mod docker;
mod facts;
mod podman;

use std::collections::BTreeSet;
use std::fs;
use std::process::Output;

use kobune_tests::privileged;
use kobune_tests::root::repository;
use serde_json::{Value, json};

use self::differences::{Difference, Group};
use self::facts::{Facts, facts};
use crate::lab::{Lab, Seen, with_steps};
use crate::seccomp;

/// What is asked beside the verdicts of the system call filter.
const QUESTIONS: [&str; 98] = [
    "caps",
    "mounts",
    "list /dev",
    "list /",
    "list /run",
    "list /sys/firmware",
    "list /proc/acpi",
    "list /proc/asound",
    "list /proc/scsi",
    "list /sys/devices/virtual/powercap",
    "list /sys/class/net",
    "list /etc",
    "list /dev/pts",
    "list /dev/mqueue",
    "list /data",
    "read /proc/self/limits",
    "read /proc/self/oom_score_adj",
    "read /proc/self/coredump_filter",
    "read /proc/self/loginuid",
    "read /proc/self/personality",
    "read /proc/self/timerslack_ns",
    "read /proc/self/uid_map",
    "read /proc/1/comm",
    "read /proc/self/cgroup",
    "read /proc/keys",
    "read /proc/timer_list",
    "open /proc/kcore r",
    "open /proc/latency_stats r",
    "open /proc/sched_debug r",
    "read /proc/interrupts",
    "read /proc/sys/fs/mqueue/msg_max",
    "read /proc/sys/kernel/domainname",
    "read /proc/sys/kernel/hostname",
    "read /proc/sys/kernel/msgmax",
    "read /proc/sys/kernel/shmmax",
    "read /proc/sys/net/ipv4/ip_forward",
    "read /proc/sys/net/ipv4/ip_unprivileged_port_start",
    "read /proc/sys/net/ipv4/ping_group_range",
    "read /proc/sys/net/core/somaxconn",
    "read /proc/sys/net/ipv6/conf/all/disable_ipv6",
    "read /proc/sys/net/ipv6/conf/lo/disable_ipv6",
    "read /proc/sys/net/ipv4/conf/all/forwarding",
    "read /etc/hosts",
    "read /etc/hostname",
    "read /etc/resolv.conf",
    "read /sys/fs/cgroup/memory/memory.limit_in_bytes",
    "read /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes",
    "read /sys/fs/cgroup/memory/memory.soft_limit_in_bytes",
    "read /sys/fs/cgroup/cpu/cpu.shares",
    "read /sys/fs/cgroup/cpu/cpu.cfs_quota_us",
    "read /sys/fs/cgroup/cpu/cpu.cfs_period_us",
    "read /sys/fs/cgroup/cpuset/cpuset.cpus",
    "read /sys/fs/cgroup/pids/pids.max",
    "read /sys/fs/cgroup/memory.max",
    "read /sys/fs/cgroup/memory.swap.max",
    "read /sys/fs/cgroup/memory.low",
    "read /sys/fs/cgroup/cpu.weight",
    "read /sys/fs/cgroup/cpu.max",
    "read /sys/fs/cgroup/cpuset.cpus",
    "read /sys/fs/cgroup/pids.max",
    "write /proc/sys/kernel/msgmax 8192",
    "write /sys/kernel/uevent_helper x",
    "write /sys/fs/cgroup/x x",
    "write /file x",
    "write /dev/shm/file x",
    "write /scratch/file x",
    "write /bound/file x",
    "write /data/file x",
    "mknod /dev/memory 1 1",
    "open /dev/memory r",
    "mknod /dev/tunnel 10 200",
    "open /dev/tunnel rw",
    "open /dev/zero r",
    "open /dev/i2c-1 rw",
    "id",
    "exec /as-root status Uid NoNewPrivs CapEff CapBnd",
    "env",
    "session",
    "cwd",
    "fds",
    "status Umask SigBlk SigCgt SigIgn Speculation Cpus_allowed_list Mems_allowed_list Threads Seccomp_filters THP_enabled CoreDumping",
    "syscall socket 38",
    "syscall delete_module",
    "syscall fsopen",
    "syscall get_mempolicy",
    "syscall landlock_create_ruleset",
    "syscall mbind",
    "syscall mount_setattr",
    "syscall move_mount",
    "syscall name_to_handle_at",
    "syscall open_tree",
    "syscall pidfd_getfd",
    "syscall process_vm_readv",
    "syscall quotactl",
    "syscall set_mempolicy",
    "syscall settimeofday",
    "syscall swapoff",
    "syscall syslog",
];

/// Options that mean the same: as docker's API has them, and as its command line does.
struct Case {
    name: &'static str,
    ours: fn() -> Value,
    theirs: &'static [&'static str],
}

const CASES: [Case; 7] = [
    Case {
        name: "default",
        ours: || json!({}),
        theirs: &[],
    },
    Case {
        name: "hardened",
        ours: || {
            json!({ "HostConfig": {
                "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "ReadonlyRootfs": true,
            }})
        },
        theirs: &[
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            "--read-only",
        ],
    },
    Case {
        name: "privileged",
        ours: || json!({ "HostConfig": { "Privileged": true } }),
        theirs: &["--privileged"],
    },
    Case {
        name: "fitted",
        ours: || {
            let device = json!({
                "PathOnHost": "/dev/i2c-1", "PathInContainer": "/dev/i2c-1", "CgroupPermissions": "rwm",
            });
            json!({
                "User": "app", "WorkingDir": "/opt", "Env": ["NAME=two words"],
                "HostConfig": {
                    "CapAdd": ["NET_ADMIN"], "CapDrop": ["CHOWN"],
                    "Devices": [device], "GroupAdd": ["video", "7"],
                    "Sysctls": { "net.core.somaxconn": "77", "kernel.msgmax": "4096" },
                    "ShmSize": 1 << 20, "OomScoreAdj": 321,
                    "Binds": ["/usr/share:/bound:ro", "data:/data"],
                    "ReadonlyRootfs": true, "Tmpfs": { "/scratch": "size=1m,mode=1777" },
                    "Memory": 64 << 20, "MemoryReservation": 32 << 20, "NanoCpus": 500_000_000,
                    "CpuShares": 512, "CpusetCpus": "0", "PidsLimit": 100,
                },
            })
        },
        theirs: &[
            "--user=app",
            "--workdir=/opt",
            "--env=NAME=two words",
            "--cap-add=NET_ADMIN",
            "--cap-drop=CHOWN",
            "--device=/dev/i2c-1",
            "--group-add=video",
            "--group-add=7",
            "--sysctl=net.core.somaxconn=77",
            "--sysctl=kernel.msgmax=4096",
            "--shm-size=1m",
            "--oom-score-adj=321",
            "--read-only",
            "--volume=/usr/share:/bound:ro",
            "--volume=data:/data",
            "--tmpfs=/scratch:size=1m,mode=1777",
            "--memory=64m",
            "--memory-reservation=32m",
            "--cpus=0.5",
            "--cpu-shares=512",
            "--cpuset-cpus=0",
            "--pids-limit=100",
        ],
    },
    Case {
        name: "stranger",
        ours: || json!({ "User": "4321:17", "HostConfig": { "CapAdd": ["ALL"] } }),
        theirs: &["--user=4321:17", "--cap-add=ALL"],
    },
    Case {
        name: "terminal",
        ours: || json!({ "Tty": true }),
        theirs: &["--tty"],
    },
    Case {
        name: "sharing",
        ours: || {
            json!({ "HostConfig": {
                "IpcMode": "host", "CgroupnsMode": "private",
                "SecurityOpt": ["seccomp=unconfined", "systempaths=unconfined"],
            }})
        },
        theirs: &[
            "--ipc=host",
            "--cgroupns=private",
            "--security-opt=seccomp=unconfined",
            "--security-opt=systempaths=unconfined",
        ],
    },
];

/// What each case has besides, on their command lines; [`ours`] has the same.
const THEIRS: [&str; 6] = [
    "--rm",
    "--network=none",
    "--hostname=unit",
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=1000:1000",
    "--ulimit=core=0:0",
];

/// Another engine, on a lab's device.
trait Peer {
    /// The engine's name.
    const NAME: &'static str;
    /// Where a module is not what it would be under it.
    const DIFFERENCES: &'static [Group];

    /// The cases that are compared.
    const CASES: &'static [&'static str];
    /// Questions whose answers say more of the machine than of the engine.
    const UNASKED: &'static [&'static str];

    /// Runs `/probe` with `words` and the options of a case.
    fn run(&self, case: &Case, words: &[String]) -> Output;
}

/// Where the differences are documented, between two lines for each peer.
const DOCUMENT: &str = "docs/security-model.md";

#[test]
fn modules_see_what_they_would_see_under_podman() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    compare(&lab, &podman::Podman::new(&lab));
}

#[test]
fn modules_see_what_they_would_see_under_docker() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    compare(&lab, &docker::Docker::start(&lab));
}

fn compare<P: Peer>(lab: &Lab, peer: &P) {
    let found: BTreeSet<Difference> = CASES
        .iter()
        .filter(|case| P::CASES.contains(&case.name))
        .flat_map(|case| compared(lab, peer, case))
        .collect();
    let listed = differences::all(P::DIFFERENCES);
    let unlisted: Vec<_> = found.difference(&listed).collect();
    let vanished: Vec<_> = listed.difference(&found).collect();
    assert!(
        unlisted.is_empty() && vanished.is_empty(),
        "differences from {} without a reason: {unlisted:#?}; that are no more: {vanished:#?}",
        P::NAME
    );
}

fn compared<P: Peer>(lab: &Lab, peer: &P, case: &Case) -> Vec<Difference> {
    let verdicts = seccomp::DEFAULT.iter().map(|(line, _)| *line);
    let lines = QUESTIONS.into_iter().chain(verdicts);
    let lines: Vec<&str> = lines.filter(|line| !P::UNASKED.contains(line)).collect();
    let ours = facts(lab.steps(&ours(case), &lines), &lines);
    let theirs = facts(theirs(peer, case, &lines), &lines);
    let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    names
        .into_iter()
        .filter(|name| ours.get(*name) != theirs.get(*name))
        .map(|name| {
            let value = |of: &Facts| of.get(name).cloned().unwrap_or_default();
            let (ours, theirs) = (value(&ours), value(&theirs));
            (case.name.to_owned(), name.clone(), ours, theirs)
        })
        .collect()
}

fn ours(case: &Case) -> Value {
    let mut options = (case.ours)();
    options["Hostname"] = json!("unit");
    options["HostConfig"]["NetworkMode"] = json!("none");
    options["HostConfig"]["Ulimits"] = json!([
        { "Name": "nofile", "Soft": 1024, "Hard": 1024 },
        { "Name": "nproc", "Soft": 1000, "Hard": 1000 },
        { "Name": "core", "Soft": 0, "Hard": 0 },
    ]);
    options
}

fn theirs<P: Peer>(peer: &P, case: &Case, lines: &[&str]) -> Seen {
    let output = peer.run(case, &with_steps(lines));
    let seen = Seen {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        warnings: Vec::new(),
    };
    assert_eq!(seen.code, 0, "{}: {}", P::NAME, seen.stderr);
    seen
}

#[test]
fn the_documentation_has_the_differences() {
    let path = repository().join(DOCUMENT);
    let text = fs::read_to_string(&path).unwrap();
    let expected = with_table::<podman::Podman<'_>>(&text);
    let expected = with_table::<docker::Docker<'_>>(&expected);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap();
    assert!(written == expected, "{DOCUMENT} is not of these tables");
}

/// The text with the peer's table.
fn with_table<P: Peer>(text: &str) -> String {
    let begin = format!(
        "<!-- The differences from {} are written by `UPDATE_DOCS=1 cargo test -p kobune-tests \
         --test isolation`. -->\n",
        P::NAME
    );
    let end = format!("<!-- End of the differences from {}. -->", P::NAME);
    let (head, rest) = text.split_once(&begin).expect("the table begins");
    let (_, tail) = rest.split_once(&end).expect("the table ends");
    let table = differences::markdown(P::DIFFERENCES);
    format!("{head}{begin}\n{table}\n\n{end}{tail}")
}
