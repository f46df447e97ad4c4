use std::process::{Child, Command};

use super::*;
use crate::ContainerId;

const HYBRID: &str = "\
22 27 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw
30 22 0:26 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:15 master:2 - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /sys/fs/cgroup/de\\040vices rw - cgroup cgroup rw,clone_children,devices
35 30 0:30 / /somewhere/else rw - cgroup cgroup rw,clone_children,devices
36 30 0:31 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,release_agent=/x,freezer
";
const UNIFIED: &str = "30 22 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
const V1: &str = "30 22 0:26 / /cg/all rw - cgroup none rw,devices,freezer,memory\n";

fn path(text: &str) -> CgroupPath {
    CgroupPath::try_from(text).unwrap()
}

/// A cgroup below `/kobune-test-<pid>` in every hierarchy; ended and removed when dropped.
#[derive(Debug)]
pub(crate) struct TestCgroup {
    pub(crate) cgroups: Cgroups,
    pub(crate) path: CgroupPath,
}

impl TestCgroup {
    pub(crate) fn new(name: &str) -> Self {
        let path = path(&format!("/kobune-test-{}-{name}/leaf", std::process::id()));
        let cgroups = Cgroups::host().unwrap();
        let test = Self { cgroups, path };
        // A cpuset has no members before it has processors.
        let cpuset = test.cgroups.v1_dir("cpuset", &test.path);
        for dir in test
            .cgroups
            .dirs(&test.path)
            .filter(|dir| Some(dir) != cpuset.as_ref())
        {
            fs::create_dir_all(&dir).unwrap();
        }
        test
    }

    fn spawn_in(&self, dir: &Path) -> Child {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().to_string();
        write_existing(&dir.join("cgroup.procs"), &pid).unwrap();
        child
    }
}

impl Drop for TestCgroup {
    fn drop(&mut self) {
        let parent = self.path.as_str().rsplit_once('/').unwrap().0;
        let parent = path(parent);
        let result = self.cgroups.kill(&parent);
        let result = result.and(self.cgroups.remove(&parent));
        if !std::thread::panicking() {
            result.unwrap();
        }
    }
}

/// Whether tests that change the host can run; they must, in CI.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    assert!(
        root || std::env::var_os("CI").is_none(),
        "CI must run as root"
    );
    if !root {
        eprintln!("skipped: needs root to make cgroups");
    }
    root
}

#[test]
fn hierarchies_are_found_in_the_mounts() {
    let hybrid = Cgroups::parse(HYBRID).unwrap();
    let leaf = path("/kobune/a");
    for (controller, expected) in [
        ("devices", Some("/sys/fs/cgroup/de vices/kobune/a")),
        ("cpuacct", Some("/sys/fs/cgroup/cpu,cpuacct/kobune/a")),
        ("freezer", Some("/sys/fs/cgroup/freezer/kobune/a")),
        ("name=systemd", Some("/sys/fs/cgroup/systemd/kobune/a")),
        ("memory", None),
        ("rw", None),
        ("clone_children", None),
    ] {
        let found = hybrid.v1_dir(controller, &leaf);
        assert_eq!(found.as_deref(), expected.map(Path::new), "{controller}");
    }
    let v2 = Some("/sys/fs/cgroup/unified/kobune/a".into());
    assert_eq!(hybrid.v2_dir(&leaf), v2);
    assert_eq!(hybrid.dirs(&leaf).count(), 5);
}

#[test]
fn the_mode_follows_from_what_is_mounted_where() {
    let later = "40 1 0:40 / /mnt/net rw - cgroup cgroup rw,net_cls\n";
    for (mountinfo, mode) in [
        (HYBRID.to_owned(), CgroupMode::Hybrid),
        (UNIFIED.to_owned(), CgroupMode::Unified),
        (V1.to_owned(), CgroupMode::Legacy),
        (UNIFIED.to_owned() + later, CgroupMode::Unified),
        (
            UNIFIED.replace("/sys/fs/cgroup", "/cg"),
            CgroupMode::Unified,
        ),
    ] {
        assert_eq!(
            Cgroups::parse(&mountinfo).unwrap().mode(),
            mode,
            "{mountinfo}"
        );
    }
    let none = Cgroups::parse("22 27 0:21 / /sys rw - sysfs sysfs rw\n\nbroken - cgroup");
    assert!(matches!(none, Err(CgroupError::NoHierarchy)));
}

#[test]
fn controllers_are_those_that_hold_containers() {
    let names = |mountinfo: &str| {
        let found = Cgroups::parse(mountinfo).unwrap().controllers().unwrap();
        found.into_iter().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(HYBRID), "cpu cpuacct devices freezer");
    assert_eq!(names(V1), "devices freezer memory");
    let mount = tempfile::tempdir().unwrap();
    let place = mount.path().to_str().unwrap();
    fs::write(mount.path().join("cgroup.controllers"), "cpu io pids\n").unwrap();
    assert_eq!(
        names(&UNIFIED.replace("/sys/fs/cgroup", place)),
        "cpu io pids"
    );
    let absent = Cgroups::parse(&UNIFIED.replace("/sys/fs/cgroup", "/nowhere")).unwrap();
    let error = absent.controllers().unwrap_err();
    assert!(
        error.to_string().contains("/nowhere/cgroup.controllers"),
        "{error}"
    );
}

#[test]
fn paths_name_a_cgroup_below_the_root() {
    let id = ContainerId::try_from("tempSensor").unwrap();
    assert_eq!(path("/kobune").join(&id).as_str(), "/kobune/tempSensor");
    assert_eq!(path("/a/b.c").as_str(), "/a/b.c");
    for bad in ["", "/", "a", "/a/", "//a", "/a/../..", "/.", "/a//b", "/\0"] {
        assert!(CgroupPath::try_from(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn processes_are_ended_and_the_cgroup_removed_in_every_hierarchy() {
    if !is_root() {
        return;
    }
    let test = TestCgroup::new("kill");
    let (cgroups, path) = (&test.cgroups, &test.path);
    let mut children = Vec::new();
    for dir in cgroups.dirs(path).filter(|dir| dir.exists()) {
        children.push(test.spawn_in(&dir));
        let nested = dir.join("nested");
        fs::create_dir(&nested).unwrap();
        if cgroups.v2_dir(path) != Some(dir) {
            children.push(test.spawn_in(&nested));
        }
    }
    let pids: BTreeSet<_> = children.iter().map(|c| c.id().cast_signed()).collect();
    assert!(!pids.is_empty());
    assert_eq!(cgroups.processes(path).unwrap(), pids);
    let busy = cgroups.remove(path);
    assert!(matches!(busy, Err(CgroupError::Remove { .. })), "{busy:?}");

    cgroups.kill(path).unwrap();
    for mut child in children {
        assert!(!child.wait().unwrap().success());
    }
    for _ in 0..2 {
        cgroups.remove(path).unwrap();
        assert!(cgroups.dirs(path).all(|dir| !dir.exists()));
        assert_eq!(cgroups.processes(path).unwrap(), BTreeSet::new());
        cgroups.kill(path).unwrap();
    }
}

#[test]
fn frozen_processes_are_ended_too() {
    if !is_root() {
        return;
    }
    let test = TestCgroup::new("freeze");
    let Some(freezer) = test.cgroups.v1_dir("freezer", &test.path) else {
        eprintln!("skipped: no freezer of version 1 on this host");
        return;
    };
    let mut child = test.spawn_in(&freezer);
    write_existing(&freezer.join("freezer.state"), "FROZEN").unwrap();
    test.cgroups.kill(&test.path).unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn launchers_make_the_cgroups_above_theirs_at_the_same_time() {
    let mount = tempfile::tempdir().unwrap();
    let line = format!(
        "30 22 0:26 / {} rw - cgroup2 cgroup rw\n",
        mount.path().display()
    );
    let cgroups = Cgroups::parse(&line).unwrap();
    for round in 0..50 {
        let leaf = |name| path(&format!("/kobune-{round}/below/{name}"));
        std::thread::scope(|scope| {
            let make = |name| {
                scope.spawn({
                    let cgroups = &cgroups;
                    move || cgroups.make_parents(&leaf(name))
                })
            };
            for thread in ["a", "b", "c"].map(make) {
                thread.join().unwrap().unwrap();
            }
        });
        assert!(mount.path().join(format!("kobune-{round}/below")).is_dir());
        assert!(
            !mount
                .path()
                .join(format!("kobune-{round}/below/a"))
                .exists()
        );
    }

    // Where controllers are in version 1, nothing is made.
    let hybrid = format!("{V1}{line}");
    Cgroups::parse(&hybrid)
        .unwrap()
        .make_parents(&path("/other/a"))
        .unwrap();
    assert!(!mount.path().join("other").exists());
}
