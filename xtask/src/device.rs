//! The virtual device: a small Arm machine in QEMU with Debian's kernel, 128 MB, a read-only
//! root, a Qwiic Button on `/dev/i2c-1`, and the agent. `cargo xtask device`.
//!
//! Here its files are made; [`kobune_tests::Machine`] boots it, in a network without any way
//! out.

mod cpio;
mod demo;
mod image;
mod modules;
mod packages;

use std::fs;
use std::path::{Path, PathBuf};

use kobune_tests::{Device, Machine, MachineFiles};

use crate::cross::{self, Arch, Profile};
use crate::setup;
use modules::Modules;
use packages::Packages;

/// What building and booting take, from Debian.
pub(crate) const PACKAGES: [(&str, &str); 4] = [
    ("qemu-system-arm", "/usr/bin/qemu-system-arm"),
    ("kmod", "/usr/sbin/depmod"),
    ("e2fsprogs", "/usr/sbin/mke2fs"),
    (
        "debian-archive-keyring",
        "/usr/share/keyrings/debian-archive-keyring.gpg",
    ),
];

/// Debian's architecture and kernel for a processor.
fn debian(arch: Arch) -> Result<(&'static str, &'static str), String> {
    match arch.name {
        "armv7" => Ok(("armhf", "linux-image-armmp-lpae")),
        "arm64" => Ok(("arm64", "linux-image-arm64")),
        other => Err(format!("no virtual device for {other}")),
    }
}

/// Makes the files, boots the device, runs a command on it and shows what that said.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let (arch, rest) = arch(args)?;
    let dir = prepare(arch)?;
    let command = match rest {
        ["--prepare"] => {
            println!("{}", dir.display());
            return Ok(());
        }
        [] => "uname -a; free; kobune list".to_owned(),
        words => words.join(" "),
    };
    let lab = Device::new();
    let mut machine = Machine::new(&lab, &MachineFiles::in_dir(&dir, arch.name));
    machine.boot("");
    println!("booted in {:.1} s of its own time", machine.uptime());
    let output = machine.run(&command);
    print!("{}", output.stdout);
    match output.code {
        0 => Ok(()),
        code => Err(format!("{command:?} ended with {code}")),
    }
}

/// Runs the tutorial on the device.
pub(crate) fn demo(args: &[&str]) -> Result<(), String> {
    match arch(args)? {
        (arch, []) => demo::run(arch),
        (_, rest) => Err(format!("demo --device does not know {}", rest.join(" "))),
    }
}

/// The processor that `args` begin with, `armv7` without one, and the other arguments.
fn arch<'a>(args: &'a [&'a str]) -> Result<(Arch, &'a [&'a str]), String> {
    match args {
        ["--arch", name, rest @ ..] => Ok((Arch::named(name)?, rest)),
        rest => Ok((Arch::named("armv7")?, rest)),
    }
}

/// Makes what is missing or out of date; the directory with the files.
pub(crate) fn prepare(arch: Arch) -> Result<PathBuf, String> {
    let (architecture, kernel_package) = debian(arch)?;
    setup::install(&PACKAGES)?;
    let built = cross::build(arch, Profile::of_tests())?;
    let dir = cross::target_dir()?.join("device").join(arch.name);
    let kernel = kernel(&dir, architecture, kernel_package)?;
    let modules = Modules::of(&kernel)?;
    image::initramfs(&kernel, &modules, &dir.join("initramfs"))?;
    image::root(
        &kernel,
        &modules,
        &built,
        &dir.join("root"),
        &dir.join("root.img"),
    )?;
    for module in ["button", "led", "probe"] {
        let from = built.program(module);
        fs::copy(&from, dir.join(module)).map_err(|e| format!("copy {}: {e}", from.display()))?;
    }
    Ok(dir)
}

/// The unpacked kernel and busybox, fetched once; the kernel's image is `dir/vmlinuz`.
fn kernel(dir: &Path, architecture: &str, package: &str) -> Result<PathBuf, String> {
    let kernel = dir.join("kernel");
    let vmlinuz = dir.join("vmlinuz");
    if vmlinuz.exists() {
        return Ok(kernel);
    }
    println!("fetching Debian's kernel for {architecture}");
    let packages = Packages::update(&dir.join("apt"), architecture)?;
    let package = packages.target_of(package)?;
    let _ = fs::remove_dir_all(&kernel);
    packages.unpack(&[&package, "busybox-static"], &kernel)?;
    let boot = kernel.join("boot");
    let image = fs::read_dir(&boot)
        .map_err(|error| format!("list {}: {error}", boot.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().contains("/vmlinuz-"))
        .ok_or_else(|| format!("no kernel in {}", boot.display()))?;
    fs::copy(&image, &vmlinuz).map_err(|e| format!("copy {}: {e}", image.display()))?;
    Ok(kernel)
}
