//! Filters in the running kernel. Each case runs in a process of its own: this test program
//! again, with the case in its environment.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use libc::{EPERM, c_long, c_ulong};
use nix::sys::prctl::set_no_new_privs;

use super::*;
use crate::capabilities::{ThreadCapabilities, host_bounding_set, narrow};

const CASE: &str = "KOBUNE_SECCOMP_CASE";

#[test]
fn the_default_profile_confines() {
    if is_root() {
        assert!(run_child("default").success());
    }
}

#[test]
fn with_the_administrators_capability_mount_reaches_the_kernel() {
    if is_root() {
        assert!(run_child("administrator").success());
    }
}

#[test]
fn what_is_dropped_after_loading_is_gone() {
    if is_root() {
        assert!(run_child("narrow").success());
    }
}

#[test]
fn without_privilege_a_filter_needs_no_new_privs() {
    assert!(run_child("unprivileged").success());
}

#[test]
fn a_filter_can_end_the_process() {
    let status = run_child("kill");
    assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}");
}

#[test]
fn this_kernel_has_filters() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(supported(), status.contains("\nSeccomp:"));
}

/// Body of the child processes; passes vacuously where it is not one.
#[test]
fn child() {
    match std::env::var(CASE).as_deref() {
        Ok("default") => default(),
        Ok("administrator") => administrator(),
        Ok("narrow") => narrowed(),
        Ok("unprivileged") => unprivileged(),
        Ok("kill") => kill(),
        Ok(other) => panic!("no case {other}"),
        Err(_) => {}
    }
}

fn default() {
    let native = Arch::native().unwrap();
    assert_eq!(mount(), Some(libc::EFAULT));
    default_program(native, &[]).load().unwrap();
    assert_eq!(thread_status("Seccomp"), "2");
    assert_eq!(mount(), Some(EPERM));
    assert_eq!(call(libc::SYS_unshare, 0x1000_0000), Some(EPERM));
    assert_eq!(call(libc::SYS_clone3, 0), Some(libc::ENOSYS));
    assert_eq!(call(libc::SYS_keyctl, 0), Some(EPERM));
    assert_eq!(call(libc::SYS_getpid, 0), None);
    assert_eq!(call(libc::SYS_personality, 0xffff_ffff), None);
    assert_eq!(call(libc::SYS_personality, 0x0004_0000), Some(EPERM));
    assert_eq!(call(libc::SYS_socket, 38), Some(EPERM));
    assert_ne!(call(libc::SYS_socket, 1), Some(EPERM));
    assert_eq!(call(900, 0), Some(libc::ENOSYS));
    // Threads and programs still start.
    std::thread::spawn(|| {}).join().unwrap();
    assert!(Command::new("/bin/true").status().unwrap().success());
}

fn administrator() {
    let native = Arch::native().unwrap();
    default_program(native, &[Capability::SysAdmin])
        .load()
        .unwrap();
    assert_eq!(mount(), Some(libc::EFAULT));
    assert_eq!(call(libc::SYS_keyctl, 0), Some(EPERM));
}

fn narrowed() {
    let few: CapabilitySet = [Capability::Kill, Capability::NetRaw].into_iter().collect();
    let one: CapabilitySet = [Capability::Kill].into_iter().collect();
    let wanted = ThreadCapabilities {
        bounding: few,
        effective: one,
        permitted: few,
        inheritable: one,
        ambient: one,
    };
    // As a process that enters a container has it.
    narrow(&wanted.for_loading()).unwrap();
    assert_eq!(thread_status("CapEff"), "0000000000200020");
    default_program(Arch::native().unwrap(), &[])
        .load()
        .unwrap();
    for _ in 0..2 {
        narrow(&wanted).unwrap();
        for (field, mask) in [
            ("CapBnd", "0000000000002020"),
            ("CapPrm", "0000000000002020"),
            ("CapEff", "0000000000000020"),
            ("CapInh", "0000000000000020"),
            ("CapAmb", "0000000000000020"),
        ] {
            assert_eq!(thread_status(field), mask, "{field}");
        }
    }
    let more = ThreadCapabilities {
        permitted: few.with(Capability::SysAdmin),
        ..wanted
    };
    assert!(narrow(&more).is_err());
}

fn unprivileged() {
    let nothing = ThreadCapabilities {
        bounding: host_bounding_set().unwrap(),
        ..ThreadCapabilities::default()
    };
    narrow(&nothing).unwrap();
    let program = default_program(Arch::native().unwrap(), &[]);
    assert!(matches!(program.load(), Err(SeccompError::NotPermitted)));
    assert_eq!(thread_status("Seccomp"), "0");
    set_no_new_privs().unwrap();
    program.load().unwrap();
    assert_eq!(thread_status("Seccomp"), "2");
}

fn kill() {
    let getppid = rule(&["getppid"], LinuxSeccompAction::ScmpActKillProcess, &[]);
    let profile = profile(LinuxSeccompAction::ScmpActAllow, vec![getppid]);
    let program = compile(&profile, Arch::native().unwrap()).unwrap();
    set_no_new_privs().unwrap();
    program.load().unwrap();
    call(libc::SYS_getppid, 0);
}

/// Error number of a call with one argument, or none.
fn call(number: c_long, first: c_ulong) -> Option<i32> {
    let result = crate::sys::raw(number, [first, 0, 0, 0, 0]);
    result.err().and_then(|e| e.raw_os_error())
}

/// mount(2) from nowhere to nowhere: EFAULT once it reaches the kernel's own checks.
fn mount() -> Option<i32> {
    call(libc::SYS_mount, 0)
}

fn thread_status(field: &str) -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let mut values = status
        .lines()
        .filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    values.next().expect(field).trim().to_owned()
}

fn run_child(case: &str) -> ExitStatus {
    let own = std::env::current_exe().unwrap();
    let name = format!("{}::child", module_path!().split_once("::").unwrap().1);
    Command::new(own)
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(CASE, case)
        .status()
        .unwrap()
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    assert!(
        root || std::env::var_os("CI").is_none(),
        "CI must run as root"
    );
    if !root {
        eprintln!("skipped: needs root to load a filter without no_new_privs");
    }
    root
}
