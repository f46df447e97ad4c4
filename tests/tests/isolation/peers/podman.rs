//! Podman, with files of its own, and where a module is not what it would be under it. Docker's
//! answer is the module's, but where the reason says otherwise.

use std::fs;
use std::process::{Command, Output};

use super::differences::{Group, Hierarchy};
use super::{Case, Peer, THEIRS};
use crate::lab::Lab;

const ALL: &[&str] = &["default", "hardened", "privileged"];
const CONFINED: &[&str] = &["default", "hardened"];
const DEFAULT: &[&str] = &["default"];
const HARDENED: &[&str] = &["hardened"];
const PRIVILEGED: &[&str] = &["privileged"];

/// Runs the program on a copy of the layer.
pub(super) struct Podman<'l> {
    lab: &'l Lab,
}

impl<'l> Podman<'l> {
    pub(super) fn new(lab: &'l Lab) -> Self {
        let installed = Command::new("podman").arg("--version").output();
        let _ = installed.expect("the set-up of the tests installs podman");
        Self { lab }
    }
}

impl Peer for Podman<'_> {
    const NAME: &'static str = "podman";
    const DIFFERENCES: &'static [Group] = GROUPS;
    const CASES: &'static [&'static str] = ALL;
    // It copies the machine's file, and adds a random name; without a network there is no other.
    const UNASKED: &'static [&'static str] = &["read /etc/hosts", "read /etc/resolv.conf"];

    fn run(&self, case: &Case, words: &[String]) -> Output {
        let dir = self.lab.path("podman").join(case.name);
        let root = dir.join("root");
        fs::create_dir_all(&root).unwrap();
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(self.lab.layer().join(".")).arg(&root);
        assert!(copy.status().unwrap().success());
        let mut podman = self.lab.device().command("podman");
        for (option, name) in [
            ("--root", "graph"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
        ] {
            podman.arg(option).arg(dir.join(name));
        }
        podman
            .args([
                "--storage-driver=vfs",
                "--runtime=runc",
                "--cgroup-manager=cgroupfs",
            ])
            .args(["run", "--log-driver=none"])
            .arg(format!(
                "--cgroup-parent={}/podman",
                self.lab.device().cgroup()
            ))
            .args(THEIRS)
            .args(case.theirs);
        if case.theirs.contains(&"--read-only") {
            // Of itself podman makes /run, /tmp and /var/tmp writable on a read-only root.
            podman.arg("--read-only-tmpfs=false");
        }
        podman.arg("--rootfs").arg(&root).arg("/probe").args(words);
        podman.output().unwrap()
    }
}

const GIVEN: &str = "Prm Eff Bnd";
const SET_USER_ID: &str = "Eff Bnd";

const GROUPS: &[Group] = &[
    Group {
        why: "capabilities: modules have Docker's fourteen; podman drops three of them",
        on: Hierarchy::Any,
        of: &[
            (DEFAULT, "capability CAP_NET_RAW", GIVEN, ""),
            (DEFAULT, "capability CAP_MKNOD", GIVEN, ""),
            (DEFAULT, "capability CAP_AUDIT_WRITE", GIVEN, ""),
            (DEFAULT, "/as-root: capability CAP_NET_RAW", SET_USER_ID, ""),
            (DEFAULT, "/as-root: capability CAP_MKNOD", SET_USER_ID, ""),
            (
                DEFAULT,
                "/as-root: capability CAP_AUDIT_WRITE",
                SET_USER_ID,
                "",
            ),
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
        on: Hierarchy::Any,
        of: &[
            (CONFINED, "syscall clone3", "ENOSYS", "let through"),
            (CONFINED, "syscall keyctl", "EPERM", "let through"),
            (CONFINED, "syscall mount", "EPERM", "let through"),
            (CONFINED, "syscall get_mempolicy", "EPERM", "let through"),
            (CONFINED, "syscall mbind", "EPERM", "let through"),
            (CONFINED, "syscall mount_setattr", "EPERM", "let through"),
            (CONFINED, "syscall open_tree", "EPERM", "let through"),
            (CONFINED, "syscall pidfd_getfd", "EPERM", "let through"),
            (CONFINED, "syscall set_mempolicy", "EPERM", "let through"),
            (CONFINED, "syscall setns", "EPERM", "let through"),
            (CONFINED, "syscall socket 38", "EPERM", "let through"),
            (CONFINED, "syscall socket 40", "EPERM", "let through"),
            (CONFINED, "syscall umount2", "EPERM", "let through"),
            (CONFINED, "syscall unshare 131072", "EPERM", "let through"),
            (
                CONFINED,
                "syscall unshare 268435456",
                "EPERM",
                "let through",
            ),
        ],
    },
    Group {
        why: "system calls that neither filter lets through: podman's says that there are none",
        on: Hierarchy::Any,
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
        on: Hierarchy::Any,
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
        on: Hierarchy::Any,
        of: &[
            (CONFINED, "mount /proc/interrupts", "tmpfs nosuid,rw", ""),
            (CONFINED, "read /proc/interrupts", "nothing", "something"),
            (CONFINED, "mount /sys/dev/block", "", "tmpfs relatime,ro"),
        ],
    },
    Group {
        why: "podman's `/dev` is `noexec`, Docker's is not; masked files are its `/dev/null`",
        on: Hierarchy::Any,
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
        on: Hierarchy::Any,
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
        on: Hierarchy::Any,
        of: &[
            (ALL, "/etc has resolv.conf", "f 0644 0:0", ""),
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
        on: Hierarchy::Any,
        of: &[(ALL, "status Groups", "0 44", "44")],
    },
    Group {
        why: "the number of processes is not bounded unless it is asked for, as Docker's is not",
        on: Hierarchy::Version1,
        of: &[(ALL, "read /sys/fs/cgroup/pids/pids.max", "max", "2048")],
    },
    Group {
        why: "the same on cgroup version 2",
        on: Hierarchy::Version2,
        of: &[(ALL, "read /sys/fs/cgroup/pids.max", "max", "2048")],
    },
    Group {
        why: "cgroup version 1: the directory that the hierarchies are mounted in is read-only; \
              a hierarchy without controllers is seen as a whole; the mounts in a privileged \
              module lack flags that mean nothing where there are no devices and no programs",
        on: Hierarchy::Version1,
        of: &[
            (
                CONFINED,
                "mount /sys/fs/cgroup",
                "tmpfs nodev,noexec,nosuid,relatime,ro",
                "tmpfs nodev,noexec,nosuid,relatime,rw",
            ),
            (
                CONFINED,
                "mount /sys/fs/cgroup/systemd",
                "cgroup nodev,noexec,nosuid,relatime,ro (all of it)",
                "cgroup nodev,noexec,nosuid,relatime,ro",
            ),
            (
                PRIVILEGED,
                "mount /sys/fs/cgroup/systemd",
                "cgroup relatime,rw (all of it)",
                "cgroup nodev,noexec,nosuid,relatime,rw",
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
    },
];
