//! Archives as registries serve them, and as somebody hostile would.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use kobune_fixtures::{FIXED_MTIME, LayerBuilder, LongNames};
use nix::sys::stat::makedev;
use proptest::prelude::*;

use super::*;

/// A root to unpack into, with a canary beside it that nothing may touch.
struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("root")).expect("the root");
        fs::create_dir(directory.path().join("outside")).expect("outside");
        fs::write(directory.path().join("outside/canary"), "alive").expect("a canary");
        Self { directory }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn outside(&self) -> String {
        self.directory.path().join("outside").display().to_string()
    }

    fn unpack(
        &self,
        layer: &LayerBuilder,
        resolver: Resolver,
    ) -> Result<BTreeSet<Vec<u8>>, UnpackError> {
        unpack(layer.build().tar.as_slice(), &self.root(), resolver)
    }

    fn assert_untouched(&self, case: &str) {
        let names = |path: &Path| -> Vec<_> {
            let entries = fs::read_dir(path).expect("a directory");
            let mut names: Vec<_> = entries
                .map(|entry| entry.expect("an entry").file_name())
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(self.directory.path()), ["outside", "root"], "{case}");
        assert_eq!(names(Path::new(&self.outside())), ["canary"], "{case}");
        let canary = PathBuf::from(self.outside()).join("canary");
        assert_eq!(fs::read(&canary).expect("the canary"), b"alive", "{case}");
        let metadata = fs::metadata(&canary).expect("the canary");
        assert_eq!(
            (metadata.nlink(), metadata.mode() & 0o7777),
            (1, 0o644),
            "{case}"
        );
    }
}

/// Runs `check` for every way to resolve paths that this kernel has.
fn with_each_resolver(check: impl Fn(Resolver)) {
    check(Resolver::Walk);
    if Resolver::probe() == Resolver::Kernel {
        check(Resolver::Kernel);
    }
}

/// Owners, devices and whiteouts need root.
fn is_root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "these tests need root"
    );
    println!("skipped: needs root");
    false
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    xattr::get(path, name).expect("attributes can be read")
}

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
#[allow(clippy::too_many_lines, reason = "a table")]
fn links_lead_nowhere_but_into_the_layer() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let outside = scene.outside();
    let cases: Vec<(&str, LayerBuilder)> = vec![
        (
            "absolute link",
            LayerBuilder::new()
                .symlink("a", &outside)
                .file("a/canary", 0o600, "dead"),
        ),
        (
            "relative link",
            LayerBuilder::new()
                .symlink("a", "../outside")
                .file("a/canary", 0o600, "dead"),
        ),
        (
            "deep link",
            LayerBuilder::new()
                .symlink("x/a", "../../../../outside")
                .dir("x/a/new", 0o700),
        ),
        (
            "chain",
            LayerBuilder::new()
                .symlink("a", "b")
                .symlink("b", "..")
                .file("a/outside/canary", 0o600, "dead"),
        ),
        (
            "file over link",
            LayerBuilder::new()
                .symlink("a", format!("{outside}/canary"))
                .file("a", 0o600, "new"),
        ),
        (
            "device over link",
            LayerBuilder::new()
                .symlink("a", format!("{outside}/canary"))
                .device("a", 0o600, 1, 3),
        ),
        (
            "dir over link",
            LayerBuilder::new()
                .symlink("a", &outside)
                .dir("a", 0o700)
                .owner(9, 9),
        ),
        (
            "absolute name",
            LayerBuilder::new().file(format!("{outside}/canary"), 0o600, "dead"),
        ),
        (
            "whiteout through link",
            LayerBuilder::new()
                .symlink("a", &outside)
                .whiteout("a/canary"),
        ),
        (
            "opaque through link",
            LayerBuilder::new().symlink("a", &outside).opaque("a"),
        ),
    ];
    for (name, layer) in cases {
        with_each_resolver(|resolver| {
            fs::remove_dir_all(scene.root()).expect("cleared");
            fs::create_dir(scene.root()).expect("a root");
            scene.unpack(&layer, resolver).expect(name);
            scene.assert_untouched(name);
        });
    }
}

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn hostile_archives_are_refused_with_the_entry_named() {
    if !is_root() {
        return;
    }
    let outside = Scene::new();
    let canary = format!("{}/canary", outside.outside());
    let cases: Vec<(LayerBuilder, &str)> = vec![
        (
            LayerBuilder::new().file("../escape", 0o600, ""),
            "../escape",
        ),
        (LayerBuilder::new().dir("a/../..", 0o700), "a/../.."),
        (
            LayerBuilder::new().hardlink("a", "../outside/canary"),
            "../outside/canary",
        ),
        (LayerBuilder::new().hardlink("a", &canary), "canary"),
        (
            LayerBuilder::new()
                .symlink("l", outside.outside())
                .hardlink("a", "l/canary"),
            "l/canary",
        ),
        (LayerBuilder::new().hardlink("a", "missing"), "\"a\""),
        (LayerBuilder::new().hardlink("a", "/"), "\"/\""),
        (
            LayerBuilder::new().dir("d", 0o755).hardlink("a", "d"),
            "\"a\"",
        ),
        (LayerBuilder::new().file(".wh.", 0o600, ""), ".wh."),
        (LayerBuilder::new().file("a/.wh...", 0o600, ""), ".wh..."),
        (
            LayerBuilder::new()
                .file("f", 0o600, "")
                .file("f/below", 0o600, ""),
            "f/below",
        ),
        (
            LayerBuilder::new()
                .symlink("a", "b")
                .symlink("b", "a")
                .file("a/x", 0o600, ""),
            "a/x",
        ),
        (LayerBuilder::new().file("a".repeat(256), 0o600, ""), "255"),
        (
            LayerBuilder::new().file("a/".repeat(2100) + "b", 0o600, ""),
            "4096",
        ),
        (LayerBuilder::new().entry("odd", b'V', ""), "'V'"),
        (
            LayerBuilder::new()
                .file("./", 0o600, "")
                .entry(".", b'2', ""),
            "the root",
        ),
        (
            LayerBuilder::new()
                .file("big", 0o600, "")
                .claimed_size(1 << 50),
            "file size",
        ),
        (
            LayerBuilder::new()
                .file("short", 0o600, "x")
                .claimed_size(1 << 20),
            "after 1 entries",
        ),
        (LayerBuilder::new().raw([b'x'; 512]), "checksum"),
        (
            LayerBuilder::new()
                .file("a", 0o600, "")
                .raw(b"half a header")
                .without_end(),
            "after 1 entries",
        ),
        (
            LayerBuilder::new().file("n", 0o600, "").xattr("bogus", "1"),
            "\"bogus\"",
        ),
        (
            LayerBuilder::new()
                .file("n", 0o600, "")
                .xattr("user.big", vec![0; 2 << 20]),
            "extension header",
        ),
    ];
    for (layer, word) in cases {
        with_each_resolver(|resolver| {
            let scene = Scene::new();
            let error = scene.unpack(&layer, resolver).expect_err(word);
            assert!(
                error.to_string().contains(word),
                "{error} does not name {word}"
            );
            scene.assert_untouched(word);
        });
    }
    outside.assert_untouched("all");
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

/// One entry of any kind under names that collide, climb and lead through links.
fn any_entry() -> impl Strategy<Value = (u8, String, String)> {
    let part = prop::sample::select(vec!["a", "b", "..", ".", "", ".wh.a", ".wh..wh..opq", "c"]);
    let path = prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"));
    let outside = prop::sample::select(vec![
        "..",
        "../outside",
        "/",
        "/tmp",
        "a",
        "../../..",
        "a/b",
        "../root",
    ]);
    (0..7_u8, path, outside.prop_map(str::to_owned))
}

fn add(layer: LayerBuilder, (kind, path, target): &(u8, String, String)) -> LayerBuilder {
    match kind {
        0 => layer.dir(path, 0o755),
        1 => layer.symlink(path, target),
        2 => layer.hardlink(path, target),
        3 => layer.device(path, 0o600, 1, 3),
        4 => layer.hardlink(path, path),
        _ => layer.file(path, 0o644, "data"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_sequence_of_entries_reaches_outside(entries in prop::collection::vec(any_entry(), 1..16)) {
        prop_assume!(is_root());
        // Entries that are refused end an archive: each is tried alone on the same root as well.
        let scene = Scene::new();
        for resolver in [Resolver::Walk, Resolver::probe()] {
            for entry in &entries {
                let layer = add(LayerBuilder::new(), entry);
                let _ = scene.unpack(&layer, resolver);
                scene.assert_untouched("alone");
            }
            let layer = entries.iter().fold(LayerBuilder::new(), add);
            let _ = scene.unpack(&layer, resolver);
            scene.assert_untouched("together");
        }
    }

    #[test]
    fn both_resolvers_make_the_same_tree(entries in prop::collection::vec(any_entry(), 1..16)) {
        prop_assume!(is_root() && Resolver::probe() == Resolver::Kernel);
        let (walk, kernel) = (Scene::new(), Scene::new());
        for entry in &entries {
            let layer = add(LayerBuilder::new(), entry);
            let walked = walk.unpack(&layer, Resolver::Walk).is_ok();
            prop_assert_eq!(walked, kernel.unpack(&layer, Resolver::Kernel).is_ok(), "{:?}", entry);
        }
        prop_assert_eq!(tree(&walk.root()), tree(&kernel.root()));
    }

    #[test]
    fn any_bytes_are_unpacked_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let scene = Scene::new();
        let _ = unpack(bytes.as_slice(), &scene.root(), Resolver::Walk);
        scene.assert_untouched("noise");
    }
}

/// Names with type, mode and size.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, u64)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("metadata");
            if metadata.is_dir() {
                todo.push(path.clone());
            }
            let size = if metadata.is_dir() { 0 } else { metadata.len() };
            let name = path.strip_prefix(root).expect("below").to_owned();
            found.insert(name, (metadata.mode(), size));
        }
    }
    found
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
fn names_of_directories_cannot_fill_the_memory() {
    if !is_root() {
        return;
    }
    // Each entry of one kilobyte makes 256 directories nobody listed.
    let deep = |at: usize| format!("{at:03}/{}", "abc/".repeat(255));
    let layer = (0..8).fold(LayerBuilder::new(), |layer, at| {
        layer.file(format!("{}f", deep(at)), 0o644, "")
    });
    let scene = Scene::new();
    let error = scene
        .unpack(&layer, Resolver::Walk)
        .expect_err("too many names");
    assert!(
        error.to_string().contains("directory names") && error.is_content(),
        "{error}"
    );
}
