//! Docker's documented defaults as a table: for each the question, asked inside, and docker's
//! answer. The sources are Docker's reference of `docker run` ("Runtime privilege and Linux
//! capabilities", "Default devices") and "Seccomp security profiles for Docker"; masked and
//! read-only paths are those of moby's default specification.

use kobune_tests::privileged;
use serde_json::json;

use crate::lab::Lab;

/// What is promised, how to ask for it, and docker's answers with and without
/// `--privileged`; absent where the answer depends on the machine.
struct Default {
    of: &'static str,
    question: &'static str,
    confined: &'static str,
    privileged: Option<&'static str>,
}

const fn row(
    of: &'static str,
    question: &'static str,
    confined: &'static str,
    privileged: Option<&'static str>,
) -> Default {
    Default {
        of,
        question,
        confined,
        privileged,
    }
}

const TABLE: [Default; 15] = [
    row(
        "/proc/sys is read-only",
        "write /proc/sys/kernel/msgmax 8192",
        "EROFS",
        Some("ok"),
    ),
    row("/proc/keys is masked", "read /proc/keys", "", None),
    row(
        "/proc/timer_list is masked",
        "read /proc/timer_list",
        "",
        None,
    ),
    row(
        "/proc/interrupts is masked",
        "read /proc/interrupts",
        "",
        None,
    ),
    row("/sys/firmware is masked", "list /sys/firmware", "", None),
    row(
        "/sys is read-only",
        "write /sys/kernel/uevent_helper x",
        "EROFS",
        None,
    ),
    row(
        "cgroups are read-only",
        "write /sys/fs/cgroup/x x",
        "EROFS",
        None,
    ),
    row("the root is writable", "write /file x", "ok", Some("ok")),
    row(
        "names are the runtime's",
        "write /etc/hosts x",
        "ok",
        Some("ok"),
    ),
    row(
        "devices in memory are there",
        "open /dev/zero r",
        "ok",
        Some("ok"),
    ),
    row(
        "no node elsewhere opens",
        "mknod /dev/kmsg2 1 11",
        "ok",
        Some("ok"),
    ),
    row(
        "no node elsewhere opens",
        "open /dev/kmsg2 r",
        "EPERM",
        Some("ok"),
    ),
    row(
        "namespaces cannot be made",
        "syscall unshare 131072",
        "EPERM",
        Some("ok"),
    ),
    row(
        "low ports need no capability",
        "read /proc/sys/net/ipv4/ip_unprivileged_port_start",
        "0",
        Some("0"),
    ),
    row(
        "ping needs no capability",
        "read /proc/sys/net/ipv4/ping_group_range",
        "0\t2147483647",
        Some("0\t2147483647"),
    ),
];

#[test]
fn dockers_defaults_hold() {
    if !privileged() {
        return;
    }
    let lab = Lab::new();
    let questions: Vec<&str> = TABLE.iter().map(|row| row.question).collect();
    let confined = lab.steps(&json!({}), &questions);
    for row in &TABLE {
        assert_eq!(confined.answer(row.question), row.confined, "{}", row.of);
    }
    let open = json!({ "HostConfig": { "Privileged": true } });
    let questions: Vec<&str> = TABLE
        .iter()
        .filter(|row| row.privileged.is_some())
        .map(|row| row.question)
        .collect();
    let open = lab.steps(&open, &questions);
    for row in &TABLE {
        if let Some(answer) = row.privileged {
            assert_eq!(open.answer(row.question), answer, "{} (privileged)", row.of);
        }
    }
}

/// Kind and flags of docker's own mounts.
#[test]
fn mounts_have_dockers_flags() {
    if !privileged() {
        return;
    }
    let seen = Lab::new().steps(&json!({}), &["mounts"]);
    for (target, kind, flags) in [
        ("/", "overlay", "rw"),
        ("/proc", "proc", "rw,nosuid,nodev,noexec"),
        ("/dev", "tmpfs", "rw,nosuid"),
        ("/dev/pts", "devpts", "rw,nosuid,noexec"),
        ("/sys", "sysfs", "ro,nosuid,nodev,noexec"),
        ("/dev/mqueue", "mqueue", "rw,nosuid,nodev,noexec"),
        ("/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec"),
        ("/proc/sys", "proc", "ro,nosuid,nodev,noexec"),
        ("/proc/bus", "proc", "ro,nosuid,nodev,noexec"),
        ("/proc/fs", "proc", "ro,nosuid,nodev,noexec"),
        ("/proc/irq", "proc", "ro,nosuid,nodev,noexec"),
        ("/sys/firmware", "tmpfs", "ro"),
    ] {
        let mounts = seen.answer("mounts");
        let line = mounts
            .lines()
            .find(|line| line.split(' ').nth(4) == Some(target));
        let line = line.unwrap_or_else(|| panic!("no mount on {target} in {mounts}"));
        let own = line.split(' ').nth(5).unwrap();
        for flag in flags.split(',') {
            assert!(
                own.split(',').any(|other| other == flag),
                "{flag} in {line}"
            );
        }
        assert!(line.contains(&format!(" - {kind} ")), "{line}");
    }
}
