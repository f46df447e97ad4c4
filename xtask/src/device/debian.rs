//! Debian's own user land for the device's processor, for what its package manager does there.
//!
//! Packages are fetched and unpacked here, and registered as installed; none of their scripts
//! has run, as these are programs of another processor.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::packages::Packages;
use crate::deb::output;

/// What Debian calls essential, and what packages with services and groups want beside it.
const NAMES: [&str; 23] = [
    "base-files",
    "base-passwd",
    "bsdutils",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "libc-bin",
    "login",
    "mawk",
    "passwd",
    "perl-base",
    "sed",
    "sysvinit-utils",
    "tar",
    "usr-is-merged",
    "util-linux",
];

/// Makes the file system of Debian's `architecture` below `dir`, once; its path.
pub(super) fn prepare(dir: &Path, architecture: &str) -> Result<PathBuf, String> {
    let root = dir.join("debian");
    let done = dir.join("debian.done");
    if done.exists() {
        return Ok(root);
    }
    let _ = fs::remove_dir_all(&root);
    let failed = |error| format!("make {}: {error}", root.display());
    fs::create_dir_all(&root).map_err(failed)?;
    let packages = Packages::update(&dir.join("debian-apt"), architecture)?;
    let archives = packages.unpack_with_dependencies(&NAMES, &root)?;
    register(&archives, &root.join("var/lib/dpkg"))?;
    for (link, target) in [("bin/sh", "dash"), ("usr/bin/awk", "mawk")] {
        let link = root.join(link);
        if link.symlink_metadata().is_err() {
            symlink(target, &link).map_err(failed)?;
        }
    }
    for name in ["passwd", "group"] {
        let master = root.join(format!("usr/share/base-passwd/{name}.master"));
        fs::copy(&master, root.join("etc").join(name))
            .map_err(|e| format!("{}: {e}", master.display()))?;
    }
    fs::write(&done, "").map_err(failed)?;
    Ok(root)
}

/// Writes down in dpkg's database that what `archives` has is installed.
fn register(archives: &Path, database: &Path) -> Result<(), String> {
    let failed = |error| format!("write {}: {error}", database.display());
    for name in ["info", "updates", "triggers"] {
        fs::create_dir_all(database.join(name)).map_err(failed)?;
    }
    let mut status = String::new();
    let entries = fs::read_dir(archives).map_err(|e| format!("{}: {e}", archives.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_some_and(|kind| kind == "deb") {
            status += "Status: install ok installed\n";
            status += &output(Command::new("dpkg-deb").arg("-f").arg(&path))?;
            status += "\n";
        }
    }
    fs::write(database.join("status"), status).map_err(failed)?;
    fs::write(database.join("available"), "").map_err(failed)
}
