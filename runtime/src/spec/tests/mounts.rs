//! Tables for mounts.

use super::*;
use crate::facts::BindSource;
use crate::options::{Mount, MountSource, Propagation};

#[test]
fn requested_mounts_replace_defaults_and_parents_come_first() {
    let mut case = Case::new();
    case.image = image(
        ConfigBuilder::default()
            .cmd(strings(&["x"]))
            .volumes(strings(&["/data", "/deep/er"])),
    );
    case.options.mounts = vec![
        bind("/srv/b", "/data/b/c/"),
        bind("/srv/a", "/data"),
        bind("/srv/h", "/etc/hosts"),
        tmpfs("/dev/shm", &["size=1m", "exec"]),
    ];
    let built = case.build().unwrap();
    let mounts = built.spec.mounts().as_ref().unwrap();
    let source = |target: &str| {
        let mut found = mounts
            .iter()
            .filter(|m| m.destination() == Path::new(target));
        let mount = found.next().unwrap();
        assert_eq!(found.next(), None, "{target}");
        mount.source().clone().unwrap()
    };
    assert_eq!(source("/data"), Path::new("/srv/a"));
    assert_eq!(source("/etc/hosts"), Path::new("/srv/h"));
    let shm = mounts.iter().find(|m| m.destination().ends_with("shm"));
    let options = shm.unwrap().options().clone().unwrap();
    assert_eq!(options, ["nosuid", "nodev", "size=1m", "exec", "mode=1777"]);

    for (at, mount) in mounts.iter().enumerate() {
        let target = mount.destination();
        let early = mounts[..at]
            .iter()
            .find(|m| m.destination().starts_with(target));
        assert_eq!(early, None, "mounted before its parent");
    }
    let [volume] = &built.volumes[..] else {
        panic!("one volume of the image is left: {:?}", built.volumes);
    };
    assert_eq!(volume.target, Path::new("/deep/er"));
    assert!(volume.anonymous);
    assert_eq!(source("/deep/er"), volume.path);
    assert_eq!(built.create_directories.len(), 3);
}

#[test]
fn mounts_that_cannot_be_made_are_named() {
    let missing = |path: &str, create_missing| Mount {
        source: MountSource::Bind {
            path: path.into(),
            create_missing,
            propagation: None,
            non_recursive: false,
            force_read_only: false,
        },
        target: "/t".into(),
        read_only: false,
    };
    let volume = Mount {
        source: MountSource::volume(Some("../etc".to_owned())),
        ..missing("/x", true)
    };
    for (mounts, message) in [
        (
            vec![missing("/no/such", false)],
            "bind mount source /no/such of /t does not exist",
        ),
        (
            vec![missing("rel", true)],
            "bind mount source rel of /t is not absolute",
        ),
        (vec![volume], "invalid volume name \"../etc\" for /t"),
        (
            vec![bind("/a", "/t"), tmpfs("/t//.", &[])],
            "more than one mount on /t",
        ),
        (
            vec![bind("/a", "t")],
            "mount target t is not an absolute path without '..'",
        ),
        (
            vec![bind("/a", "/t/../dev")],
            "mount target /t/../dev is not an absolute path without '..'",
        ),
        (
            vec![bind("/dev", "/dev/")],
            "cannot mount on /dev: it belongs to the container",
        ),
        (
            vec![tmpfs("/proc/sys", &[])],
            "cannot mount on /proc/sys: it belongs to the container",
        ),
        (
            vec![tmpfs("/t", &["bind"])],
            "unknown tmpfs option \"bind\" for /t",
        ),
        (
            vec![tmpfs("/t", &["size=1,exec"])],
            "unknown tmpfs option \"size=1,exec\" for /t",
        ),
    ] {
        let mut case = Case::new();
        case.options.mounts = mounts;
        assert_eq!(case.build().unwrap_err().to_string(), message);
    }
}

#[test]
fn propagation_is_private_unless_a_mount_asks_for_more() {
    for (wanted, root, option, warns) in [
        (None, "private", "rprivate", false),
        (Some(Propagation::Private), "private", "rprivate", false),
        (Some(Propagation::Rslave), "slave", "rslave", false),
        (Some(Propagation::Rshared), "slave", "rslave", true),
    ] {
        let mut case = Case::new();
        let mut mount = bind("/a", "/t");
        if let MountSource::Bind { propagation, .. } = &mut mount.source {
            *propagation = wanted;
        }
        case.options.mounts = vec![mount];
        case.facts
            .bind_sources
            .insert("/a".into(), BindSource::Directory);
        let built = case.build().unwrap();
        let linux = built.spec.linux().as_ref().unwrap();
        assert_eq!(linux.rootfs_propagation().as_deref(), Some(root));
        let mounts = built.spec.mounts().as_ref().unwrap();
        let mount = mounts.iter().find(|m| m.destination() == Path::new("/t"));
        let options = mount.unwrap().options().clone().unwrap();
        assert_eq!(options, ["rbind", option, "rw"]);
        assert_eq!(!built.warnings.is_empty(), warns);
        assert_eq!(built.create_directories, Vec::<PathBuf>::new());
    }
}

pub(super) fn bind(source: &str, target: &str) -> Mount {
    Mount {
        source: MountSource::Bind {
            path: source.into(),
            create_missing: true,
            propagation: None,
            non_recursive: false,
            force_read_only: false,
        },
        target: target.into(),
        read_only: false,
    }
}

fn tmpfs(target: &str, options: &[&str]) -> Mount {
    Mount {
        source: MountSource::Tmpfs {
            size: None,
            mode: None,
            options: strings(options),
        },
        target: target.into(),
        read_only: false,
    }
}
