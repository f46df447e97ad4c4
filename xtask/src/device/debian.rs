//! Debian with systemd for the device's processor, for what its package manager does there.
//!
//! Packages are fetched and unpacked here, and registered as installed; none of their scripts
//! has run, as these are programs of another processor.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::image::{self, Parts};
use super::modules;
use super::packages::Packages;
use crate::deb;

/// What Debian calls essential, an init, and what packages with services and groups want
/// beside it.
const NAMES: [&str; 28] = [
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
    "iproute2",
    "kmod",
    "libc-bin",
    "login",
    "mawk",
    "nftables",
    "passwd",
    "perl-base",
    "sed",
    "systemd",
    "systemd-sysv",
    "sysvinit-utils",
    "tar",
    "usr-is-merged",
    "util-linux",
];

/// Room for it, and for what is installed and run there.
const SIZE: &str = "512M";

/// Directories that are links since Debian 12.
const MERGED: [&str; 3] = ["bin", "lib", "sbin"];

/// Links of Debian's own scripts, and where this device differs: it boots to a shell for tests,
/// and has nobody at its console.
const LINKS: [(&str, &str); 6] = [
    ("usr/bin/sh", "dash"),
    ("usr/bin/awk", "mawk"),
    (
        "etc/systemd/system/default.target",
        "/lib/systemd/system/multi-user.target",
    ),
    (
        "etc/systemd/system/multi-user.target.wants/lab.service",
        "../lab.service",
    ),
    (
        "etc/systemd/system/serial-getty@ttyAMA0.service",
        "/dev/null",
    ),
    ("etc/systemd/system/getty.target", "/dev/null"),
];

const FILES: [(&str, &str); 3] = [
    ("etc/hostname", "kobune-device\n"),
    ("etc/machine-id", ""),
    (
        "etc/systemd/system/lab.service",
        "[Unit]\nDescription=Network, button and shell for tests\n\n\
         [Service]\nExecStart=/bin/sh -c 'network-up; button-up; exec control'\n",
    ),
];

/// The agent's packages on the root, older first: the same programs in two versions.
const VERSIONS: [&str; 2] = ["1.0", "1.1"];

/// Adds the device's modules and button to `root`, and the agent's packages to its `/root`, and
/// makes an image of it in `dir`.
pub(super) fn complete(
    root: &Path,
    parts: &Parts,
    architecture: &str,
    dir: &Path,
) -> Result<(), String> {
    image::equip(parts, &modules::ALL, root)?;
    let [programs, out] = [parts.built.dir(), dir].map(|path| path.to_string_lossy().into_owned());
    for version in VERSIONS {
        let built = ["--fast", "--programs", &programs, "--out", &out];
        let order = [architecture, "--version", version];
        deb::run(&[&order[..], &built].concat())?;
        let name = format!("kobune_{version}_{architecture}.deb");
        super::copy(&dir.join(&name), &root.join("root").join(&name))?;
    }
    image::seal(root, &dir.join("root.img"), SIZE)
}

/// The file system of Debian's `architecture` itself below `dir`, made once.
pub(super) fn base(dir: &Path, architecture: &str) -> Result<PathBuf, String> {
    let root = dir.join("debian");
    let done = dir.join("debian.done");
    let wanted = NAMES.join(" ");
    if fs::read_to_string(&done).is_ok_and(|names| names == wanted) {
        return Ok(root);
    }
    let _ = fs::remove_dir_all(&root);
    let failed = |error| format!("make {}: {error}", root.display());
    for name in MERGED {
        fs::create_dir_all(root.join("usr").join(name)).map_err(failed)?;
        symlink(format!("usr/{name}"), root.join(name)).map_err(failed)?;
    }
    let packages = Packages::update(&dir.join("debian-apt"), architecture)?;
    let archives = packages.unpack_with_dependencies(&NAMES, &root)?;
    register(&archives, &root.join("var/lib/dpkg"))?;
    configure(&root).map_err(failed)?;
    fs::write(&done, wanted).map_err(failed)?;
    Ok(root)
}

/// Does what the packages' scripts would have, as far as it is missed.
fn configure(root: &Path) -> std::io::Result<()> {
    for name in ["passwd", "group"] {
        let master = root.join(format!("usr/share/base-passwd/{name}.master"));
        let _ = fs::copy(master, root.join("etc").join(name))?;
    }
    fs::create_dir_all(root.join("etc/systemd/system/multi-user.target.wants"))?;
    for (path, text) in FILES {
        fs::write(root.join(path), text)?;
    }
    for (link, target) in LINKS {
        let link = root.join(link);
        let _ = fs::remove_file(&link);
        symlink(target, &link)?;
    }
    Ok(())
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
            status += &deb::output(Command::new("dpkg-deb").arg("-f").arg(&path))?;
            status += "\n";
        }
    }
    fs::write(database.join("status"), status).map_err(failed)?;
    fs::write(database.join("available"), "").map_err(failed)
}
