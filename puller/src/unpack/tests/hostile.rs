//! What somebody hostile would pack: it is kept inside, or refused by name.

use super::*;

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
