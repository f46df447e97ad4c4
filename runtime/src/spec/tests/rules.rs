//! Tables for arguments, environment, devices, limits and names.

use super::mounts::bind;
use super::*;
use crate::options::{DeviceRule, Resources};

#[test]
fn entrypoint_and_command_combine_as_docker_has_it() {
    type List = Option<&'static [&'static str]>;
    let rows: [(List, List, List, List, &[&str]); 9] = [
        (Some(&["e"]), Some(&["c"]), None, None, &["e", "c"]),
        (None, Some(&["c"]), None, None, &["c"]),
        (Some(&["e"]), Some(&["c"]), None, Some(&["x"]), &["e", "x"]),
        (Some(&["e"]), Some(&["c"]), Some(&["n"]), None, &["n"]),
        (
            Some(&["e"]),
            Some(&["c"]),
            Some(&["n"]),
            Some(&["x"]),
            &["n", "x"],
        ),
        (Some(&["e"]), Some(&["c"]), Some(&[]), None, &["c"]),
        (
            Some(&["e"]),
            Some(&["c"]),
            Some(&[""]),
            Some(&["x"]),
            &["x"],
        ),
        (Some(&["e"]), Some(&["c"]), Some(&[""]), None, &[]),
        (None, None, None, None, &[]),
    ];
    for (image_entrypoint, image_command, entrypoint, command, expected) in rows {
        let mut case = Case::new();
        let mut config = ConfigBuilder::default();
        if let Some(list) = image_entrypoint {
            config = config.entrypoint(strings(list));
        }
        if let Some(list) = image_command {
            config = config.cmd(strings(list));
        }
        case.image = image(config);
        case.options.entrypoint = entrypoint.map(strings);
        case.options.command = command.map(strings);
        let args = case.build().map(|built| {
            built
                .spec
                .process()
                .as_ref()
                .unwrap()
                .args()
                .clone()
                .unwrap()
        });
        let expected = match expected {
            [] => Err(SpecError::NoCommand),
            list => Ok(strings(list)),
        };
        assert_eq!(args, expected, "{entrypoint:?} {command:?}");
    }
}

#[test]
fn environment_entries_override_by_name() {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let rows: [(&[&str], &[&str], &[&str]); 6] = [
        (&[], &[], &[path, "HOSTNAME=led", "HOME=/root"]),
        (
            &["PATH=/i", "A=1"],
            &["A=2=3", "B="],
            &["PATH=/i", "HOSTNAME=led", "A=2=3", "B=", "HOME=/root"],
        ),
        (&["HOME=/i"], &[], &[path, "HOSTNAME=led", "HOME=/i"]),
        (&["HOME="], &[], &[path, "HOSTNAME=led", "HOME=/root"]),
        (&["A=1"], &["A", "PATH"], &["HOSTNAME=led", "HOME=/root"]),
        (&["HOSTNAME=x"], &["C"], &[path, "HOSTNAME=x", "HOME=/root"]),
    ];
    for (image, options, expected) in rows {
        let merged = env::merge("led", "/root", &strings(image), &strings(options), false);
        assert_eq!(merged, Ok(strings(expected)));
    }
    for bad in ["=x", "", "A=\0"] {
        let merged = env::merge("led", "/", &[], &strings(&[bad]), false);
        assert_ne!(merged.err(), None, "{bad:?}");
    }
}

#[test]
fn host_network_has_no_namespace_no_sysctl_and_the_hosts_name() {
    let mut case = Case::new();
    case.host_network = true;
    let spec = case.build().unwrap().spec;
    assert_eq!(spec.hostname().as_deref(), Some("gateway"));
    let linux = spec.linux().as_ref().unwrap();
    assert_eq!(linux.sysctl().as_ref().unwrap().len(), 0);
    let namespaces = linux.namespaces().as_ref().unwrap();
    let names: Vec<_> = namespaces.iter().map(|ns| ns.typ().to_string()).collect();
    assert_eq!(names, ["mnt", "uts", "pid", "ipc"]);
}

#[test]
fn cgroups_of_version_1_are_read_only_where_they_are_mounted() {
    let cgroups = |case: &Case| {
        let spec = case.build().unwrap().spec;
        let paths = spec.linux().as_ref().unwrap().readonly_paths().clone();
        let mut paths = paths.unwrap();
        paths.retain(|path| path.starts_with("/sys/"));
        paths
    };
    let mut case = Case::new();
    let all = [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/memory",
        "/sys/fs/cgroup/systemd",
    ];
    assert_eq!(cgroups(&case), all);
    case.options.mounts = vec![bind("/sys", "/sys")];
    assert_eq!(cgroups(&case), all);
    case.options.mounts = vec![bind("/sys/fs/cgroup", "/sys/fs/cgroup")];
    assert_eq!(cgroups(&case), [""; 0]);
    case.options.mounts.clear();
    case.facts.cgroup = CgroupMode::V2;
    assert_eq!(cgroups(&case), [""; 0]);
}

#[test]
fn a_mapped_device_gets_its_own_access_and_nothing_else() {
    let mut case = Case::new();
    let plain = case.device_rules();
    assert_eq!(plain[0], "-a *:* rwm");
    assert!(plain[1..].iter().all(|rule| !rule.starts_with(['-', 'a'])));

    case.facts.mapped_devices = vec![i2c("r")];
    let mapped = case.device_rules();
    assert_eq!(mapped[..plain.len()], plain);
    assert_eq!(mapped[plain.len()..], ["c 89:1 r"]);
}

#[test]
fn a_device_rule_for_both_classes_is_never_written_as_all_devices() {
    let mut case = Case::new();
    let plain = case.device_rules().len();
    case.options.device_rules = vec![DeviceRule {
        class: DeviceClass::All,
        major: Some(188),
        minor: None,
        access: DeviceAccess::try_from("rw").unwrap(),
    }];
    assert_eq!(case.device_rules()[plain..], ["c 188:* rw", "b 188:* rw"]);

    case.options.privilege = Privilege::Privileged;
    assert_eq!(case.device_rules(), ["a *:* rwm"]);
    let warnings = case.build().unwrap().warnings;
    assert_eq!(warnings, [SpecWarning::PrivilegedDeviceRules]);
}

#[test]
fn devices_are_created_once_and_only_where_nothing_is_mounted() {
    let paths = |case: &Case| -> Result<Vec<PathBuf>, SpecError> {
        let spec = case.build()?.spec;
        let devices = spec.linux().as_ref().unwrap().devices().clone().unwrap();
        Ok(devices.iter().map(|device| device.path().clone()).collect())
    };
    let mut case = Case::new();
    case.facts.mapped_devices = vec![i2c("r"), i2c("rw")];
    assert_eq!(paths(&case), Ok(vec!["/dev/i2c-1".into()]));

    case.facts.mapped_devices[1].minor = 2;
    let path = PathBuf::from("/dev/i2c-1");
    assert_eq!(paths(&case), Err(SpecError::DuplicateDevice { path }));

    for bad in ["/dev", "/opt/i2c", "/dev/../etc/x", "dev/i2c"] {
        let path = PathBuf::from(bad);
        case.facts.mapped_devices = vec![i2c("r")];
        case.facts.mapped_devices[0].container_path = path.clone();
        assert_eq!(paths(&case), Err(SpecError::DevicePath { path }));
    }

    case.facts.mapped_devices = vec![i2c("r")];
    case.facts.mapped_devices[0].container_path = "/dev/bus/usb/001".into();
    case.options.mounts = vec![bind("/dev/bus/usb", "/dev/bus/usb")];
    assert_eq!(paths(&case), Ok(Vec::new()));
    let last = case.device_rules().pop();
    assert_eq!(last.as_deref(), Some("c 89:1 r"), "its rule stays");
}

#[test]
fn limits_out_of_range_are_refused_and_zero_is_none() {
    let limits = |memory, nano_cpus| Resources {
        memory,
        nano_cpus,
        pids: Some(0),
        ..Resources::default()
    };
    for (resources, expected) in [
        (limits(Some(0), Some(0)), None),
        (limits(Some(1), None), Some(SpecError::Memory { bytes: 1 })),
        (
            limits(Some(u64::MAX), None),
            Some(SpecError::Memory { bytes: u64::MAX }),
        ),
        (
            limits(None, Some(9_999_999)),
            Some(SpecError::NanoCpus {
                nano_cpus: 9_999_999,
            }),
        ),
    ] {
        let mut case = Case::new();
        case.options.resources = resources;
        assert_eq!(case.build().err(), expected);
    }
    let mut case = Case::new();
    case.options.resources.memory = Some(64 << 20);
    case.facts.swap_accounting = false;
    let built = case.build().unwrap();
    assert_eq!(built.warnings, [SpecWarning::SwapUnlimited]);
    let linux = built.spec.linux().as_ref().unwrap();
    let memory = linux.resources().as_ref().unwrap().memory().unwrap();
    assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), None));
}

#[test]
fn working_directories_are_absolute_and_without_dots() {
    for (options, image_dir, expected) in [
        (None, None, Some("/")),
        (Some(""), Some("/i"), Some("/i")),
        (Some("/o"), Some("/i"), Some("/o")),
        (Some("/../../a/./b/.."), None, Some("/a")),
        (Some("o"), Some("/i"), None),
    ] {
        let mut case = Case::new();
        let mut config = ConfigBuilder::default().cmd(strings(&["x"]));
        if let Some(dir) = image_dir {
            config = config.working_dir(dir);
        }
        case.image = image(config);
        case.options.working_dir = options.map(str::to_owned);
        let cwd = case
            .build()
            .map(|built| built.spec.process().clone().unwrap().cwd().clone());
        match expected {
            Some(dir) => assert_eq!(cwd, Ok(PathBuf::from(dir))),
            None => assert_eq!(cwd, Err(SpecError::WorkingDir { path: "o".into() })),
        }
    }
}

#[test]
fn stop_signals_are_numbers_or_names() {
    for (text, expected) in [
        ("SIGTERM", Some(15)),
        ("int", Some(2)),
        ("9", Some(9)),
        ("SIGRTMIN+3", Some(37)),
        ("RTMAX-1", Some(63)),
        ("", Some(15)),
        ("0", None),
        ("65", None),
        ("RTMIN+31", None),
        ("SIGSIGINT", None),
        ("SIGNOPE", None),
    ] {
        let image = image(ConfigBuilder::default().stop_signal(text));
        let options = ContainerOptions::default();
        assert_eq!(stop_signal(&image, &options).ok(), expected, "{text:?}");
    }
    let options = ContainerOptions {
        stop_signal: Some(10),
        ..Default::default()
    };
    assert_eq!(
        stop_signal(&image(ConfigBuilder::default()), &options),
        Ok(10)
    );
}

#[test]
fn host_names_that_the_kernel_refuses_are_named() {
    let mut case = Case::new();
    for bad in ["x".repeat(65), "a/b".to_owned()] {
        case.options.hostname = Some(bad.clone());
        assert_eq!(case.build().err(), Some(SpecError::Hostname { name: bad }));
    }
}

#[test]
fn a_user_namespace_comes_with_its_ids_and_volumes_that_are_mapped() {
    let mut case = Case::new();
    let range = crate::IdRange {
        first: 100_000,
        size: 70_000,
    };
    case.users = Some(SpecUsers {
        range,
        namespace: Path::new("/run/kobune/led/userns"),
    });
    case.options.mounts = vec![crate::options::Mount {
        source: crate::options::MountSource::volume(Some("data".to_owned())),
        target: "/data".into(),
        read_only: false,
    }];
    let built = case.build().unwrap();
    let linux = built.spec.linux().as_ref().unwrap();
    let namespaces = linux.namespaces().as_deref().unwrap();
    let user = |own: &&oci_spec::runtime::LinuxNamespace| {
        own.typ() == oci_spec::runtime::LinuxNamespaceType::User
    };
    let user = namespaces.iter().find(user).unwrap();
    assert_eq!(
        user.path().as_deref(),
        Some(Path::new("/run/kobune/led/userns"))
    );
    assert_eq!(linux.uid_mappings(), linux.gid_mappings());
    assert_eq!(crate::IdRange::of_spec(linux), Some(range));
    let groups = linux.sysctl().as_ref().unwrap().get(PING_GROUPS);
    assert_eq!(groups.map(String::as_str), Some("0 69999"));
    let [volume] = &built.volumes[..] else {
        panic!("{:?}", built.volumes);
    };
    let part = volume.part.as_ref().expect("mounted beside first");
    assert!(part.mounted_on.starts_with(&case.paths.volume_parts));
    let mounts = built.spec.mounts().as_deref().unwrap();
    let data = mounts
        .iter()
        .find(|own| own.destination() == Path::new("/data"));
    assert_eq!(data.unwrap().source().as_ref(), Some(&part.mounted_on));
}
