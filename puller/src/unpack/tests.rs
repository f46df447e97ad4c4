//! Archives as registries serve them, and as somebody hostile would.

mod any;
mod hostile;
mod kinds;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kobune_fixtures::LayerBuilder;

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
        let tar = layer.build().tar;
        unpack(tar.as_slice(), &self.root(), resolver, &mut ()).map(|done| done.implied)
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
