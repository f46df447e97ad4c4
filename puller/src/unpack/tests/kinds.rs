//! What entries become: their kinds, metadata and order.

use std::os::unix::fs::FileTypeExt;

use kobune_fixtures::{FIXED_MTIME, LongNames};
use nix::sys::stat::makedev;

use super::*;

#[test]
fn every_kind_of_entry_keeps_its_metadata() {
    if !is_root() {
        return;
    }
    let layer = LayerBuilder::new()
        .dir("./", 0o751)
        .dir("d", 0o1777)
        .owner(1, 2)
        .file("d/setuid", 0o4755, "hello")
        .owner(1000, 1001)
        .mtime(7)
        .xattr("user.note", b"\n=\0")
        .hardlink("d/again", "d/setuid")
        .symlink("d/link", "/etc/passwd")
        .owner(3, 4)
        .device("null", 0o666, 1, 3)
        .block_device("sda", 0o660, 8, 0)
        .fifo("pipe", 0o600);
    with_each_resolver(|resolver| {
        let scene = Scene::new();
        scene.unpack(&layer, resolver).expect("unpacked");
        let root = scene.root();
        let at = |name: &str| fs::symlink_metadata(root.join(name)).expect(name);
        assert_eq!(at(".").mode() & 0o7777, 0o751);
        assert_eq!(
            (at("d").mode() & 0o7777, at("d").uid(), at("d").gid()),
            (0o1777, 1, 2)
        );
        assert_eq!(
            at("d").mtime(),
            FIXED_MTIME.cast_signed(),
            "set after its content"
        );
        let setuid = at("d/setuid");
        assert_eq!(
            (setuid.mode() & 0o7777, setuid.uid(), setuid.gid()),
            (0o4755, 1000, 1001)
        );
        assert_eq!((setuid.mtime(), setuid.nlink(), setuid.len()), (7, 2, 5));
        assert_eq!(at("d/again").ino(), setuid.ino());
        assert_eq!(
            attribute(&root.join("d/setuid"), "user.note").as_deref(),
            Some(b"\n=\0".as_slice())
        );
        assert_eq!(
            fs::read_link(root.join("d/link")).expect("a link"),
            Path::new("/etc/passwd")
        );
        assert_eq!(
            (at("d/link").uid(), at("d/link").mtime()),
            (3, FIXED_MTIME.cast_signed())
        );
        assert_eq!(
            (at("null").rdev(), at("null").mode() & 0o7777),
            (makedev(1, 3), 0o666)
        );
        assert!(at("sda").file_type().is_block_device() && at("pipe").file_type().is_fifo());
        scene.assert_untouched("metadata");
    });
}

#[test]
fn long_names_and_sparse_files_are_whole() {
    if !is_root() {
        return;
    }
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    let layer = LayerBuilder::new()
        .file(&long, 0o644, "long")
        .long_names(LongNames::Gnu)
        .file(format!("{long}2"), 0o644, "gnu")
        .symlink("l", "t".repeat(300))
        .sparse("holes", 1 << 20, &[(4096, b"data"), (65_536, b"more")])
        .entry("contiguous", b'7', "c")
        .pax_global("comment", "ignored");
    with_each_resolver(|resolver| {
        let scene = Scene::new();
        scene.unpack(&layer, resolver).expect("unpacked");
        let root = scene.root();
        assert_eq!(fs::read(root.join(&long)).expect("long"), b"long");
        assert_eq!(
            fs::read(root.join(format!("{long}2"))).expect("gnu"),
            b"gnu"
        );
        assert_eq!(
            fs::read_link(root.join("l")).expect("l").as_os_str().len(),
            300
        );
        let holes = fs::read(root.join("holes")).expect("holes");
        assert_eq!(holes.len(), 1 << 20);
        assert_eq!(
            (&holes[4096..4100], &holes[65_536..65_540], holes[0]),
            (b"data".as_slice(), b"more".as_slice(), 0)
        );
        assert!(
            fs::metadata(root.join("holes")).expect("holes").blocks() * 512 < 1 << 19,
            "holes take no room"
        );
        assert_eq!(fs::read(root.join("contiguous")).expect("contiguous"), b"c");
        scene.assert_untouched("good");
    });
}

#[test]
fn whiteouts_become_those_of_overlayfs() {
    if !is_root() {
        return;
    }
    let layer = LayerBuilder::new()
        .whiteout("gone")
        .whiteout("etc/gone")
        .opaque("var/cache")
        .file("var/cache/new", 0o644, "")
        .whiteout("remade")
        .dir("remade", 0o700)
        .whiteout("implied")
        .file("implied/file", 0o644, "")
        .file("kept", 0o644, "kept")
        .whiteout("kept")
        .file(".wh..wh.plnk", 0o644, "")
        .dir("forged", 0o755)
        .xattr("trusted.overlay.opaque", "y")
        .xattr("user.overlay.opaque", "y");
    with_each_resolver(|resolver| {
        let scene = Scene::new();
        scene.unpack(&layer, resolver).expect("unpacked");
        let root = scene.root();
        for name in ["gone", "etc/gone"] {
            let metadata = fs::symlink_metadata(root.join(name)).expect(name);
            assert!(
                metadata.file_type().is_char_device() && metadata.rdev() == 0,
                "{name}"
            );
        }
        for name in ["var/cache", "remade", "implied"] {
            let opaque = attribute(&root.join(name), "trusted.overlay.opaque");
            assert_eq!(opaque.as_deref(), Some(b"y".as_slice()), "{name}");
        }
        assert!(root.join("implied/file").is_file());
        assert_eq!(fs::read(root.join("kept")).expect("kept"), b"kept");
        assert!(!root.join(".wh..wh.plnk").exists());
        assert_eq!(
            attribute(&root.join("forged"), "trusted.overlay.opaque"),
            None
        );
        assert_eq!(attribute(&root.join("forged"), "user.overlay.opaque"), None);
        scene.assert_untouched("whiteouts");
    });
}

#[test]
fn later_entries_replace_earlier_ones() {
    if !is_root() {
        return;
    }
    let layer = LayerBuilder::new()
        .file("file-then-dir", 0o644, "x")
        .dir("file-then-dir", 0o755)
        .file("dir-then-file/a/b", 0o644, "x")
        .file("dir-then-file", 0o644, "file")
        .symlink("link-then-dir", "file-then-dir")
        .file("link-then-dir/through", 0o644, "x")
        .dir("link-then-dir", 0o755)
        .file("link-then-dir/own", 0o644, "x")
        .file("twice", 0o600, "first and longer")
        .file("twice", 0o644, "second")
        .device("device-then-file", 0o666, 1, 3)
        .file("device-then-file", 0o644, "file")
        .dir("dir-then-dir", 0o700)
        .file("dir-then-dir/stays", 0o644, "x")
        .dir("dir-then-dir", 0o755);
    with_each_resolver(|resolver| {
        let scene = Scene::new();
        scene.unpack(&layer, resolver).expect("unpacked");
        let root = scene.root();
        assert_eq!(fs::read(root.join("dir-then-file")).expect("file"), b"file");
        assert_eq!(
            fs::read(root.join("device-then-file")).expect("file"),
            b"file"
        );
        assert_eq!(fs::read(root.join("twice")).expect("file"), b"second");
        assert!(
            root.join("file-then-dir/through").is_file(),
            "written through the link of then"
        );
        assert!(
            root.join("link-then-dir/own").is_file() && !root.join("file-then-dir/own").exists()
        );
        assert!(
            !fs::symlink_metadata(root.join("link-then-dir"))
                .expect("dir")
                .is_symlink()
        );
        assert!(root.join("dir-then-dir/stays").is_file());
        let mode = fs::metadata(root.join("dir-then-dir")).expect("dir").mode();
        assert_eq!(mode & 0o7777, 0o755);
        scene.assert_untouched("replace");
    });
}

#[test]
fn a_file_in_the_place_of_a_directory_keeps_its_own_time() {
    if !is_root() {
        return;
    }
    let layer = LayerBuilder::new()
        .dir("a", 0o755)
        .mtime(5)
        .file("a", 0o644, "")
        .mtime(9);
    with_each_resolver(|resolver| {
        let scene = Scene::new();
        scene.unpack(&layer, resolver).expect("unpacked");
        let metadata = fs::symlink_metadata(scene.root().join("a")).expect("a file");
        assert!(metadata.is_file() && metadata.mtime() == 9);
    });
}

#[test]
fn set_group_directories_and_inherited_lists_do_not_touch_what_is_inside() {
    if !is_root() {
        return;
    }
    // One entry: group 1234 may write (linux/posix_acl_xattr.h).
    let entry = |tag: u16, perm: u16, id: u32| {
        [
            &tag.to_le_bytes()[..],
            &perm.to_le_bytes(),
            &id.to_le_bytes(),
        ]
        .concat()
    };
    let list = [
        2_u32.to_le_bytes().to_vec(),
        entry(1, 7, u32::MAX),
        entry(4, 0, u32::MAX),
        entry(8, 2, 1234),
        entry(16, 2, u32::MAX),
        entry(32, 0, u32::MAX),
    ];
    let layer = LayerBuilder::new()
        .dir("group", 0o2775)
        .owner(7, 8)
        .dir("group/below", 0o755)
        .file("group/file", 0o664, "")
        .dir("list", 0o755)
        .xattr("system.posix_acl_default", list.concat())
        .dir("list/below", 0o751)
        .file("list/file", 0o644, "")
        .dir("group", 0o2770)
        .owner(7, 9);
    with_each_resolver(|resolver| {
        let scene = Scene::new();
        if let Err(UnpackError::Attribute { .. }) = scene.unpack(&layer, resolver) {
            println!("skipped: this file system has no access lists");
            return;
        }
        for (name, expected) in [
            ("group", (0o2770, 7, 9)),
            ("group/below", (0o755, 0, 0)),
            ("group/file", (0o664, 0, 0)),
            ("list/below", (0o751, 0, 0)),
            ("list/file", (0o644, 0, 0)),
        ] {
            let metadata = fs::symlink_metadata(scene.root().join(name)).expect(name);
            let found = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
            assert_eq!(found, expected, "{name}");
        }
        assert!(!scene.root().join("probe").exists());
    });
}

#[test]
fn attributes_of_the_packing_machine_are_left_out() {
    let layer = LayerBuilder::new()
        .file("f", 0o644, "")
        .xattr("security.selinux", "system_u:object_r:bin_t:s0")
        .symlink("l", "f")
        .xattr("user.note", "links cannot have it");
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    scene.unpack(&layer, Resolver::Walk).expect("unpacked");
    assert_eq!(attribute(&scene.root().join("f"), "security.selinux"), None);
}

#[test]
fn an_archive_may_end_without_its_end_marker() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let layer = LayerBuilder::new().file("f", 0o644, "x").without_end();
    scene.unpack(&layer, Resolver::Walk).expect("unpacked");
    assert!(scene.root().join("f").is_file());
    scene
        .unpack(&LayerBuilder::new().without_end(), Resolver::Walk)
        .expect("an empty stream");
}
