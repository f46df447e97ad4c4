//! The device's initial file system and its read-only root.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::cpio::Archive;
use super::modules::{EARLY, Modules};
use crate::cross::Built;
use crate::setup;

const INITRAMFS_INIT: &str = include_str!("initramfs.sh");
/// Programs of a root of the device's own.
const SCRIPTS: [(&str, &str); 2] = [
    ("sbin/init", include_str!("init.sh")),
    ("sbin/agent-up", include_str!("agent-up.sh")),
];
/// Programs of any root.
const EQUIPMENT: [(&str, &str); 3] = [
    ("sbin/button-up", include_str!("button-up.sh")),
    ("sbin/control", include_str!("control.sh")),
    ("sbin/network-up", include_str!("network-up.sh")),
];

/// The agent's configuration. The registry is the one that tests start beside the device.
const CONFIG: &str = "log_level = \"debug\"\n\n[registry]\nplain_http = [\"192.0.2.1:5000\"]\n";

/// Room for the programs, the modules and nothing else.
pub(crate) const SIZE: &str = "48M";

const DIRECTORIES: [&str; 11] = [
    "bin",
    "sbin",
    "usr/bin",
    "etc/kobune",
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "root",
    "var/lib/kobune",
];

const FILES: [(&str, &str); 5] = [
    ("etc/kobune/config.toml", CONFIG),
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/group", "root:x:0:\ni2c:x:108:\n"),
    ("etc/hosts", "127.0.0.1 localhost\n"),
    ("etc/resolv.conf", "nameserver 10.0.2.3\n"),
];

/// What a device's files are made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) busybox: PathBuf,
    pub(crate) modules: Modules,
    pub(crate) built: Built,
}

/// Writes the initial file system, which finds and mounts the root.
pub(crate) fn initramfs(parts: &Parts, to: &Path) -> Result<(), String> {
    let modules = parts.modules.files(&EARLY)?;
    first_files(&parts.busybox, &modules, INITRAMFS_INIT, to)
}

/// Writes an initial file system of busybox, kernel modules in the order of loading, and `init`.
pub(crate) fn first_files(
    busybox: &Path,
    modules: &[PathBuf],
    init: &str,
    to: &Path,
) -> Result<(), String> {
    let mut archive = Archive::default();
    for dir in ["bin", "dev", "proc", "sys", "root"] {
        archive.directory(dir);
    }
    archive.file("bin/busybox", &read(busybox)?);
    archive.file("init", init.as_bytes());
    let mut order = String::new();
    for file in modules {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&name, &read(file)?);
        order += &format!("{name}\n");
    }
    archive.file("modules", order.as_bytes());
    // The first shell is busybox under the name by which scripts ask for it.
    archive.link("bin/sh", "busybox");
    write(to, &archive.finish())
}

/// Gathers the root's files in `tree`, beside what is there, with the kernel modules `names`.
pub(crate) fn gather(parts: &Parts, names: &[&str], tree: &Path) -> Result<(), String> {
    for dir in DIRECTORIES {
        let path = tree.join(dir);
        fs::create_dir_all(&path).map_err(|e| format!("make {}: {e}", path.display()))?;
    }
    super::copy(&parts.busybox, &tree.join("bin/busybox"))?;
    for (link, target) in [
        ("bin/sh", "busybox"),
        ("sbin/modprobe", "/bin/busybox"),
        ("var/run", "/run"),
    ] {
        let _ = fs::remove_file(tree.join(link));
        symlink(target, tree.join(link)).map_err(|e| format!("link {link}: {e}"))?;
    }
    for program in ["kobune", "kobune-shim", "kobune-monitor"] {
        super::copy(
            &parts.built.program(program),
            &tree.join("usr/bin").join(program),
        )?;
    }
    for (path, text) in FILES {
        write(&tree.join(path), text.as_bytes())?;
    }
    scripts(&SCRIPTS, tree)?;
    equip(parts, names, tree)
}

/// Adds what the hardware takes, with the kernel modules `names`.
pub(crate) fn equip(parts: &Parts, names: &[&str], tree: &Path) -> Result<(), String> {
    super::copy(
        &parts.built.program("qwiic-device"),
        &tree.join("usr/bin/qwiic-device"),
    )?;
    scripts(&EQUIPMENT, tree)?;
    parts.modules.install(names, tree)
}

fn scripts(scripts: &[(&str, &str)], tree: &Path) -> Result<(), String> {
    for (path, text) in scripts {
        let path = tree.join(path);
        write(&path, text.as_bytes())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .map_err(|error| format!("make {} a program: {error}", path.display()))?;
    }
    Ok(())
}

/// Makes a disk image of `size` from the files in `tree`.
pub(crate) fn seal(tree: &Path, image: &Path, size: &str) -> Result<(), String> {
    let _ = fs::remove_file(image);
    setup::run(
        Command::new("/usr/sbin/mke2fs")
            .stdout(Stdio::null())
            .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0"])
            .args(["-E", "root_owner=0:0", "-d"])
            .args([tree, image])
            .arg(size),
    )
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("read {}: {error}", path.display()))
}

fn write(path: &Path, content: &[u8]) -> Result<(), String> {
    fs::write(path, content).map_err(|error| format!("write {}: {error}", path.display()))
}
