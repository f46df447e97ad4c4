//! Facts of temporary trees; nodes need root.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Uid, mkfifo};
use oci_spec::image::ConfigBuilder;
use tempfile::TempDir;

use super::*;
use crate::options::{DeviceAccess, DeviceClass, DeviceMapping, Mount};

/// Whether nodes can be made. In CI they must be.
fn can_mknod() -> bool {
    let root = Uid::effective().is_root();
    assert!(root || std::env::var_os("CI").is_none_or(|ci| ci != "true"));
    if !root {
        println!("skipped: making device nodes needs root");
    }
    root
}

fn make_node(path: &Path, kind: SFlag, major: u64, minor: u64) {
    mknod(
        path,
        kind,
        Mode::from_bits_truncate(0o600),
        makedev(major, minor),
    )
    .unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
}

fn mapping(host: &Path, container: &str) -> DeviceMapping {
    DeviceMapping {
        host_path: host.to_owned(),
        container_path: container.into(),
        access: DeviceAccess::try_from("r").unwrap(),
    }
}

#[test]
fn a_mapped_node_is_found_through_links() {
    if !can_mknod() {
        return;
    }
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("i2c-1");
    make_node(&path, SFlag::S_IFCHR, 89, 1);
    let link = dir.path().join("by-name");
    symlink("i2c-1", &link).unwrap();
    let gid = fs::metadata(&path).unwrap().gid();

    let nodes = device::mapped_devices(&mapping(&link, "/dev/bus")).unwrap();
    let expected = DeviceNode {
        host_path: fs::canonicalize(&path).unwrap(),
        container_path: "/dev/bus".into(),
        class: DeviceClass::Char,
        major: 89,
        minor: 1,
        mode: 0o640,
        uid: 0,
        gid,
        access: DeviceAccess::try_from("r").unwrap(),
    };
    assert_eq!(nodes, [expected]);
}

#[test]
fn a_mapped_directory_is_all_nodes_below_it() {
    if !can_mknod() {
        return;
    }
    let dir = TempDir::new().unwrap();
    for own in ["pts", "fd", "sub/deep"] {
        fs::create_dir_all(dir.path().join(own)).unwrap();
    }
    for (name, kind, minor) in [
        ("b", SFlag::S_IFBLK, 1),
        ("sub/deep/c", SFlag::S_IFCHR, 300),
        ("pts/0", SFlag::S_IFCHR, 2),
        ("console", SFlag::S_IFCHR, 3),
    ] {
        make_node(&dir.path().join(name), kind, 7, minor);
    }
    symlink("b", dir.path().join("link")).unwrap();
    fs::write(dir.path().join("file"), "").unwrap();

    let nodes = device::mapped_devices(&mapping(dir.path(), "/dev/x")).unwrap();
    let found: Vec<_> = nodes
        .iter()
        .map(|node| {
            (
                node.container_path.to_str().unwrap(),
                node.class,
                node.minor,
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("/dev/x/b", DeviceClass::Block, 1),
            ("/dev/x/sub/deep/c", DeviceClass::Char, 300)
        ]
    );
    let host = device::host_devices(dir.path()).unwrap();
    assert_eq!(host.len(), 2);
    assert_eq!(host[0].container_path, dir.path().join("b"));
    assert_eq!(host[0].access, DeviceAccess::ALL);
}

#[test]
fn what_is_no_device_is_named() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let check = |path: &Path, start: &str| {
        let error = device::mapped_devices(&mapping(path, "/dev/x")).unwrap_err();
        assert_eq!(error.to_string(), format!("{start}"));
    };
    let name = |name: &str| dir.path().join(name).display().to_string();
    check(
        &dir.path().join("none"),
        &format!("cannot map device {}", name("none")),
    );
    check(
        &file,
        &format!(
            "cannot map device {}: it is neither a device nor a directory",
            name("file")
        ),
    );
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    check(
        &empty,
        &format!(
            "cannot map devices of directory {}: it holds none",
            name("empty")
        ),
    );
}

#[test]
fn bind_sources_are_files_directories_or_missing() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    symlink(dir.path(), dir.path().join("link")).unwrap();
    let mut options = ContainerOptions::default();
    for name in ["file", "link", "none", "file/below"] {
        options.mounts.push(Mount {
            source: MountSource::Bind {
                path: dir.path().join(name),
                create_missing: false,
                propagation: None,
                non_recursive: false,
                force_read_only: false,
            },
            target: "/t".into(),
            read_only: false,
        });
    }
    // Below a file nothing can be created either: that is an error now, not at the start.
    assert!(matches!(
        bind_sources(&options),
        Err(FactsError::BindSource { path, .. }) if path.ends_with("file/below")
    ));
    options.mounts.pop();
    let sources = bind_sources(&options).unwrap();
    let found: Vec<_> = sources.values().copied().collect();
    assert_eq!(
        found,
        [BindSource::File, BindSource::Directory, BindSource::Missing]
    );
}

#[test]
fn account_files_never_come_from_outside_the_image() {
    let outside = TempDir::new().unwrap();
    let secret = outside.path().join("passwd");
    fs::write(&secret, "app:x:1:1::/secret:").unwrap();
    let path = Path::new("etc/passwd");
    let up = PathBuf::from("../".repeat(20)).join(secret.strip_prefix("/").unwrap());
    for link in [secret.clone(), up] {
        let rootfs = TempDir::new().unwrap();
        fs::create_dir(rootfs.path().join("etc")).unwrap();
        symlink(&link, rootfs.path().join(path)).unwrap();
        assert_eq!(image_file::read(rootfs.path(), path).unwrap(), "");
    }
    let rootfs = TempDir::new().unwrap();
    symlink(outside.path(), rootfs.path().join("etc")).unwrap();
    assert_eq!(image_file::read(rootfs.path(), path).unwrap(), "");
}

#[test]
fn account_files_may_be_links_inside_the_image() {
    let rootfs = TempDir::new().unwrap();
    for dir in ["etc", "usr/lib"] {
        fs::create_dir_all(rootfs.path().join(dir)).unwrap();
    }
    fs::write(rootfs.path().join("usr/lib/passwd"), "app:x:1:1::/:").unwrap();
    symlink("/usr/lib/passwd", rootfs.path().join("etc/passwd")).unwrap();
    let text = image_file::read(rootfs.path(), Path::new("etc/passwd")).unwrap();
    assert_eq!(text, "app:x:1:1::/:");
}

#[test]
fn the_walk_of_old_kernels_refuses_every_link() {
    let rootfs = TempDir::new().unwrap();
    fs::create_dir(rootfs.path().join("real")).unwrap();
    fs::write(rootfs.path().join("real/passwd"), "").unwrap();
    symlink("real", rootfs.path().join("etc")).unwrap();
    symlink("passwd", rootfs.path().join("real/link")).unwrap();
    let walk = |path: &str| {
        let root = fs::File::open(rootfs.path()).unwrap().into();
        image_file::open_without_links(root, Path::new(path)).map(drop)
    };
    assert_eq!(walk("real/passwd"), Ok(()));
    assert_eq!(walk("etc/passwd"), Err(Errno::ELOOP));
    assert_eq!(walk("real/link"), Err(Errno::ELOOP));
    assert_eq!(walk("real/none"), Err(Errno::ENOENT));
}

#[test]
fn account_files_that_are_no_files_are_refused_without_waiting() {
    let rootfs = TempDir::new().unwrap();
    fs::create_dir(rootfs.path().join("etc")).unwrap();
    let path = Path::new("etc/passwd");
    mkfifo(&rootfs.path().join(path), Mode::S_IRUSR).unwrap();
    let error = image_file::read(rootfs.path(), path).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /etc/passwd of the image");
}

#[test]
fn the_options_user_wins_over_the_images() {
    let rootfs = TempDir::new().unwrap();
    fs::create_dir(rootfs.path().join("etc")).unwrap();
    let passwd = "app:x:1:2::/app:\nother:x:3:4::/other:\n";
    fs::write(rootfs.path().join("etc/passwd"), passwd).unwrap();
    let mut image = ImageConfiguration::default();
    image.set_config(Some(ConfigBuilder::default().user("app").build().unwrap()));
    let uid = |user: Option<&str>| {
        let options = ContainerOptions {
            user: user.map(str::to_owned),
            ..Default::default()
        };
        find_user(&options, rootfs.path(), &image).map(|user| user.uid)
    };
    assert_eq!(uid(None).unwrap(), 1);
    assert_eq!(uid(Some("")).unwrap(), 1);
    assert_eq!(uid(Some("other")).unwrap(), 3);
    let error = uid(Some("nobody")).unwrap_err();
    assert_eq!(error.to_string(), "cannot resolve user \"nobody\"");
}

#[test]
fn a_directory_that_is_no_cgroup_mount_is_no_mode() {
    for path in ["/no/such/mount", "/proc"] {
        let error = cgroup::mode(Path::new(path)).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot find cgroups at {path}"));
    }
}

#[test]
fn hierarchies_are_directories_and_not_their_links() {
    let root = TempDir::new().unwrap();
    for name in ["memory", "cpu,cpuacct"] {
        fs::create_dir(root.path().join(name)).unwrap();
    }
    symlink("cpu,cpuacct", root.path().join("cpu")).unwrap();
    let found = cgroup::subdirectories(root.path()).unwrap();
    assert_eq!(found, ["cpu,cpuacct", "memory"]);
}
