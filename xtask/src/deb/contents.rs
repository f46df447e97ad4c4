//! What the package installs.

use std::fs;
use std::path::{Path, PathBuf};

use super::control::Time;
use crate::{cross, manual};

/// A file of the package.
#[derive(Debug)]
pub(super) struct File {
    /// Below the root.
    pub(super) path: &'static str,
    pub(super) mode: u32,
    pub(super) content: Content,
}

/// What is in it.
#[derive(Debug)]
pub(super) enum Content {
    Text(String),
    /// Of the file that is named so without its `.gz`.
    Gzip(String),
    Copy(PathBuf),
}

/// Programs, by where they go.
const PROGRAMS: [(&str, &str); 3] = [
    ("kobune", "usr/bin/kobune"),
    ("kobune-shim", "usr/libexec/kobune/kobune-shim"),
    ("kobune-monitor", "usr/libexec/kobune/kobune-monitor"),
];

/// Files of the repository, by where they go, and their mode.
const COPIES: [(&str, &str, u32); 7] = [
    ("packaging/init/kobune", "etc/init.d/kobune", 0o755),
    (
        "packaging/systemd/kobune.service",
        "lib/systemd/system/kobune.service",
        0o644,
    ),
    (
        "packaging/debian/copyright",
        "usr/share/doc/kobune/copyright",
        0o644,
    ),
    (
        "docs/configuration.md",
        "usr/share/doc/kobune/configuration.md",
        0o644,
    ),
    (
        "docs/operations.md",
        "usr/share/doc/kobune/operations.md",
        0o644,
    ),
    ("docs/iot-hub.md", "usr/share/doc/kobune/iot-hub.md", 0o644),
    (
        "packaging/debian/lintian-overrides",
        "usr/share/lintian/overrides/kobune",
        0o644,
    ),
];

/// Where the files of `cargo xtask manual` go; the page is compressed.
const MANUAL: [&str; 4] = [
    "usr/share/man/man1/kobune.1.gz",
    "usr/share/bash-completion/completions/kobune",
    "usr/share/zsh/vendor-completions/_kobune",
    "usr/share/fish/vendor_completions.d/kobune.fish",
];

/// All of it, with the programs in `programs`.
pub(super) fn files(programs: &Path, version: &str, time: &Time) -> Result<Vec<File>, String> {
    let workspace = cross::workspace()?;
    let mut files: Vec<File> = PROGRAMS
        .iter()
        .map(|(name, path)| File {
            path,
            mode: 0o755,
            content: Content::Copy(programs.join(name)),
        })
        .collect();
    files.extend(COPIES.iter().map(|(from, path, mode)| File {
        path,
        mode: *mode,
        content: Content::Copy(workspace.join(from)),
    }));
    for (path, (_, text)) in MANUAL.into_iter().zip(manual::files()) {
        let content = match path.ends_with(".gz") {
            true => Content::Gzip(text),
            false => Content::Text(text),
        };
        let mode = 0o644;
        files.push(File {
            path,
            mode,
            content,
        });
    }
    let changes = workspace.join("CHANGELOG.md");
    let changes =
        fs::read_to_string(&changes).map_err(|e| format!("read {}: {e}", changes.display()))?;
    for (path, text) in [
        ("usr/share/doc/kobune/changelog.gz", time.changelog(version)),
        ("usr/share/doc/kobune/CHANGELOG.md.gz", changes),
    ] {
        files.push(File {
            path,
            mode: 0o644,
            content: Content::Gzip(text),
        });
    }
    Ok(files)
}
