//! Whole specifications. `UPDATE_GOLDEN=1` writes the expected files anew.

use std::fs;

use oci_spec::runtime::LinuxSeccomp;
use serde_json::Value;

use super::*;
use crate::facts::BindSource;
use crate::options::{Mount, MountSource, Resources};

#[test]
fn plain_module() {
    let case = Case::new();
    check("default", &case);
}

/// The LED module of the tutorial: `Privileged`, one I2C bus.
#[test]
fn privileged_module_with_device() {
    let mut case = Case::new();
    case.options.privilege = Privilege::Privileged;
    case.seccomp = None;
    case.facts.mapped_devices = vec![i2c("rwm")];
    case.facts.host_devices = vec![
        i2c("rwm"),
        DeviceNode {
            host_path: "/dev/mmcblk0".into(),
            container_path: "/dev/mmcblk0".into(),
            class: DeviceClass::Block,
            major: 179,
            minor: 0,
            gid: 6,
            ..i2c("rwm")
        },
    ];
    check("led-privileged", &case);
}

#[test]
fn hardened_module() {
    let mut case = Case::new();
    let config = ConfigBuilder::default()
        .entrypoint(strings(&["/app"]))
        .cmd(strings(&["--serve"]))
        .env(strings(&["PATH=/bin", "MODE=image"]))
        .user("app")
        .working_dir("/srv/./app/../data/")
        .volumes(strings(&["/srv/state"]))
        .exposed_ports(strings(&["8080/tcp", "53/udp"]))
        .stop_signal("SIGINT");
    case.image = image(config);
    case.facts.user =
        user::resolve("app", "app:x:1000:1000::/home/app:/bin/sh", "i2c:x:44:app").unwrap();
    case.facts.cgroup = CgroupMode::V2;
    case.facts.mapped_devices = vec![i2c("rw")];
    let keys = PathBuf::from("/etc/keys");
    case.facts
        .bind_sources
        .insert(keys.clone(), BindSource::File);
    let options = &mut case.options;
    options.readonly_rootfs = true;
    options.env = strings(&["MODE=options"]);
    options.hostname = Some("sensor".to_owned());
    options.labels.insert("site".to_owned(), "7".to_owned());
    options.resources = Resources {
        memory: Some(64 << 20),
        nano_cpus: Some(500_000_000),
        pids: Some(32),
        ..Resources::default()
    };
    options.mounts = vec![
        Mount {
            source: MountSource::Bind {
                path: keys,
                create_missing: false,
                propagation: None,
                non_recursive: false,
                force_read_only: false,
            },
            target: "/run/keys/key".into(),
            read_only: true,
        },
        Mount {
            source: MountSource::Tmpfs {
                size: Some(1 << 20),
                mode: Some(0o700),
                options: Vec::new(),
            },
            target: "/run".into(),
            read_only: false,
        },
        Mount {
            source: MountSource::volume(Some("log".to_owned())),
            target: "/var/log/".into(),
            read_only: false,
        },
    ];
    check("hardened", &case);
}

fn check(name: &str, case: &Case) {
    let built = case.build().unwrap();
    assert_eq!(built.warnings, []);
    let mut actual = serde_json::to_value(&built.spec).unwrap();
    sort_capabilities(&mut actual);
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.json"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(&actual).unwrap();
        fs::write(&path, text + "\n").unwrap();
    }
    let expected: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(actual, expected, "differs from {}", path.display());
    let seccomp = built.spec.linux().as_ref().unwrap().seccomp();
    let expected = (!case.options.privilege.eq(&Privilege::Privileged)).then(LinuxSeccomp::default);
    assert_eq!(*seccomp, expected);
}

/// They are sets, written in any order.
fn sort_capabilities(spec: &mut Value) {
    let sets = spec["process"]["capabilities"].as_object_mut().unwrap();
    for set in sets.values_mut() {
        let list = set.as_array_mut().unwrap();
        list.sort_by_key(|capability| capability.to_string());
    }
}
