use std::os::unix::fs::symlink;

use super::*;

#[test]
fn a_working_directory_is_made_inside_whatever_the_image_links_to() {
    let dir = tempfile::tempdir().unwrap();
    let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
    fs::create_dir_all(root.join("srv")).unwrap();
    fs::create_dir_all(&outside).unwrap();
    symlink(&outside, root.join("escape")).unwrap();
    symlink("/srv", root.join("absolute")).unwrap();

    create_dir_beneath(&root, Path::new("/a/b/c")).unwrap();
    assert!(root.join("a/b/c").is_dir());
    create_dir_beneath(&root, Path::new("/absolute/app")).unwrap();
    assert!(root.join("srv/app").is_dir());
    create_dir_beneath(&root, Path::new("/")).unwrap();
    let _ = create_dir_beneath(&root, Path::new("/escape/app"));
    assert_eq!(
        fs::read_dir(&outside).unwrap().count(),
        0,
        "nothing is made outside the root"
    );
}

#[test]
fn mounts_are_listed_where_the_image_lists_none_and_never_outside() {
    let dir = tempfile::tempdir().unwrap();
    let (bare, own, hostile) = (
        dir.path().join("bare"),
        dir.path().join("own"),
        dir.path().join("hostile"),
    );
    let outside = dir.path().join("outside");
    for path in [&bare, &own.join("etc"), &hostile.join("tmp"), &outside] {
        fs::create_dir_all(path).unwrap();
    }
    fs::write(own.join("etc/mtab"), "its own").unwrap();
    symlink(&outside, hostile.join("etc")).unwrap();

    link_mtab(&bare).unwrap();
    link_mtab(&bare).unwrap();
    let made = fs::read_link(bare.join("etc/mtab")).unwrap();
    assert_eq!(made, Path::new("/proc/mounts"));
    link_mtab(&own).unwrap();
    assert_eq!(fs::read(own.join("etc/mtab")).unwrap(), b"its own");
    let _ = link_mtab(&hostile);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn without_openat2_links_are_followed_inside_the_root_alike() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root");
    fs::create_dir_all(path.join("srv/app")).unwrap();
    for (link, target) in [
        ("absolute", "/srv"),
        ("relative", "srv/../srv/app"),
        ("escape", "../../../../srv"),
        ("loop", "loop"),
        ("outside", "/etc"),
    ] {
        symlink(target, path.join(link)).unwrap();
    }
    fs::write(path.join("file"), "").unwrap();
    let root = File::open(&path).unwrap();
    for inside in [
        ".",
        "/",
        "srv",
        "/srv/app",
        "absolute",
        "absolute/app",
        "relative",
        "escape",
        "relative/..",
        "loop",
        "outside",
        "file",
        "missing",
        "../srv",
    ] {
        let walked = walk_to_dir_in(&root, Path::new(inside));
        let opened = open_dir_in(&root, Path::new(inside));
        let inode = |fd: OwnedFd| nix::sys::stat::fstat(&fd).map(|stat| stat.st_ino);
        assert_eq!(walked.and_then(inode), opened.and_then(inode), "{inside}");
    }
}

#[test]
fn without_overlayfs_a_copy_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in ["low", "up", "home/copy.new/torn"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    fs::write(path("low/file"), "low").unwrap();
    fs::write(path("up/file"), "up").unwrap();
    // A layer may be a link to one elsewhere.
    symlink(path("up"), path("link")).unwrap();
    let layers = [path("low"), path("link")];
    let rootfs = Rootfs {
        limit: None,
        users: None,
        layers: &layers,
        writable: &path("home"),
        target: &path("root"),
    };
    rootfs.copy_to(&path("home/copy")).unwrap();
    assert_eq!(fs::read_to_string(path("home/copy/file")).unwrap(), "up");
    assert!(!path("home/copy/torn").exists() && !path("home/copy.new").exists());

    let missing = [path("low"), path("missing")];
    let rootfs = Rootfs {
        limit: None,
        users: None,
        layers: &missing,
        ..rootfs
    };
    rootfs.copy_to(&path("home/other")).unwrap_err();
    assert_eq!(fs::read_dir(path("home")).unwrap().count(), 1);
}

#[test]
fn what_is_not_mounted_is_unmounted_already() {
    let dir = tempfile::tempdir().unwrap();
    unmount(dir.path()).unwrap();
    unmount(&dir.path().join("missing")).unwrap();
}
