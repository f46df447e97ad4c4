//! Where a module is not what it would be under podman, and why. Docker's answer is the
//! module's, but where the reason says otherwise.

use std::collections::BTreeSet;
use std::path::Path;

use super::Difference;

/// Differences that have one reason.
pub(super) struct Group {
    why: &'static str,
    of: &'static [Row],
}

/// In which cases, of what, here, and under podman.
type Row = (Cases, &'static str, &'static str, &'static str);

type Cases = &'static [&'static str];

const ALL: Cases = &["default", "hardened", "privileged"];
const CONFINED: Cases = &["default", "hardened"];
const DEFAULT: Cases = &["default"];
const HARDENED: Cases = &["hardened"];
const PRIVILEGED: Cases = &["privileged"];

const GIVEN: &str = "Prm Eff Bnd";

const GROUPS: [Group; 11] = [
    Group {
        why: "capabilities: modules have Docker's fourteen; podman drops three of them",
        of: &[
            (DEFAULT, "capability CAP_NET_RAW", GIVEN, ""),
            (DEFAULT, "capability CAP_MKNOD", GIVEN, ""),
            (DEFAULT, "capability CAP_AUDIT_WRITE", GIVEN, ""),
            (DEFAULT, "mknod /dev/memory 1 1", "ok", "EPERM"),
            (DEFAULT, "mknod /dev/tunnel 10 200", "ok", "EPERM"),
            // Made by CAP_MKNOD, and of no use: the rules of the cgroup are the same.
            (DEFAULT, "open /dev/memory r", "EPERM", "ENOENT"),
            (DEFAULT, "open /dev/tunnel rw", "EPERM", "ENOENT"),
        ],
    },
    Group {
        why: "system calls: modules have Docker's filter; podman's lets namespaces be made, \
              mounts and keys be tried",
        of: &[
            (CONFINED, "syscall clone3", "ENOSYS", "EINVAL"),
            (CONFINED, "syscall keyctl", "EPERM", "EINVAL"),
            (CONFINED, "syscall mount", "EPERM", "EFAULT"),
            (CONFINED, "syscall setns", "EPERM", "EINVAL"),
            (CONFINED, "syscall socket 40", "EPERM", "ESOCKTNOSUPPORT"),
            (CONFINED, "syscall umount2", "EPERM", "EFAULT"),
            (CONFINED, "syscall unshare 131072", "EPERM", "ok"),
            (CONFINED, "syscall unshare 268435456", "EPERM", "ok"),
        ],
    },
    Group {
        why: "system calls that neither filter lets through: podman's says that there are none",
        of: &[
            (CONFINED, "syscall add_key", "EPERM", "ENOSYS"),
            (CONFINED, "syscall io_uring_setup", "EPERM", "ENOSYS"),
            (CONFINED, "syscall personality 262144", "EPERM", "ENOSYS"),
            (CONFINED, "syscall personality 4194304", "EPERM", "ENOSYS"),
            (CONFINED, "syscall request_key", "EPERM", "ENOSYS"),
        ],
    },
    Group {
        why: "ping and ports below 1024 need no capability: so Docker sets it in each network \
              namespace",
        of: &[
            (
                ALL,
                "read /proc/sys/net/ipv4/ip_unprivileged_port_start",
                "0",
                "1024",
            ),
            (
                ALL,
                "read /proc/sys/net/ipv4/ping_group_range",
                "0\t2147483647",
                "0\t0",
            ),
        ],
    },
    Group {
        why: "`/proc/interrupts` is masked, as by Docker: its counters tell what others do; \
              podman masks `/sys/dev/block`, Docker does not",
        of: &[
            (CONFINED, "mount /proc/interrupts", "tmpfs nosuid,rw", ""),
            (CONFINED, "read /proc/interrupts", "nothing", "something"),
            (CONFINED, "mount /sys/dev/block", "", "tmpfs relatime,ro"),
        ],
    },
    Group {
        why: "podman's `/dev` is `noexec`, Docker's is not; masked files are its `/dev/null`",
        of: &[
            (
                ALL,
                "mount /dev",
                "tmpfs nosuid,rw",
                "tmpfs noexec,nosuid,rw",
            ),
            (
                CONFINED,
                "mount /proc/keys",
                "tmpfs nosuid,rw",
                "tmpfs noexec,nosuid,rw",
            ),
            (
                CONFINED,
                "mount /proc/timer_list",
                "tmpfs nosuid,rw",
                "tmpfs noexec,nosuid,rw",
            ),
        ],
    },
    Group {
        why: "podman says what it is: `/run/.containerenv`, and `TERM` without a terminal",
        of: &[
            (ALL, "/ has run", "", "d 0755 0:0"),
            (ALL, "/run has .containerenv", "", "f 0644 0:0"),
            (ALL, "/run has ENOENT", "yes", ""),
            (DEFAULT, "mount /run/.containerenv", "", "disk rw"),
            (PRIVILEGED, "mount /run/.containerenv", "", "disk rw"),
            (
                HARDENED,
                "mount /run/.containerenv",
                "",
                "disk nodev,noexec,nosuid,ro",
            ),
            (ALL, "variable TERM", "", "xterm"),
        ],
    },
    Group {
        why: "`/etc/resolv.conf` is the runtime's also without a network; with a read-only root \
              its files are read-only, and nothing more",
        of: &[
            (DEFAULT, "mount /etc/resolv.conf", "disk rw", ""),
            (PRIVILEGED, "mount /etc/resolv.conf", "disk rw", ""),
            (HARDENED, "mount /etc/resolv.conf", "disk ro", ""),
            (
                HARDENED,
                "mount /etc/hostname",
                "disk ro",
                "disk nodev,noexec,nosuid,ro",
            ),
            (
                HARDENED,
                "mount /etc/hosts",
                "disk ro",
                "disk nodev,noexec,nosuid,ro",
            ),
        ],
    },
    Group {
        why: "the primary group is a supplementary one too, as Docker does since a program could \
              drop it",
        of: &[(ALL, "status Groups", "0 44", "44")],
    },
    Group {
        why: "signals: a module starts with none ignored; under podman number 32 is",
        of: &[(ALL, "status SigIgn", "0000000000001000", "0000000080001000")],
    },
    VERSION_1,
];

/// Of version 1 of cgroups alone.
const VERSION_1: Group = Group {
    why: "cgroup version 1: the directory of its hierarchies is read-only, as Docker's; their \
          mounts in a privileged module lack flags that mean nothing where there are no devices \
          and no programs",
    of: &[
        (
            CONFINED,
            "mount /sys/fs/cgroup",
            "tmpfs nodev,noexec,nosuid,relatime,ro",
            "tmpfs nodev,noexec,nosuid,relatime,rw",
        ),
        (DEFAULT, "write /sys/fs/cgroup/x x", "EROFS", "ok"),
        (HARDENED, "write /sys/fs/cgroup/x x", "EROFS", "EACCES"),
        (
            PRIVILEGED,
            "mount /sys/fs/cgroup/*",
            "cgroup relatime,rw",
            "cgroup nodev,noexec,nosuid,relatime,rw",
        ),
    ],
};

/// Every difference that this machine should show.
pub(super) fn all() -> BTreeSet<Difference> {
    let version_2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let groups = GROUPS
        .iter()
        .filter(|group| !(version_2 && group.why == VERSION_1.why));
    groups
        .flat_map(|group| group.of)
        .flat_map(|(cases, of, ours, theirs)| {
            cases
                .iter()
                .map(|case| [*case, *of, *ours, *theirs].map(str::to_owned).into())
        })
        .collect()
}

/// The table of the documentation.
pub(super) fn markdown() -> String {
    let row = |group: &Group| {
        let mut names: Vec<String> = Vec::new();
        for (_, of, ..) in group.of {
            let name = format!("`{of}`");
            if !names.contains(&name) {
                names.push(name);
            }
        }
        format!("| {} | {} |", group.why, names.join(", "))
    };
    let rows: Vec<String> = GROUPS.iter().map(row).collect();
    format!("| difference | seen by |\n|---|---|\n{}", rows.join("\n"))
}
