//! Layers of which many files are here already.

use std::fs;
use std::path::{Path, PathBuf};

use kobune_fixtures::{Content, Fault, Times};
use kobune_puller::{PullError, VerifyError};

use super::scene::*;
use super::update::{Reasons, Update, image_of, noise, version};

#[tokio::test]
async fn files_that_are_here_are_not_fetched_again() {
    if !is_root() {
        return;
    }
    let update = Update::new(version(2, &[3, 4, 30]).build().chunked()).await;
    assert!(update.pull().await.expect("pulled").is_empty());
    // The name of the version, three of forty files in two places; before them table and framing.
    let (sent, all) = (update.scene.sent(), update.layer().blob.len());
    assert!(sent * 100 < all * 15, "{sent} of {all} bytes");
    let requests = update.scene.blob_requests();
    assert_eq!(requests.iter().flatten().count(), 4, "{requests:?}");
}

#[tokio::test]
async fn chunked_versions_follow_each_other() {
    if !is_root() {
        return;
    }
    let update = Update::new(version(2, &[1]).build().chunked()).await;
    update.pull().await.expect("pulled");
    let third = image_of(version(3, &[1, 2]).build().chunked());
    let content = |content: &mut Content| content.add_image(REPOSITORY, "2.0", &third);
    update.scene.registry.update(content);
    update.scene.registry.clear_requests();
    let update = Update {
        new: third,
        ..update
    };
    assert!(update.pull().await.expect("pulled").is_empty());
    assert!(update.scene.sent() * 100 < update.layer().blob.len() * 15);
}

#[tokio::test]
async fn the_first_version_is_fetched_at_once() {
    if !is_root() {
        return;
    }
    let image = image_of(version(1, &[]).build().chunked());
    let scene = Scene::serving(&image);
    let reasons = Reasons::default();
    scene.pull_watched(":1.0", &reasons).await.expect("pulled");
    assert!(reasons.0.into_inner().expect("no panic").is_empty());
    assert_eq!(
        scene.blob_requests(),
        [None, None],
        "configuration and layer"
    );
}

#[tokio::test]
async fn a_broken_connection_does_not_make_it_whole() {
    if !is_root() {
        return;
    }
    let update = Update::new(version(2, &[3, 4, 5, 6]).build().chunked()).await;
    update.fault(Fault::DropAfter { bytes: 500 }, Times::First(3));
    assert!(update.pull().await.expect("pulled").is_empty());
    assert!(update.scene.sent() * 100 < update.layer().blob.len() * 20);
}

#[tokio::test]
async fn on_any_doubt_the_whole_layer_is_fetched() {
    if !is_root() {
        return;
    }
    let new = || version(2, &[3, 30]).build().chunked();
    type Spoil = fn(&Update);
    let cases: [(&str, Spoil); 4] = [
        ("otherwise than asked for", |update| {
            update.fault(Fault::NoRange, Times::Always);
        }),
        ("verify its table of contents", |update| {
            let at = update.place("manifest") + 9;
            update.fault(Fault::FlipByte { at }, Times::First(1));
        }),
        ("verify its framing", |update| {
            let at = update.place("tarsplit") + 9;
            update.fault(Fault::FlipByte { at }, Times::First(1));
        }),
        ("\"opt/file-3\" is not what", |update| {
            // In the middle of the third file's content; asked for after the table.
            let blob = &update.layer().blob;
            let content = noise(203, 20_000);
            let middle = blob
                .windows(100)
                .position(|part| part == &content[9000..9100]);
            let at = middle.expect("noise is stored as it is");
            update.fault(Fault::FlipByte { at }, Times::First(3));
        }),
    ];
    for (reason, spoil) in cases {
        let update = Update::new(new()).await;
        spoil(&update);
        let reasons = update.pull().await.expect("pulled");
        assert!(
            reasons.len() == 1 && reasons[0].contains(reason),
            "{reason}: {reasons:?}"
        );
    }
}

/// What can be wrong with a file of the old version.
const SPOILT: [fn(&Path); 3] = [
    |path| {
        let mut rotten = noise(7, 20_000);
        rotten[77] ^= 1;
        fs::write(path, rotten).expect("written");
    },
    |path| fs::remove_file(path).expect("removed"),
    |path| {
        // Root of the machine has the right content, too.
        let outside = path.ancestors().nth(4).expect("the store").join("outside");
        fs::rename(path, &outside).expect("moved");
        std::os::unix::fs::symlink(&outside, path).expect("a link");
    },
];

#[tokio::test]
async fn a_file_that_has_rotted_is_gone_or_is_a_way_out_is_fetched() {
    if !is_root() {
        return;
    }
    for spoil in SPOILT {
        let update = Update::new(version(2, &[3]).build().chunked()).await;
        spoil(&update.old_layer().join("opt/file-7"));
        let reasons = update.pull().await.expect("pulled");
        assert!(reasons.is_empty(), "{reasons:?}");
        assert!(update.scene.sent() * 100 < update.layer().blob.len() * 15);
        let new = update.scene.layer_path(update.layer());
        let content = fs::read(new.join("opt/file-7")).expect("readable");
        assert!(content == noise(7, 20_000));
    }
}

/// An old version that was chunked told what its files are: none is read to find that out, and what
/// has become of one since shows when the layer is put together.
#[tokio::test]
async fn what_a_chunked_version_told_of_its_files_is_kept_and_not_trusted() {
    if !is_root() {
        return;
    }
    let old = || version(1, &[]).build().chunked();
    let new = || version(2, &[3]).build().chunked();
    let place = std::env::temp_dir();
    let update = Update::over(old(), &place, new()).await;
    assert!(update.pull().await.expect("pulled").is_empty());
    assert!(update.scene.sent() * 100 < update.layer().blob.len() * 15);
    let verified = update.scene.puller.store().verify().expect("verified");
    assert!(verified.damage.is_empty(), "{:?}", verified.damage);
    let reasons = ["what was put together", "from its parts", "from its parts"];
    for (spoil, reason) in SPOILT.into_iter().zip(reasons) {
        let update = Update::over(old(), &place, new()).await;
        spoil(&update.old_layer().join("opt/file-7"));
        let told = update.pull().await.expect("pulled");
        assert!(told.len() == 1 && told[0].contains(reason), "{told:?}");
        let new = update.scene.layer_path(update.layer());
        let content = fs::read(new.join("opt/file-7")).expect("readable");
        assert!(content == noise(7, 20_000));
    }
}

#[tokio::test]
async fn an_archive_other_than_the_configuration_names_is_refused() {
    if !is_root() {
        return;
    }
    // Whoever packed it says the truth about another archive.
    let mut layer = version(2, &[3]).build().chunked();
    layer.diff_id = version(2, &[4]).build().diff_id;
    let update = Update::new(layer).await;
    let error = update.pull().await.expect_err("refused");
    let is_diff_id = |error: &PullError| {
        matches!(
            error,
            PullError::Verify {
                source: VerifyError::DiffId { .. },
                ..
            }
        )
    };
    assert!(is_diff_id(&error), "{}", chain(&error));
    assert_eq!(update.scene.layers(), 1);
    assert_eq!(update.scene.count("staging"), 0);
    assert_eq!(update.scene.count("files"), 1);
}

#[tokio::test]
async fn lists_of_files_have_what_is_there_in_the_end_and_go_with_their_layer() {
    if !is_root() {
        return;
    }
    // One file replaces another, one a directory.
    let layer = version(1, &[])
        .file("twice", 0o644, "first")
        .file("twice", 0o644, "second")
        .dir("gone", 0o755)
        .file("gone/file", 0o644, "x")
        .file("gone", 0o644, "y")
        .sparse("holes", 100_000, &[(50_000, b"x")])
        .build();
    let scene = Scene::serving(&image_of(layer.clone()));
    scene.pull(":1.0").await.expect("pulled");
    let list = scene
        .directory
        .path()
        .join("files")
        .join(layer.diff_id.encoded());
    assert!(list.exists());
    let verified = scene.puller.store().verify().expect("verified");
    assert!(verified.damage.is_empty(), "{:?}", verified.damage);
    assert!(verified.unlisted.is_empty());
    assert_eq!(verified.files, 45);
    scene
        .puller
        .store()
        .remove(&scene.reference(":1.0"))
        .expect("removed");
    scene.puller.store().sweep(&[]).expect("swept");
    assert!(!list.exists());
}

/// Kilobytes in use on the file system that holds `path`.
fn used(path: &Path) -> u64 {
    let all = nix::sys::statvfs::statvfs(path).expect("a file system");
    (all.blocks() - all.blocks_free()) * all.fragment_size() / 1000
}

#[tokio::test]
async fn files_share_their_blocks_where_the_file_system_can() {
    if !is_root() {
        return;
    }
    let work = tempfile::tempdir().expect("a directory");
    let (image, point) = (work.path().join("image"), work.path().join("mounted"));
    fs::create_dir(&point).expect("a directory");
    let file = fs::File::create(&image).expect("a file");
    file.set_len(400 << 20).expect("a size");
    let point = Mount::new(&image, point);
    let update = Update::below(&point.0, version(2, &[3]).build().chunked()).await;
    nix::unistd::sync();
    let before = used(&point.0);
    assert!(update.pull().await.expect("pulled").is_empty());
    nix::unistd::sync();
    let grown = used(&point.0) - before;
    // Of 805 kB one file of 20 is new; the rest is what directories, inodes and the list take.
    assert!(grown < 400, "{grown} kB");
}

/// An xfs, until dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(image: &Path, point: PathBuf) -> Self {
        let run = |command: &mut std::process::Command| {
            let output = command.output().expect("it is installed");
            assert!(output.status.success(), "{output:?}");
        };
        let mut mkfs = std::process::Command::new("mkfs.xfs");
        run(mkfs.args(["-q", "-m", "reflink=1"]).arg(image));
        let mut mount = std::process::Command::new("mount");
        run(mount
            .args(["-t", "xfs", "-o", "loop"])
            .arg(image)
            .arg(&point));
        Self(point)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let mut umount = std::process::Command::new("umount");
        let _ = umount.arg("-l").arg(&self.0).status();
    }
}
