//! The released launcher on kernels that lack what newer ones have.
//!
//! The kernels are this machine's, with a filter that answers ENOSYS to every system call
//! younger than a version, and the name of one that is older than all. What else such a kernel would do differently is not seen here.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use kobune_runtime::seccomp;
use kobune_tests::{Agent, Device, cross_built, full, privileged, probe, tutorial, until};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OpenHow, openat2};
use nix::sys::personality::{self, Persona};
use nix::sys::utsname::uname;
use serde_json::json;

/// System calls and the version that brought them: what programs of ours or theirs may try. Not
/// rseq (4.18): the C library of this test ends a thread that cannot have what the first one has,
/// and that of the static programs does not use it.
const YOUNGER: [((u32, u32), &[&str]); 14] = [
    ((4, 11), &["statx"]),
    (
        (5, 1),
        &[
            "pidfd_send_signal",
            "io_uring_setup",
            "io_uring_enter",
            "io_uring_register",
        ],
    ),
    (
        (5, 2),
        &[
            "open_tree",
            "move_mount",
            "fsopen",
            "fsconfig",
            "fsmount",
            "fspick",
        ],
    ),
    ((5, 3), &["pidfd_open", "clone3"]),
    ((5, 6), &["openat2", "pidfd_getfd"]),
    ((5, 8), &["faccessat2"]),
    ((5, 9), &["close_range"]),
    ((5, 11), &["epoll_pwait2"]),
    ((5, 12), &["mount_setattr"]),
    (
        (5, 13),
        &[
            "landlock_create_ruleset",
            "landlock_add_rule",
            "landlock_restrict_self",
        ],
    ),
    ((5, 14), &["quotactl_fd"]),
    ((5, 16), &["futex_waitv"]),
    ((6, 6), &["fchmodat2"]),
    ((6, 8), &["statmount", "listmount"]),
];

/// The oldest that is promised, and those that boards' vendors keep.
const VERSIONS: [(u32, u32); 7] = [(4, 9), (4, 19), (5, 4), (5, 7), (5, 10), (5, 15), (6, 1)];

#[test]
fn the_tutorial_runs_on_kernels_from_4_9_on() {
    for version in VERSIONS {
        on_kernel(version, move || run_tutorial(version));
    }
}

#[test]
fn every_engine_publishes_ports_on_kernels_from_4_9_on() {
    for version in VERSIONS {
        for engine in ["nftables", "iptables", "forwarder"] {
            on_kernel(version, move || run_probe(version, engine));
        }
    }
}

/// Only with `KOBUNE_FULL`: the programs as they are released take minutes to build.
fn on_kernel(version: (u32, u32), test: impl FnOnce() + Send + 'static) {
    if !full() || !cross_built() || !privileged() {
        return;
    }
    // A filter stays with the thread that loaded it and with what that starts.
    let on_it = std::thread::spawn(test);
    assert!(on_it.join().is_ok(), "on Linux {}.{}", version.0, version.1);
}

fn run_tutorial(version: (u32, u32)) {
    // What needs today's kernel itself comes first.
    let programs = released_programs();
    let device = Device::new();
    let registry = tutorial::registry(&device, &["1.0"]);
    pretend(version);
    let extra = format!("programs_dir = \"{}\"", programs.display());
    let agent = Agent::start(&device, &extra);
    let _ = agent.apply(&tutorial::deployment(&registry, "1.0")).ok();
    let _ = agent.wait_running("button-acr");
    let _ = agent.wait_running("led-acr");
    let answer = device.http("POST", "http://127.0.0.1/True");
    assert_eq!(answer.expect("an answer").0, 200);
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

/// A module starts, answers by a published port, has a process joined to it, starts again
/// and ends.
fn run_probe(version: (u32, u32), engine: &str) {
    let programs = released_programs();
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    pretend(version);
    let extra = format!(
        "programs_dir = \"{}\"\n[network]\nengine = \"{engine}\"",
        programs.display()
    );
    let agent = Agent::start(&device, &extra);
    let ports = json!({ "PortBindings": { "7/tcp": [{ "HostPort": "7000" }] } });
    let module = probe::module_with(&registry, &["listen", "tcp", "7"], ports);
    let _ = agent.apply(&probe::deployment([("tcp", module)])).ok();
    for starts in 1..=2 {
        let _ = agent.wait_running("tcp");
        let listening = || agent.logs("tcp").matches("listening tcp").count() == starts;
        until(30, "the module listens", listening);
        let answer = device.in_network(|| TcpStream::connect("127.0.0.1:7000").map(drop));
        assert!(answer.is_ok(), "{engine}: {answer:?}");
        let joined = agent.cli(&["exec", "tcp", "/probe", "hosts", "tcp"]);
        assert_eq!(joined.code, 0, "{}", joined.stdout);
        if starts == 1 {
            let _ = agent.cli(&["restart", "tcp"]).ok();
        }
    }
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

/// Makes the kernel look as old as `version` to this thread and what it starts; by its name it
/// is older still (2.6.x, uname26), for whoever decides by that and not by what works.
fn pretend(version: (u32, u32)) {
    personality::set(Persona::UNAME26).expect("a personality");
    let release = uname().expect("a name").release().to_owned();
    assert!(release.to_string_lossy().starts_with("2.6."), "{release:?}");
    let younger = YOUNGER.iter().filter(|(since, _)| *since > version);
    let names: Vec<&str> = younger
        .flat_map(|(_, names)| names.iter().copied())
        .collect();
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }],
    });
    let profile = serde_json::from_value(profile).expect("a profile");
    let arch = seccomp::Arch::native().expect("a known processor");
    let filter = seccomp::compile(&profile, arch).expect("a filter");
    assert_eq!(
        filter.ignored(),
        Vec::<String>::new(),
        "unknown system calls"
    );
    filter.load().expect("the filter is loaded");
    let opened = openat2(AT_FDCWD, "/", OpenHow::new()).map(drop);
    let expected = if version < (5, 6) {
        Err(Errno::ENOSYS)
    } else {
        Ok(())
    };
    assert_eq!(opened, expected, "the filter is not what it should be");
}

/// The directory of the static programs, with the patched libcontainer: what
/// `KOBUNE_STATIC_PROGRAMS` names, such as a distributor's build, or our own.
fn released_programs() -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        if let Some(dir) = std::env::var_os("KOBUNE_STATIC_PROGRAMS") {
            return dir.into();
        }
        let arch = std::env::consts::ARCH.replace("aarch64", "arm64");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["run", "--quiet", "--locked", "--package", "xtask", "--"])
            .args(["cross", &arch])
            .output()
            .expect("cargo runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let path = text
            .lines()
            .find_map(|line| line.trim().strip_suffix("/kobune"));
        let path = path.and_then(|path| path.split_whitespace().last());
        let errors = String::from_utf8_lossy(&output.stderr);
        PathBuf::from(path.unwrap_or_else(|| panic!("no static programs: {text}{errors}")))
    });
    dir.clone()
}
