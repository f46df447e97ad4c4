//! Copies of the registry's crates with our patches.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::workspace;
use crate::setup;

/// Makes a patched copy of every crate that `packaging/patches` has a directory for, named
/// `CRATE-VERSION`, in `dir`; gives their paths. What is up to date stays untouched.
///
/// Fails where the lock file has another version: then the patches are to be looked at.
pub(crate) fn stage(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let patches = workspace()?.join("packaging/patches");
    let packages = packages()?;
    let mut staged = Vec::new();
    for crate_patches in sorted(&patches)? {
        let name = crate_patches
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let source = packages
            .iter()
            .find(|(package, _)| *package == name)
            .map(|(_, source)| source)
            .ok_or_else(|| {
                format!(
                    "{}: Cargo.lock has no such crate version",
                    crate_patches.display()
                )
            })?;
        let copy = dir.join(&name);
        patched_copy(source, &crate_patches, &copy)?;
        staged.push(copy);
    }
    Ok(staged)
}

fn patched_copy(source: &Path, patches: &Path, copy: &Path) -> Result<(), String> {
    let patches = sorted(patches)?;
    let mut text = String::new();
    for patch in &patches {
        text += &read(patch)?;
    }
    let stamp = copy.join(".applied-patches");
    if copy.is_dir() && fs::read_to_string(&stamp).is_ok_and(|applied| applied == text) {
        return Ok(());
    }
    let _ = fs::remove_file(&stamp);
    let _ = fs::remove_dir_all(copy);
    let parent = copy.parent().unwrap_or(copy);
    fs::create_dir_all(parent).map_err(|error| format!("make {}: {error}", parent.display()))?;
    setup::install(&[("patch", "/usr/bin/patch")])?;
    setup::run(Command::new("cp").arg("-r").arg(source).arg(copy))?;
    for patch in &patches {
        setup::run(
            Command::new("patch")
                .args(["--quiet", "--strip=1", "--fuzz=0", "--forward"])
                .arg("--directory")
                .arg(copy)
                .arg("--input")
                .arg(patch),
        )?;
    }
    fs::write(&stamp, text).map_err(|error| format!("write {}: {error}", stamp.display()))
}

/// The crates of the lock file, as `NAME-VERSION` with the directory of their source.
fn packages() -> Result<Vec<(String, PathBuf)>, String> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--locked", "--format-version", "1"])
        .current_dir(workspace()?)
        .output()
        .map_err(|error| format!("run cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("read cargo's metadata: {error}"))?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    Ok(packages
        .filter_map(|package| {
            let name = package["name"].as_str()?;
            let version = package["version"].as_str()?;
            let manifest = Path::new(package["manifest_path"].as_str()?);
            Some((format!("{name}-{version}"), manifest.parent()?.to_owned()))
        })
        .collect())
}

fn sorted(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |error| format!("list {}: {error}", dir.display());
    let entries = fs::read_dir(dir).map_err(failed)?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("read {}: {error}", path.display()))
}
