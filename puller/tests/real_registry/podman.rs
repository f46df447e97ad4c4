//! podman with a store of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tree;

pub(crate) struct Podman {
    root: PathBuf,
    policy: PathBuf,
    /// No longer than 50 characters, says podman.
    run: tempfile::TempDir,
}

impl Podman {
    pub(crate) fn new(work: &Path) -> Self {
        let policy = work.join("policy.json");
        let anything = r#"{"default":[{"type":"insecureAcceptAnything"}]}"#;
        fs::write(&policy, anything).expect("written");
        Self {
            root: work.join("podman"),
            policy,
            run: tempfile::tempdir().expect("a directory"),
        }
    }

    pub(crate) fn pull(&self, reference: &str) {
        let policy = self.policy.to_str().expect("UTF-8");
        let options = ["--tls-verify=false", "--signature-policy", policy];
        self.say(&[&["pull", "-q"][..], &options, &[reference]].concat());
    }

    pub(crate) fn load(&self, file: &Path) {
        let (policy, file) = (self.policy.to_str(), file.to_str());
        let (policy, file) = (policy.expect("UTF-8"), file.expect("UTF-8"));
        self.say(&["load", "-q", "--signature-policy", policy, "-i", file]);
    }

    /// It made the same tree of the image.
    pub(crate) fn assert_unpacks(&self, reference: &str, expected: &Path) {
        let mounted = self.say(&["image", "mount", reference]);
        // It leaves the root the time it was made at: times of directories do not count.
        tree::assert_same(Path::new(&mounted), expected, 2, "podman's");
        self.say(&["image", "unmount", reference]);
    }

    fn say(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("podman");
        command.arg("--root").arg(&self.root);
        command.arg("--runroot").arg(self.run.path());
        command.args(["--storage-driver", "vfs", "--events-backend", "none"]);
        let output = command.args(arguments).output().expect("podman runs");
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        said.trim().to_owned()
    }
}
