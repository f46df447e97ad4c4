use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

/// Two directories: one to copy from, one to copy to.
fn scene() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    fs::create_dir(&to).unwrap();
    (dir, from, to)
}

fn archive(root: &Path, path: &str, follow: bool) -> Vec<u8> {
    let mut archive = Vec::new();
    let root = Root::open(root).unwrap();
    pack(&root, Path::new(path), follow, &mut archive).unwrap();
    archive
}

fn place(root: &Path, placement: &Placement, archive: &[u8]) -> Result<Vec<PathBuf>, String> {
    let root = Root::open(root).unwrap();
    unpack(&root, placement, archive).map_err(|error| format!("{error}: {}", error.source))
}

fn own() -> Option<(u32, u32)> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    Some((uid.as_raw(), gid.as_raw()))
}

#[test]
fn a_tree_survives_the_way_there_and_back() {
    let (_dir, from, to) = scene();
    fs::create_dir_all(from.join("a/b")).unwrap();
    fs::write(from.join("a/b/file"), vec![7; 100_000]).unwrap();
    fs::set_permissions(from.join("a/b/file"), fs::Permissions::from_mode(0o641)).unwrap();
    fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o510)).unwrap();
    fs::hard_link(from.join("a/b/file"), from.join("a/twin")).unwrap();
    symlink("/nowhere", from.join("a/link")).unwrap();
    let long = "n".repeat(200);
    fs::write(from.join("a").join(&long), "long").unwrap();
    let placement = Placement {
        rename: Some("c".into()),
        owner: own(),
        ..Placement::default()
    };
    let left_out = place(&to, &placement, &archive(&from, "/a", false)).unwrap();
    assert_eq!(left_out, Vec::<PathBuf>::new());
    let metadata = fs::metadata(to.join("c/b/file")).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o641);
    assert_eq!(
        metadata.ino(),
        fs::metadata(to.join("c/twin")).unwrap().ino()
    );
    assert_eq!(
        metadata.mtime(),
        fs::metadata(from.join("a/twin")).unwrap().mtime()
    );
    assert_eq!(fs::metadata(to.join("c/b")).unwrap().mode() & 0o7777, 0o510);
    assert_eq!(
        fs::read_link(to.join("c/link")).unwrap(),
        Path::new("/nowhere")
    );
    assert_eq!(fs::read(to.join("c").join(long)).unwrap(), b"long");
}

#[test]
fn links_lead_within_the_root_and_never_out_of_it() {
    let (dir, from, _) = scene();
    fs::write(dir.path().join("secret"), "out").unwrap();
    fs::create_dir(from.join("in")).unwrap();
    fs::write(from.join("secret"), "in").unwrap();
    for (name, target) in [
        ("in/absolute", "/secret"),
        ("in/climbing", "../../../../secret"),
        ("in/magic", "/proc/self/cwd"),
        ("loop", "loop"),
        ("dir", "/in/."),
    ] {
        symlink(target, from.join(name)).unwrap();
    }
    let root = Root::open(&from).unwrap();
    for path in ["/in/absolute", "in/climbing", "dir/../secret", "/../secret"] {
        let found = root.stat(Path::new(path), true).unwrap();
        let expected = (PathBuf::from("/secret"), Some(FileKind::File));
        assert_eq!((found.path, found.kind), expected, "{path}");
    }
    let error = |path: &str| root.stat(Path::new(path), true).unwrap_err();
    assert!(error("/in/magic").is_not_found());
    assert!(!error("loop").is_not_found());
    assert!(!error("/secret/").is_not_found());
    let as_link = root.stat(Path::new("/in/absolute"), false).unwrap();
    assert_eq!(as_link.kind, Some(FileKind::Symlink));
}

#[test]
fn a_hostile_archive_stays_within_the_root() {
    let (dir, _, to) = scene();
    let mut builder = tar::Builder::new(Vec::new());
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    let outside = dir.path().join("out");
    builder.append_link(&mut link, "way", &outside).unwrap();
    let mut file = tar::Header::new_gnu();
    file.set_size(2);
    file.set_mode(0o6755);
    builder.append_data(&mut file, "way/x", &b"hi"[..]).unwrap();
    let archive = builder.into_inner().unwrap();
    fs::create_dir(&outside).unwrap();
    let placement = Placement {
        owner: own(),
        ..Placement::default()
    };
    // The link leads to nothing within the root.
    place(&to, &placement, &archive).unwrap_err();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);

    // A name that climbs, which no builder writes.
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.as_old_mut().name[..6].copy_from_slice(b"../bad");
    header.set_cksum();
    let mut climbing = header.as_bytes().to_vec();
    climbing.extend([0; 1024]);
    let said = place(&to, &placement, &climbing).unwrap_err();
    assert!(said.contains("leads out of the directory"), "{said}");
    assert!(!dir.path().join("bad").exists());
    // One that is cut off, and one that is none.
    place(&to, &placement, &archive[..1100]).unwrap_err();
    place(&to, &placement, &[b'x'; 2048]).unwrap_err();
}

#[test]
fn files_and_directories_do_not_replace_each_other() {
    let (_dir, from, to) = scene();
    fs::create_dir(from.join("one")).unwrap();
    fs::write(from.join("one/x"), "new").unwrap();
    fs::write(from.join("two"), "new").unwrap();
    fs::write(to.join("one"), "old").unwrap();
    fs::create_dir(to.join("two")).unwrap();
    let placement = Placement {
        owner: own(),
        ..Placement::default()
    };
    let said = place(&to, &placement, &archive(&from, "one", false)).unwrap_err();
    assert!(said.contains("something else"), "{said}");
    let said = place(&to, &placement, &archive(&from, "two", false)).unwrap_err();
    assert!(said.contains("there is a directory"), "{said}");
    assert_eq!(fs::read(to.join("one")).unwrap(), b"old");
    // What is in it goes into one that is there, whose other files stay.
    fs::write(to.join("two/y"), "old").unwrap();
    let into = Placement {
        into: "/two".into(),
        ..placement
    };
    place(&to, &into, &archive(&from, "one/.", false)).unwrap();
    assert_eq!(fs::read(to.join("two/x")).unwrap(), b"new");
    assert_eq!(fs::read(to.join("two/y")).unwrap(), b"old");
}

#[test]
fn without_their_owners_files_have_no_rights_of_owners() {
    let (_dir, from, to) = scene();
    fs::write(from.join("x"), "").unwrap();
    fs::set_permissions(from.join("x"), fs::Permissions::from_mode(0o4755)).unwrap();
    let packed = archive(&from, "x", false);
    let mode = |to: &Path| fs::metadata(to.join("x")).unwrap().mode() & 0o7777;
    place(&to, &Placement::default(), &packed).unwrap();
    assert_eq!(mode(&to), 0o4755);
    let placement = Placement {
        owner: own(),
        ..Placement::default()
    };
    place(&to, &placement, &packed).unwrap();
    assert_eq!(mode(&to), 0o755);
}

/// Attributes of users go along always, what gives rights only with the owner; a value may hold any
/// byte, also what looks like a record to who splits records at line feeds.
#[test]
fn attributes_go_along_byte_for_byte() {
    use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let (_dir, from, to) = scene();
    let capability = [1, 0, 0, 2, 0, 10, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0];
    let note = b"=\n9 path=b\n12 size=99\n\0\xff";
    fs::create_dir(from.join("d")).unwrap();
    fs::write(from.join("d/f"), "content").unwrap();
    let set = |name: &str, attribute: &str, value: &[u8]| {
        lsetxattr(from.join(name), attribute, value, XattrFlags::empty()).unwrap();
    };
    set("d/f", "security.capability", &capability);
    set("d/f", "user.note", note);
    set("d", "user.dir", b"yes");
    let packed = archive(&from, "d", false);
    let get = |root: &str, name: &str, attribute: &str| {
        let mut value = [0; 100];
        let length = lgetxattr(to.join(root).join(name), attribute, &mut value[..]);
        length.ok().map(|length| value[..length].to_vec())
    };
    for (root, owner) in [("kept", None), ("own", own())] {
        let placement = Placement {
            rename: Some(root.into()),
            owner,
            ..Placement::default()
        };
        place(&to, &placement, &packed).unwrap();
        assert_eq!(fs::read(to.join(root).join("f")).unwrap(), b"content");
        assert_eq!(get(root, "f", "user.note").as_deref(), Some(&note[..]));
        assert_eq!(get(root, "", "user.dir").as_deref(), Some(&b"yes"[..]));
        let with_owner = owner.is_none().then(|| capability.to_vec());
        assert_eq!(get(root, "f", "security.capability"), with_owner);
    }
}

#[test]
fn devices_are_made_and_without_owners_for_nobody_else() {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let (_dir, from, to) = scene();
    fs::create_dir(from.join("d")).unwrap();
    let number = makedev(254, 70_000);
    for (name, kind) in [("c", SFlag::S_IFCHR), ("b", SFlag::S_IFBLK)] {
        mknod(&from.join("d").join(name), kind, Mode::empty(), number).unwrap();
        let open = fs::Permissions::from_mode(0o666);
        fs::set_permissions(from.join("d").join(name), open).unwrap();
    }
    let packed = archive(&from, "d", false);
    for (root, owner, mode) in [("kept", None, 0o666), ("own", own(), 0o600)] {
        let placement = Placement {
            rename: Some(root.into()),
            owner,
            ..Placement::default()
        };
        assert_eq!(
            place(&to, &placement, &packed).unwrap(),
            [""; 0].map(PathBuf::from)
        );
        for (name, kind) in [("c", SFlag::S_IFCHR), ("b", SFlag::S_IFBLK)] {
            let made = fs::symlink_metadata(to.join(root).join(name)).unwrap();
            assert_eq!(made.mode(), kind.bits() | mode, "{root}/{name}");
            assert_eq!(made.rdev(), number);
        }
    }
}

#[test]
fn blocks_of_zeros_are_holes() {
    let (_dir, from, to) = scene();
    let mut content = vec![0; 5 << 20];
    content[1 << 20] = 7;
    *content.last_mut().unwrap() = 8;
    content.extend([0; 10_000]);
    fs::write(from.join("f"), &content).unwrap();
    let placement = Placement {
        owner: own(),
        ..Placement::default()
    };
    place(&to, &placement, &archive(&from, "f", false)).unwrap();
    assert!(fs::read(to.join("f")).unwrap() == content);
    let taken = fs::metadata(to.join("f")).unwrap().blocks() * 512;
    assert!(taken < 1 << 20, "{taken}");
}
