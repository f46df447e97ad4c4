//! Debian's dockerd on the device, and where a module is not what it would be under it.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use kobune_tests::CliOutput;

use super::differences::{Group, Hierarchy};
use super::{Case, Peer, THEIRS};
use crate::lab::Lab;

/// A stand-in of that name may come first in the path.
const CLIENT: &str = "/usr/bin/docker";
const DAEMON: &str = "/usr/sbin/dockerd";
/// containerd and runc are Debian's, too.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes an image of a directory.
const IMPORT: &str = r#"tar -C "$1" -c . | "$2" -H "$3" import - probe"#;

/// Version 20.10 gives all capabilities of the kernel to who is privileged, later ones those that
/// there are: some machines hold this one back.
const RUNTIME: &str = r#"#!/bin/sh
for word; do
    [ "$before" = --bundle ] && sed -i 's/"CAP_SYS_RESOURCE",//g' "$word/config.json"
    before=$word
done
exec runc "$@"
"#;

/// A daemon with files, processes, mounts and cgroups of its own. All of them end with it.
pub(super) struct Docker<'l> {
    lab: &'l Lab,
    dir: PathBuf,
    daemon: Child,
}

impl<'l> Docker<'l> {
    /// Starts it, with the layer as its image `probe`.
    pub(super) fn start(lab: &'l Lab) -> Self {
        let dir = lab.path("docker");
        fs::create_dir(&dir).unwrap();
        let daemon = spawn(lab, &dir);
        let docker = Self { lab, dir, daemon };
        docker.wait();
        let mut import = lab.device().command("sh");
        import.args(["-ec", IMPORT, "sh"]).arg(lab.layer());
        let _ = CliOutput::of(import.arg(CLIENT).arg(docker.socket())).ok();
        docker
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let answer = self.client().arg("version").output().unwrap();
            if answer.status.success() {
                return;
            }
            let log = || fs::read_to_string(self.dir.join("log")).unwrap();
            assert!(Instant::now() < deadline, "no dockerd: {}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn client(&self) -> Command {
        let mut client = self.lab.device().command(CLIENT);
        client.arg("-H").arg(self.socket());
        client
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.dir.join("sock").display())
    }
}

/// The daemon, first in a namespace of processes: who ends it ends containerd, its shims and
/// what they run. Its storage asks for no file system in particular.
fn spawn(lab: &Lab, dir: &Path) -> Child {
    let log = File::create(dir.join("log")).unwrap();
    let runtime = dir.join("runtime");
    fs::write(&runtime, RUNTIME).unwrap();
    fs::set_permissions(&runtime, Permissions::from_mode(0o755)).unwrap();
    let mut daemon = lab.device().command("unshare");
    daemon
        .args(["--pid", "--mount-proc", "--fork", "--kill-child", DAEMON])
        .args(["--storage-driver=vfs", "--bridge=none", "--iptables=false"])
        .arg(format!("--add-runtime=held-back={}", runtime.display()))
        .args(held_back().then_some("--default-runtime=held-back"))
        .arg(format!("--cgroup-parent={}/docker", lab.device().cgroup()))
        .arg(format!("--host=unix://{}", dir.join("sock").display()));
    for (option, name) in [
        ("--data-root", "data"),
        ("--exec-root", "exec"),
        ("--pidfile", "pid"),
    ] {
        daemon.arg(option).arg(dir.join(name));
    }
    daemon
        .env("PATH", PATH)
        // Or it loads a profile of AppArmor into the machine's kernel.
        .env("container", "test")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("the set-up of the tests installs docker.io")
}

/// Whether root on this machine lacks `CAP_SYS_RESOURCE`.
fn held_back() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding = u64::from_str_radix(bounding.unwrap().trim(), 16).unwrap();
    bounding >> 24 & 1 == 0
}

impl Drop for Docker<'_> {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Peer for Docker<'_> {
    const NAME: &'static str = "docker";
    const DIFFERENCES: &'static [Group] = GROUPS;
    const CASES: &'static [&'static str] = ALL;
    const UNASKED: &'static [&'static str] = &[];

    fn run(&self, case: &Case, words: &[String]) -> Output {
        let mut run = self.client();
        run.args(["run", "--log-driver=none"])
            .args(THEIRS)
            .args(case.theirs)
            .args(["probe", "/probe"])
            .args(words);
        run.output().unwrap()
    }
}

const ALL: &[&str] = &[
    "default",
    "hardened",
    "privileged",
    "fitted",
    "stranger",
    "terminal",
    "sharing",
];
/// Where system calls are filtered and files masked.
const CONFINED: &[&str] = &["default", "hardened", "fitted", "stranger", "terminal"];
/// The same, without capabilities that open more.
const PLAIN: &[&str] = &["default", "hardened", "fitted", "terminal"];
/// Root with Docker's own capabilities.
const ROOT: &[&str] = &["default", "terminal", "sharing"];
const UNPRIVILEGED: &[&str] = &[
    "default", "hardened", "fitted", "stranger", "terminal", "sharing",
];
const PRIVILEGED: &[&str] = &["privileged"];
/// With all capabilities.
const ALMIGHTY: &[&str] = &["privileged", "stranger"];

const GROUPS: &[Group] = &[
    Group {
        why: "Docker says what it is: `/.dockerenv`",
        on: Hierarchy::Any,
        of: &[(ALL, "/ has .dockerenv", "", "f 0755 0:0")],
    },
    Group {
        why: "system calls: modules have the filter of today's Docker, which closed `AF_VSOCK` \
              (23.0), io_uring (25.0) and `AF_ALG` (2026) and opened the other two",
        on: Hierarchy::Any,
        of: &[
            (CONFINED, "syscall socket 40", "EPERM", "let through"),
            (CONFINED, "syscall io_uring_setup", "EPERM", "let through"),
            (CONFINED, "syscall socket 38", "EPERM", "let through"),
            (PLAIN, "syscall name_to_handle_at", "let through", "EPERM"),
            (PLAIN, "syscall process_vm_readv", "let through", "EPERM"),
        ],
    },
    Group {
        why: "`/proc/interrupts` is masked, as by Docker since 28: its counters tell what others do",
        on: Hierarchy::Any,
        of: &[
            (CONFINED, "mount /proc/interrupts", "tmpfs nosuid,rw", ""),
            (CONFINED, "read /proc/interrupts", "nothing", "something"),
        ],
    },
    Group {
        why: "all capabilities are all that the kernel has; Docker 20.10 knows those of Linux 5.7",
        on: Hierarchy::Any,
        of: &[
            (PRIVILEGED, "capability CAP_PERFMON", "Prm Eff Bnd", ""),
            (PRIVILEGED, "capability CAP_BPF", "Prm Eff Bnd", ""),
            (
                PRIVILEGED,
                "capability CAP_CHECKPOINT_RESTORE",
                "Prm Eff Bnd",
                "",
            ),
            (&["stranger"], "capability CAP_PERFMON", "Bnd", ""),
            (ALMIGHTY, "/as-root: capability CAP_PERFMON", "Eff Bnd", ""),
            (&["stranger"], "capability CAP_BPF", "Bnd", ""),
            (ALMIGHTY, "/as-root: capability CAP_BPF", "Eff Bnd", ""),
            (
                &["stranger"],
                "capability CAP_CHECKPOINT_RESTORE",
                "Bnd",
                "",
            ),
            (
                ALMIGHTY,
                "/as-root: capability CAP_CHECKPOINT_RESTORE",
                "Eff Bnd",
                "",
            ),
        ],
    },
    Group {
        why: "the loopback interface has IPv6, as Docker's since 26.0",
        on: Hierarchy::Any,
        of: &[
            (
                ALL,
                "read /proc/sys/net/ipv6/conf/all/disable_ipv6",
                "0",
                "1",
            ),
            (
                ALL,
                "read /proc/sys/net/ipv6/conf/lo/disable_ipv6",
                "0",
                "1",
            ),
        ],
    },
    Group {
        why: "the TUN device is opened to those alone that name it in `Devices`: runc opens it to \
              every container that makes a node of it",
        on: Hierarchy::Any,
        of: &[(ROOT, "open /dev/tunnel rw", "EPERM", "ok")],
    },
    Group {
        why: "cgroup version 1: the directory that the hierarchies are mounted in is read-only; \
              a hierarchy without controllers is seen as a whole; the mounts in a privileged \
              module lack flags that mean nothing where there are no devices and no programs",
        on: Hierarchy::Version1,
        of: &[
            (
                UNPRIVILEGED,
                "mount /sys/fs/cgroup",
                "tmpfs nodev,noexec,nosuid,relatime,ro",
                "tmpfs nodev,noexec,nosuid,relatime,rw",
            ),
            (ROOT, "write /sys/fs/cgroup/x x", "EROFS", "ok"),
            (
                &["hardened", "fitted", "stranger"],
                "write /sys/fs/cgroup/x x",
                "EROFS",
                "EACCES",
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
            (
                PRIVILEGED,
                "mount /sys/fs/cgroup/*",
                "cgroup relatime,rw",
                "cgroup nodev,noexec,nosuid,relatime,rw",
            ),
        ],
    },
    Group {
        why: "cgroup version 2: shares become weights of which the default is the default, as with \
              runc since 1.3.2; dockerd looks for limits of swap in the cgroup that it is in itself",
        on: Hierarchy::Version2,
        of: &[
            (&["fitted"], "read /sys/fs/cgroup/cpu.weight", "59", "20"),
            (
                &["fitted"],
                "read /sys/fs/cgroup/memory.swap.max",
                "67108864",
                "max",
            ),
        ],
    },
];
