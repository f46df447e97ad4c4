//! What holds for any archive at all.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

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
        let _ = unpack(bytes.as_slice(), &scene.root(), Resolver::Walk, &mut ());
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
