use std::path::PathBuf;

use kobune_runtime::cgroup::CgroupMode;
use kobune_runtime::{EngineInUse, Timestamp};

use super::seen::{Cgroups, Directory, Engine, Firewalls, Kernel, OverlayError, Reached};
use super::*;

/// A device with which nothing is wrong.
fn healthy() -> Observations {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    Observations {
        config: Ok("valid".to_owned()),
        is_root: true,
        root_is_mount: true,
        missing_programs: Vec::new(),
        daemon: Some(env!("CARGO_PKG_VERSION").to_owned()),
        others: Vec::new(),
        kernel: Kernel {
            release: "6.1.0-18-arm64".to_owned(),
            namespaces: words(&["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]),
            seccomp: true,
        },
        cgroups: Ok(Cgroups {
            mode: CgroupMode::Unified,
            controllers: words(&["cpu", "cpuset", "io", "memory", "pids"]),
        }),
        state: Directory {
            path: "/var/lib/kobune".into(),
            filesystem: "ext4".to_owned(),
            writable: Ok(()),
            free: 4 << 30,
            free_files: 200_000,
            files: 250_000,
        },
        overlay: Some(Ok(())),
        userns: Some(Ok(())),
        remap: false,
        network: Some(Ok(Engine {
            in_use: EngineInUse::NfTables,
            reason: None,
        })),
        firewalls: Some(Ok(Firewalls {
            bridge: "azure-iot-edge".to_owned(),
            closed: Vec::new(),
        })),
        now: Timestamp::from_unix(1_790_000_000, 0),
        hub: Some(Reached {
            name: "hub.example".to_owned(),
            result: Ok(()),
        }),
        registries: vec![Reached {
            name: "registry.example".to_owned(),
            result: Ok(()),
        }],
        missing_devices: Vec::new(),
        deployment: Ok(2),
    }
}

#[derive(Debug, PartialEq)]
enum Grade {
    Warning,
    Error,
}

type Spoil = fn(&mut Observations);

fn v1(seen: &mut Observations, controllers: &[&str]) {
    seen.cgroups = Ok(Cgroups {
        mode: CgroupMode::Hybrid,
        controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
    });
}

/// What is wrong, the check that has to notice, and how bad that is.
const FAILING: &[(&str, Grade, Spoil)] = {
    use Grade::{Error, Warning};
    &[
        ("config", Error, |s| s.config = Err("line 3".to_owned())),
        ("root", Warning, |s| s.is_root = false),
        ("root-mount", Error, |s| s.root_is_mount = false),
        ("programs", Error, |s| {
            s.missing_programs = vec!["kobune-shim"];
        }),
        ("daemon", Warning, |s| s.daemon = Some("0.0.1".to_owned())),
        ("other-agents", Warning, |s| {
            s.others = vec![PathBuf::from("/run/iotedge/mgmt.sock")];
        }),
        ("kernel-version", Error, |s| {
            "4.4.38".clone_into(&mut s.kernel.release);
        }),
        ("kernel-version", Warning, |s| {
            "weird".clone_into(&mut s.kernel.release);
        }),
        ("namespaces", Error, |s| {
            s.kernel.namespaces.remove("net");
        }),
        ("user-namespaces", Error, |s| {
            s.remap = true;
            s.userns = Some(Err("its file system cannot be id-mapped".to_owned()));
        }),
        ("seccomp", Warning, |s| s.kernel.seccomp = false),
        ("cgroups", Error, |s| {
            s.cgroups = Err("no cgroup hierarchy is mounted".to_owned());
        }),
        ("device-rules", Error, |s| v1(s, &["cpu", "memory", "pids"])),
        ("device-rules", Error, |s| {
            "4.14.0".clone_into(&mut s.kernel.release);
        }),
        ("cgroup-controllers", Warning, |s| {
            v1(s, &["cpu", "devices", "pids"]);
        }),
        ("state-writable", Error, |s| {
            s.state.writable = Err("Read-only file system".to_owned());
        }),
        ("state-filesystem", Warning, |s| {
            "tmpfs".clone_into(&mut s.state.filesystem);
        }),
        ("state-filesystem", Error, |s| {
            "overlay".clone_into(&mut s.state.filesystem);
        }),
        ("state-filesystem", Error, |s| {
            "vfat".clone_into(&mut s.state.filesystem);
        }),
        ("state-space", Error, |s| s.state.free = 3 << 20),
        ("state-space", Warning, |s| s.state.free = 100 << 20),
        ("state-space", Warning, |s| s.state.free_files = 17),
        ("overlay", Warning, |s| {
            s.overlay = Some(Err(OverlayError::Unknown));
        }),
        ("overlay", Error, |s| {
            s.overlay = Some(Err(OverlayError::Other("invalid argument".to_owned())));
        }),
        ("bridge", Error, |s| {
            s.network = Some(Err("not supported".to_owned()));
        }),
        ("ports", Warning, |s| {
            s.network = Some(Ok(Engine {
                in_use: EngineInUse::Forwarder,
                reason: Some("no nf_tables".to_owned()),
            }));
        }),
        ("firewall", Warning, |s| {
            s.firewalls = Some(Ok(Firewalls {
                bridge: "azure-iot-edge".to_owned(),
                closed: vec!["chain filter_FORWARD of table inet firewalld".to_owned()],
            }));
        }),
        ("clock", Warning, |s| s.now = Timestamp::from_unix(12, 0)),
        ("hub", Warning, |s| {
            s.hub.as_mut().unwrap().result = refused();
        }),
        ("registries", Warning, |s| {
            s.registries[0].result = refused();
        }),
        ("deployment", Error, |s| {
            s.deployment = Err("not valid any more".to_owned());
        }),
        ("devices", Warning, |s| {
            s.missing_devices = vec![("button".to_owned(), "/dev/i2c-1".into())];
        }),
    ]
};

fn refused() -> Result<(), String> {
    Err("connection refused".to_owned())
}

#[test]
fn a_healthy_device_passes_every_check() {
    let report = judge(&healthy(), &[]);
    let not_ok = |answer: &&Answer| !matches!(answer.verdict, Verdict::Ok { .. });
    let not_ok: Vec<&Answer> = report.checks.iter().filter(not_ok).collect();
    assert_eq!(not_ok, Vec::<&Answer>::new());
    assert_eq!((report.warnings, report.errors), (0, 0));
}

#[test]
fn each_failing_case_is_noticed_by_its_check_and_by_no_other() {
    for (id, grade, spoil) in FAILING {
        let mut seen = healthy();
        spoil(&mut seen);
        let report = judge(&seen, &[]);
        for answer in &report.checks {
            let found = match &answer.verdict {
                Verdict::Warning(_) => Some(Grade::Warning),
                Verdict::Error(_) => Some(Grade::Error),
                Verdict::Ok { .. } | Verdict::Skipped { .. } => None,
            };
            // A kernel that is too old is so for device programs too.
            let also = *id == "kernel-version" && answer.id == "device-rules";
            match found {
                Some(found) if answer.id == *id => assert_eq!(found, *grade, "{id}"),
                Some(found) => assert!(also, "{id}: {} says {found:?}", answer.id),
                None => assert_ne!(answer.id, *id, "{id} does not notice"),
            }
        }
    }
}

#[test]
fn every_check_has_a_failing_case_and_an_id_of_its_own() {
    let mut ids: Vec<&str> = checks().map(|check| check.id).collect();
    for id in &ids {
        assert!(FAILING.iter().any(|(case, ..)| case == id), "{id}");
    }
    ids.sort_unstable();
    let count = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn findings_name_what_was_seen_what_comes_of_it_and_a_cure() {
    let mut seen = healthy();
    seen.missing_devices = vec![("button".to_owned(), "/dev/i2c-1".into())];
    let text = text(&judge(&seen, &[]));
    for part in [
        "/dev/i2c-1 (button)",
        "do not start",
        "i2c-dev",
        "1 warnings, 0 errors",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[test]
fn a_check_that_is_skipped_finds_nothing() {
    let mut seen = healthy();
    seen.kernel.seccomp = false;
    let skip = ["seccomp".to_owned()];
    assert_eq!(known(&skip), Ok(()));
    assert_eq!(judge(&seen, &skip).warnings, 0);
    let unknown = ["secomp".to_owned()];
    assert_eq!(known(&unknown), Err(UnknownCheck("secomp".to_owned())));
}

#[test]
fn the_table_in_the_documentation_is_this_one() {
    let documented = include_str!("../../../docs/check.md");
    for check in checks() {
        let row = format!("| `{}` | {} |", check.id, check.title);
        assert!(documented.contains(&row), "docs/check.md lacks {row:?}");
    }
    let rows = documented.lines().filter(|line| line.starts_with("| `"));
    assert_eq!(rows.count(), checks().count());
}
