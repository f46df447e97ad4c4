//! Two directory trees, compared in everything a program can see.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::images::run;

/// Layers mounted over each other; unmounted when dropped.
pub(crate) struct Overlay {
    point: tempfile::TempDir,
}

/// One file as `lstat` and its attributes show it.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    size: u64,
    device: u64,
    mtime: (i64, i64),
    target: Option<PathBuf>,
    attributes: BTreeMap<String, Vec<u8>>,
    content: u64,
    /// The first name of the same file, itself included.
    first_name: PathBuf,
}

impl Overlay {
    pub(crate) fn mount(layers: &[PathBuf], work: &Path) -> Self {
        let point = tempfile::tempdir_in(work).expect("a mount point");
        // overlayfs wants two layers at least when nothing is writable.
        let empty = work.join("empty");
        fs::create_dir_all(&empty).expect("an empty layer");
        let highest_first = layers.iter().rev().map(|layer| layer.display().to_string());
        let lower: Vec<String> = highest_first.chain([empty.display().to_string()]).collect();
        let options = format!("lowerdir={}", lower.join(":"));
        let path = point.path().to_str().expect("a path in UTF-8");
        run("mount", ["-t", "overlay", "overlay", "-o", &options, path]);
        Self { point }
    }

    pub(crate) fn path(&self) -> &Path {
        self.point.path()
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        run("umount", [self.point.path()]);
    }
}

/// Both trees have the same names with the same types, modes, owners, sizes, contents, times,
/// targets, attributes and hard links. `layers` is how many were mounted: of more than one, those
/// above may use a directory without listing it, and then its time is theirs.
pub(crate) fn assert_same(ours: &Path, theirs: &Path, layers: usize, what: &str) {
    let (mut ours, mut theirs) = (see(ours), see(theirs));
    if layers > 1 {
        let directories = ours.values_mut().chain(theirs.values_mut());
        for directory in directories.filter(|seen| seen.first_name.as_os_str().is_empty()) {
            directory.mtime = (0, 0);
        }
    }
    let missing: Vec<_> = theirs
        .keys()
        .filter(|path| !ours.contains_key(*path))
        .collect();
    let extra: Vec<_> = ours
        .keys()
        .filter(|path| !theirs.contains_key(*path))
        .collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{what}: missing {missing:?}, extra {extra:?}"
    );
    let different: Vec<_> = theirs
        .iter()
        .filter(|(path, seen)| ours[*path] != **seen)
        .map(|(path, seen)| {
            format!(
                "{}\n  ours   {:?}\n  theirs {seen:?}",
                path.display(),
                ours[path]
            )
        })
        .collect();
    let shown = different
        .iter()
        .take(10)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        different.is_empty(),
        "{what}: {} differ:\n{shown}",
        different.len()
    );
    assert!(!theirs.is_empty());
}

fn see(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut paths = vec![root.to_owned()];
    let mut next = 0;
    while next < paths.len() {
        let path = paths[next].clone();
        next += 1;
        if fs::symlink_metadata(&path).expect("metadata").is_dir() {
            let entries = fs::read_dir(&path).expect("a directory");
            paths.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
    }
    paths.sort();
    let mut first_names: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut seen = BTreeMap::new();
    for path in paths {
        let name = path.strip_prefix(root).expect("below").to_owned();
        let metadata = fs::symlink_metadata(&path).expect("metadata");
        let first_name = first_names
            .entry(metadata.ino())
            .or_insert_with(|| name.clone())
            .clone();
        let is_directory = metadata.is_dir();
        let own = Seen {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            size: if is_directory { 0 } else { metadata.size() },
            device: metadata.rdev(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            target: fs::read_link(&path).ok(),
            attributes: attributes(&path),
            content: if metadata.is_file() {
                content(&path)
            } else {
                0
            },
            first_name: if is_directory {
                PathBuf::new()
            } else {
                first_name
            },
        };
        seen.insert(name, own);
    }
    seen
}

fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = xattr::list(path).expect("attributes");
    names
        .map(|name| {
            let value = xattr::get(path, &name)
                .expect("an attribute")
                .unwrap_or_default();
            (name.to_string_lossy().into_owned(), value)
        })
        .collect()
}

/// A hash that is good enough to tell two files apart.
fn content(path: &Path) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    fs::read(path).expect("a file").hash(&mut hasher);
    hasher.finish()
}
