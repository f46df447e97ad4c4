//! Power cuts: what the store did to the disk is recorded and done again up to every step, as three
//! kinds of disk would have it. From each the store must open, hold whole images only, and finish
//! the pull.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kobune_fixtures::{Content, ImageBuilder, LayerBuilder, Options, Registry};

use super::{Store, lock};
use crate::config::PullerConfig;
use crate::platform::Platform;
use crate::pull::{PullRequest, Puller};
use crate::reference::parse_reference;

/// Mode, owner and content by name.
pub(super) type Tree = BTreeMap<PathBuf, (u32, u32, Vec<u8>)>;

/// One call of [`super::disk::Disk`].
#[derive(Debug, Clone)]
pub(super) enum Step {
    MakeDirectory(PathBuf),
    Write(PathBuf, Vec<u8>),
    Append(PathBuf, Vec<u8>),
    FlushFile(PathBuf),
    FlushNames(PathBuf),
    /// Files were put into a directory: where a copy of it is.
    Unpacked(PathBuf, Arc<tempfile::TempDir>),
    Flush,
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

/// What was done, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal {
    steps: Arc<Mutex<Vec<Step>>>,
    /// How many more steps the disk has room for; any number where absent.
    room: Arc<Mutex<Option<usize>>>,
}

/// What of a disk's unflushed work is there after the power loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    /// All of it, the last write torn.
    All,
    /// Nothing.
    Flushed,
    /// All names, but files without their content.
    Names,
}

impl Step {
    /// Takes a copy of what was unpacked.
    pub(super) fn unpacked(tree: &Path) -> io::Result<Self> {
        let copy = tempfile::tempdir()?;
        copy_tree(tree, &copy.path().join("tree"))?;
        Ok(Self::Unpacked(tree.to_owned(), Arc::new(copy)))
    }
}

impl Journal {
    /// Fails where the disk is full; removing goes on then.
    pub(super) fn add(&self, step: Step) -> io::Result<()> {
        if !matches!(step, Step::Remove(_))
            && let Some(room) = &mut *lock(&self.room)
        {
            let full = || io::Error::from(nix::errno::Errno::ENOSPC);
            *room = room.checked_sub(1).ok_or_else(full)?;
        }
        lock(&self.steps).push(step);
        Ok(())
    }

    pub(super) fn steps(&self) -> Vec<Step> {
        lock(&self.steps).clone()
    }

    /// The disk is full after so many steps, for good, or has room again.
    pub(super) fn set_room(&self, room: Option<usize>) {
        *lock(&self.room) = room;
    }
}

/// True if what `steps[at]` did is flushed by a later one.
fn is_flushed(steps: &[Step], at: usize) -> bool {
    let later = &steps[at + 1..];
    let names = |path: &Path| {
        let of = |step: &Step| matches!(step, Step::FlushNames(d) if path.parent() == Some(d));
        later.iter().any(of)
    };
    if later.iter().any(|step| matches!(step, Step::Flush)) {
        return true;
    }
    match &steps[at] {
        Step::MakeDirectory(path) | Step::Remove(path) | Step::Rename(_, path) => names(path),
        Step::Write(path, _) => {
            let content = later
                .iter()
                .any(|step| matches!(step, Step::FlushFile(file) if file == path));
            // The name it is given next counts.
            let renamed = later.iter().find_map(|step| match step {
                Step::Rename(from, to) if from == path => Some(to),
                _ => None,
            });
            content && names(renamed.unwrap_or(path))
        }
        _ => false,
    }
}

/// Does `steps` again below `root` instead of `from`.
fn replay(steps: &[Step], kept: Kept, from: &Path, root: &Path) {
    let last = steps.len().saturating_sub(1);
    for (at, step) in steps.iter().enumerate() {
        let flushed = is_flushed(steps, at);
        if kept == Kept::Flushed && !flushed {
            continue;
        }
        let place = |path: &Path| root.join(path.strip_prefix(from).expect("below the store"));
        let torn = |body: &[u8]| match kept {
            Kept::Names if !flushed && !has_content(steps, at) => Vec::new(),
            Kept::All if at == last => body[..body.len() / 2].to_vec(),
            _ => body.to_vec(),
        };
        // What depends on something that was lost is lost, too.
        let _: io::Result<()> = match step {
            Step::MakeDirectory(path) => fs::create_dir_all(place(path)),
            Step::Write(path, body) => fs::write(place(path), torn(body)),
            Step::Append(path, body) => {
                let mut all = fs::read(place(path)).unwrap_or_default();
                all.extend(torn(body));
                fs::write(place(path), all)
            }
            Step::Unpacked(path, copy) => {
                let copied = copy_tree(&copy.path().join("tree"), &place(path));
                if !flushed && (kept == Kept::Names || at == last) {
                    empty_files(&place(path));
                }
                copied
            }
            Step::Rename(from, to) => fs::rename(place(from), place(to)),
            Step::Remove(path) => {
                let path = place(path);
                if path.is_dir() {
                    fs::remove_dir_all(path)
                } else {
                    fs::remove_file(path)
                }
            }
            Step::FlushFile(_) | Step::FlushNames(_) | Step::Flush => Ok(()),
        };
    }
}

/// True if a file's content was flushed, though its name may not be.
fn has_content(steps: &[Step], at: usize) -> bool {
    let Step::Write(path, _) = &steps[at] else {
        return false;
    };
    let later = &mut steps[at + 1..].iter();
    later.any(|step| matches!(step, Step::FlushFile(file) if file == path))
}

pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(to)
        .status()?;
    status
        .success()
        .then_some(())
        .ok_or(io::ErrorKind::Other.into())
}

fn empty_files(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() {
            empty_files(&entry.path());
        } else if kind.is_file() {
            let file = fs::File::options().write(true).open(entry.path());
            file.and_then(|file| file.set_len(0)).expect("emptied");
        }
    }
}

/// Names with mode, owner and content.
pub(super) fn tree(root: &Path) -> Tree {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let metadata = fs::symlink_metadata(&path).expect("metadata");
            let content = if metadata.is_file() {
                fs::read(&path).expect("a file")
            } else {
                Vec::new()
            };
            if metadata.is_dir() {
                todo.push(path.clone());
            }
            let name = path.strip_prefix(root).expect("below").to_owned();
            found.insert(name, (metadata.mode(), metadata.uid(), content));
        }
    }
    found
}

/// The layers of a store, by name.
pub(super) fn layers(root: &Path) -> BTreeMap<String, Tree> {
    let entries = fs::read_dir(root.join("layers")).expect("layers");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .map(|path| {
            let name = path.file_name().expect("a name").to_string_lossy();
            (name.into_owned(), tree(&path))
        })
        .collect()
}

pub(super) fn images() -> Content {
    let text = |byte: u8| vec![byte; 5000];
    let base = LayerBuilder::new()
        .dir("etc", 0o700)
        .file("etc/base", 0o644, text(b'a'))
        .symlink("link", "etc/base");
    // Uses a directory without listing it: the image gets a layer that corrects it.
    let above = |byte| LayerBuilder::new().file("etc/above", 0o600, text(byte));
    let mut content = Content::new();
    for (tag, byte) in [("1", b'1'), ("2", b'2')] {
        let platform = kobune_fixtures::Platform::linux("amd64", "");
        let image = ImageBuilder::new(platform).layer(base.build());
        content.add_image("app", tag, &image.layer(above(byte).build()).build());
    }
    content
}

pub(super) fn puller(store: Store) -> Puller {
    let mut config = PullerConfig::new(store);
    config.spool_from = Some(1);
    Puller::new(config).expect("a puller")
}

pub(super) fn request(registry: &Registry, tag: &str) -> PullRequest {
    PullRequest {
        reference: parse_reference(&registry.reference("app", tag)).expect("a reference"),
        credentials: None,
        platform: "linux/amd64".parse::<Platform>().expect("a platform"),
    }
}

#[tokio::test]
async fn after_a_power_cut_at_any_step_images_are_whole_and_pulls_go_on() {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "layers need root");
        return;
    }
    let registry = Registry::start(images(), Options::default()).expect("a registry");
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path().join("store")).expect("a store");
    let (first, second) = (request(&registry, "1"), request(&registry, "2"));
    let puller_here = puller(store.clone());
    puller_here.pull(&first, &()).await.expect("pulled");
    puller_here.pull(&second, &()).await.expect("pulled");
    let whole = layers(store.root());
    assert_eq!(
        whole.len(),
        5,
        "three layers, and two that correct directories"
    );
    assert!(store.remove(&first.reference).expect("removed"));
    assert_eq!(store.sweep(&[]).expect("swept").layers, 2);
    let steps = store.inner.disk.journal.steps();
    let flushes = steps.iter().filter(|step| matches!(step, Step::Flush));
    assert_eq!(flushes.count(), 5, "one for each layer");

    let mut seen = BTreeSet::new();
    for end in 0..=steps.len() {
        for kept in [Kept::All, Kept::Flushed, Kept::Names] {
            let root = directory.path().join(format!("{end}-{kept:?}"));
            fs::create_dir(&root).expect("a directory");
            replay(&steps[..end], kept, store.root(), &root);
            // Many cuts leave the same.
            if seen.insert(format!("{:?}", tree(&root))) {
                let case = format!("{kept:?} of {end} steps, to {:?}", steps[..end].last());
                check(&root, &whole, [&first, &second], &case).await;
            }
            fs::remove_dir_all(&root).expect("removed");
        }
    }
    assert!(seen.len() > steps.len() / 2, "only {} states", seen.len());
}

async fn check(
    root: &Path,
    whole: &BTreeMap<String, Tree>,
    requests: [&PullRequest; 2],
    case: &str,
) {
    let store = Store::open(root).expect(case);
    for (name, found) in layers(root) {
        assert_eq!(Some(&found), whole.get(&name), "{case}: {name}");
    }
    let found = store.images().expect(case);
    assert!(found.broken.is_empty(), "{case}: {:?}", found.broken);
    for image in found.images {
        assert_eq!(image.layers.len(), 3, "{case}");
    }
    let puller = puller(store.clone());
    for request in requests {
        puller.pull(request, &()).await.expect(case);
    }
    assert_eq!(&layers(root), whole, "{case}");
    let left = |name: &str| fs::read_dir(root.join(name)).expect(name).count();
    assert_eq!((left("staging"), left("spool")), (0, 0), "{case}");
}
