//! Rules in the running kernel, in both versions. A child enters the cgroup and opens device
//! nodes: ENXIO (no driver) means that the rules let it through, EPERM that they did not.
//! The child is this test program again.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::*;
use crate::cgroup::tests::{TestCgroup, is_root};
use crate::cgroup::write_existing;

const CGROUP: &str = "KOBUNE_DEVICE_CGROUP";
const NODES: &str = "KOBUNE_DEVICE_NODES";

/// Node, read-write open, read-only open: `+` passed the rules, `-` refused.
type Outcome<'a> = [(&'a str, &'a str); 4];

const CASES: &[(&[&str], Outcome<'_>)] = &[
    (
        &["deny a *:* rwm"],
        [("i2c", "--"), ("tun", "--"), ("null", "--"), ("loop", "--")],
    ),
    (
        &["allow c 89:1 rw", "allow c 1:3 rwm"],
        [("i2c", "++"), ("tun", "--"), ("null", "++"), ("loop", "--")],
    ),
    (
        &["allow c 89:1 r", "allow b *:* rwm"],
        [("i2c", "-+"), ("tun", "--"), ("null", "--"), ("loop", "++")],
    ),
    (
        &["allow c 89:1 r", "allow c 89:1 w"],
        [("i2c", "++"), ("tun", "--"), ("null", "--"), ("loop", "--")],
    ),
    (
        &["allow c 89:* r", "allow c 89:1 w"],
        [("i2c", "-+"), ("tun", "--"), ("null", "--"), ("loop", "--")],
    ),
    (
        &["allow a *:* rwm", "deny c 89:* w"],
        [("i2c", "-+"), ("tun", "++"), ("null", "++"), ("loop", "++")],
    ),
    (
        &["allow a *:* rwm"],
        [("i2c", "++"), ("tun", "++"), ("null", "++"), ("loop", "++")],
    ),
];

/// Each case replaces the one before, in one cgroup.
fn check_all(dir: &Path, apply: impl Fn(&Policy)) {
    let nodes = make_nodes();
    for (rules, expected) in CASES {
        apply(&Policy::from_rules(&parse_all(rules)).unwrap());
        assert_eq!(probe(dir, nodes.path()), *expected, "{rules:?}");
    }
    apply(&Policy::from_rules(&docker_default_rules()).unwrap());
    let defaults = [("i2c", "--"), ("tun", "--"), ("null", "++"), ("loop", "--")];
    assert_eq!(probe(dir, nodes.path()), defaults);
}

#[test]
fn version_1_keeps_exactly_the_given_rules() {
    if !is_root() {
        return;
    }
    let test = TestCgroup::new("devices-v1");
    let Some(dir) = test.cgroups.v1_dir("devices", &test.path) else {
        eprintln!("skipped: no devices controller of version 1 on this host");
        return;
    };
    check_all(&dir, |policy| v1::apply(&dir, policy).unwrap());
    // What libcontainer leaves behind goes away.
    write_existing(&dir.join("devices.allow"), "c 10:200 rwm").unwrap();
    if test.cgroups.mode() != CgroupMode::Unified {
        for _ in 0..2 {
            apply(&test.cgroups, &test.path, &docker_default_rules()).unwrap();
            let list = fs::read_to_string(dir.join("devices.list")).unwrap();
            assert!(!list.contains("10:200"), "{list}");
            assert_eq!(list.lines().count(), 11, "{list}");
        }
    }
}

#[test]
fn version_2_runs_a_program_in_place_of_the_earlier_one() {
    if !is_root() {
        return;
    }
    let test = TestCgroup::new("devices-v2");
    let Some(dir) = test.cgroups.v2_dir(&test.path) else {
        eprintln!("skipped: no cgroup v2 on this host");
        return;
    };
    check_all(&dir, |policy| {
        v2::apply(&dir, policy).unwrap();
        let expected = usize::from(*policy != Policy::from_rules(&[allow_all_rule()]).unwrap());
        let cgroup = fs::File::open(&dir).unwrap();
        let attached = crate::sys::bpf_attached(std::os::fd::AsFd::as_fd(&cgroup)).unwrap();
        assert_eq!(attached.len(), expected);
    });
}

#[test]
fn a_host_with_version_2_alone_gets_a_program() {
    if !is_root() {
        return;
    }
    let test = TestCgroup::new("devices-unified");
    let root = CgroupPath::try_from("/x").unwrap();
    let Some(mount) = test.cgroups.v2_dir(&root) else {
        eprintln!("skipped: no cgroup v2 on this host");
        return;
    };
    // This host, had it no version 1.
    let mount = mount.parent().unwrap().display();
    let mountinfo = format!("30 22 0:26 / {mount} rw - cgroup2 cgroup2 rw");
    let unified = Cgroups::parse(&mountinfo).unwrap();
    let dir = unified.v2_dir(&test.path).unwrap();
    let nodes = make_nodes();
    let defaults = [("i2c", "--"), ("tun", "--"), ("null", "++"), ("loop", "--")];
    for _ in 0..2 {
        apply(&unified, &test.path, &docker_default_rules()).unwrap();
        assert_eq!(probe(&dir, nodes.path()), defaults);
    }
}

#[test]
fn version_2_takes_hundreds_of_rules() {
    if !is_root() {
        return;
    }
    let test = TestCgroup::new("devices-many");
    let Some(dir) = test.cgroups.v2_dir(&test.path) else {
        eprintln!("skipped: no cgroup v2 on this host");
        return;
    };
    let number = |n| (Some(n), Some(n));
    let many: Vec<_> = (0..400)
        .map(|n| rule(true, DeviceClass::Char, number(n), DeviceAccess::ALL))
        .collect();
    v2::apply(&dir, &Policy::from_rules(&many).unwrap()).unwrap();
    let nodes = make_nodes();
    let expected = [("i2c", "--"), ("tun", "--"), ("null", "--"), ("loop", "--")];
    assert_eq!(probe(&dir, nodes.path()), expected);
}

#[test]
fn a_cgroup_that_is_gone_is_named() {
    let missing = Path::new("/sys/fs/cgroup/kobune-test-missing");
    let policy = Policy::from_rules(&docker_default_rules()).unwrap();
    let v1 = v1::apply(missing, &policy);
    assert!(matches!(v1, Err(DeviceCgroupError::Write { path, .. }) if path.starts_with(missing)));
    let v2 = v2::apply(missing, &policy);
    assert!(matches!(v2, Err(DeviceCgroupError::Program { path, .. }) if path == missing));
}

/// Body of the child processes; passes vacuously where it is not one.
#[test]
fn child() {
    let (Ok(cgroup), Ok(nodes)) = (std::env::var(CGROUP), std::env::var(NODES)) else {
        return;
    };
    write_existing(&Path::new(&cgroup).join("cgroup.procs"), "0").unwrap();
    let nodes = Path::new(&nodes);
    let results = ["i2c", "tun", "null", "loop"].map(|name| {
        let node = nodes.join(name);
        format!("{name} {}{}\n", open(&node, true), open(&node, false))
    });
    fs::write(nodes.join("results"), results.concat()).unwrap();
}

fn open(node: &Path, write: bool) -> char {
    let result = OpenOptions::new().read(true).write(write).open(node);
    match result.map_err(|e| e.raw_os_error().map(Errno::from_raw)) {
        Ok(_) | Err(Some(Errno::ENXIO | Errno::ENODEV | Errno::ENOENT)) => '+',
        Err(Some(Errno::EPERM)) => '-',
        Err(other) => panic!("{}: {other:?}", node.display()),
    }
}

fn make_nodes() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, kind, major, minor) in [
        ("i2c", SFlag::S_IFCHR, 89, 1),
        ("tun", SFlag::S_IFCHR, 10, 200),
        ("null", SFlag::S_IFCHR, 1, 3),
        // A block major for local use: never has a driver.
        ("loop", SFlag::S_IFBLK, 240, 77),
    ] {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        mknod(&dir.path().join(name), kind, mode, makedev(major, minor)).unwrap();
    }
    dir
}

/// What a process in the cgroup can do with the nodes.
fn probe(cgroup: &Path, nodes: &Path) -> Outcome<'static> {
    let results = nodes.join("results");
    let _ = fs::remove_file(&results);
    let name = format!("{}::child", module_path!().split_once("::").unwrap().1);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--test-threads=1"])
        .env(CGROUP, cgroup)
        .env(NODES, nodes)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let results = fs::read_to_string(results).unwrap();
    ["i2c", "tun", "null", "loop"].map(|name| {
        let line = results
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        let found = ["++", "+-", "-+", "--"]
            .into_iter()
            .find(|o| *o == line.trim());
        (name, found.unwrap())
    })
}
