//! What a guest boots from that has this machine's own files: Debian's kernel for its processor,
//! and an initial file system that finds them.

use std::fs;

use super::image;
use super::modules::Modules;
use crate::cross;
use crate::setup;

/// What booting it takes, from Debian.
const PACKAGES: [(&str, &str); 4] = [
    ("qemu-system-x86", "/usr/bin/qemu-system-x86_64"),
    ("kmod", "/usr/sbin/depmod"),
    ("e2fsprogs", "/usr/sbin/mke2fs"),
    (
        "debian-archive-keyring",
        "/usr/share/keyrings/debian-archive-keyring.gpg",
    ),
];

/// What finds the files, in this order; the kernel asks for all else by itself.
const MODULES: [&str; 7] = [
    "virtio_pci",
    "virtio_blk",
    "crc32c_generic",
    "ext4",
    "9pnet_virtio",
    "9p",
    "overlay",
];

/// Makes the files, and prints the directory that they are in.
pub(super) fn prepare() -> Result<(), String> {
    if std::env::consts::ARCH != "x86_64" {
        return Err("a guest with this machine's files takes an x86-64 machine".to_owned());
    }
    setup::install(&PACKAGES)?;
    let dir = cross::target_dir()?.join("device/amd64");
    fs::create_dir_all(&dir).map_err(|error| format!("make {}: {error}", dir.display()))?;
    let kernel = super::kernel(&dir, "amd64", "linux-image-amd64")?;
    let modules = Modules::of(&kernel)?;
    let init = include_str!("guest.sh");
    let busybox = kernel.join("bin/busybox");
    image::first_files(
        &busybox,
        &modules.files(&MODULES)?,
        init,
        &kernel.join("initramfs"),
    )?;
    println!("{}", kernel.display());
    Ok(())
}
