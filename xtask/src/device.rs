//! The virtual device: a small Arm machine in QEMU with Debian's kernel, 128 MB, a read-only
//! root, a Qwiic Button on `/dev/i2c-1`, and the agent. `cargo xtask device`.
//!
//! Here its files are made; [`kobune_tests::Machine`] boots it, in a network without any way
//! out.

mod cpio;
mod debian;
mod demo;
mod guest;
mod image;
mod modules;
mod packages;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kobune_tests::{Device, Machine, MachineFiles, System};

use crate::cross::{self, Arch, Profile};
use crate::setup;
use image::Parts;
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

/// How long a device is used at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60 * 60);

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
    if args == ["--guest"] {
        return guest::prepare();
    }
    let (model, rest) = Model::choose(args)?;
    let files = model.prepare()?;
    let command = match rest {
        ["--prepare"] => {
            println!("{}", files.dir().display());
            return Ok(());
        }
        [] => "uname -a; cat /proc/meminfo | head -n 3; which kobune".to_owned(),
        words => words.join(" "),
    };
    let lab = Device::new();
    let mut machine = Machine::new(&lab, &files, Instant::now() + PATIENCE);
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
    match Model::choose(args)? {
        (model, []) => demo::run(model),
        (_, rest) => Err(format!("demo --device does not know {}", rest.join(" "))),
    }
}

/// A virtual device that can be had.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Model {
    arch: Arch,
    profile: Profile,
    system: System,
}

impl Model {
    /// The device that `args` begin with, an armv7 one of the quick build and with nothing but
    /// the agent unless they say otherwise, and the other arguments.
    fn choose<'a>(mut args: &'a [&'a str]) -> Result<(Self, &'a [&'a str]), String> {
        let mut model = Self {
            arch: Arch::named("armv7")?,
            profile: Profile::Lab,
            system: System::Minimal,
        };
        loop {
            match args {
                ["--arch", name, rest @ ..] => (model.arch, args) = (Arch::named(name)?, rest),
                ["--dist", rest @ ..] => (model.profile, args) = (Profile::Dist, rest),
                ["--debian", rest @ ..] => (model.system, args) = (System::Debian, rest),
                rest => return Ok((model, rest)),
            }
        }
    }

    /// The device with the programs as they are installed.
    pub(crate) fn released(arch: &str) -> Result<Self, String> {
        Ok(Self {
            arch: Arch::named(arch)?,
            profile: Profile::Dist,
            system: System::Minimal,
        })
    }

    /// Makes what is missing or out of date.
    pub(crate) fn prepare(self) -> Result<MachineFiles, String> {
        if self.system == System::Debian {
            return self.prepare_debian();
        }
        let (dir, parts) = self.parts("")?;
        let tree = dir.join("root");
        let _ = fs::remove_dir_all(&tree);
        image::gather(&parts, &modules::ALL, &tree)?;
        image::seal(&tree, &dir.join("root.img"), image::SIZE)?;
        Ok(MachineFiles::in_dir(&dir, self.arch.name, self.system))
    }

    /// As [`Model::prepare`], with Debian's docker on the root.
    pub(crate) fn prepare_with_docker(self) -> Result<MachineFiles, String> {
        let (dir, parts) = self.parts("-docker")?;
        let tree = dir.join("root");
        let _ = fs::remove_dir_all(&tree);
        let packages = Packages::update(&dir.join("apt"), debian(self.arch)?.0)?;
        let _ = packages.unpack_with_dependencies(&["docker.io", "iptables"], &tree)?;
        let iptables = tree.join("usr/sbin/iptables");
        symlink("xtables-nft-multi", &iptables)
            .map_err(|error| format!("link {}: {error}", iptables.display()))?;
        // For its key, which it must be able to write.
        let etc = tree.join("etc/docker");
        fs::create_dir_all(&etc).map_err(|error| format!("make {}: {error}", etc.display()))?;
        let names = [&modules::ALL[..], &modules::DOCKER].concat();
        image::gather(&parts, &names, &tree)?;
        image::seal(&tree, &dir.join("root.img"), "640M")?;
        Ok(MachineFiles::in_dir(&dir, self.arch.name, self.system))
    }

    /// As [`Model::prepare`], with Debian and the agent's packages instead of the agent.
    fn prepare_debian(self) -> Result<MachineFiles, String> {
        setup::install(&PACKAGES)?;
        let architecture = debian(self.arch)?.0;
        let cache = cross::target_dir()?.join("device").join(self.arch.name);
        let root = debian::base(&cache, architecture)?;
        let (dir, parts) = self.parts("-debian")?;
        debian::complete(&root, &parts, architecture, &dir)?;
        Ok(MachineFiles::in_dir(&dir, self.arch.name, self.system))
    }

    /// Builds programs and unpacks the kernel; what a root is made of, and the directory for
    /// it, which has all else by then.
    fn parts(self, suffix: &str) -> Result<(PathBuf, Parts), String> {
        let Self { arch, profile, .. } = self;
        let (architecture, kernel_package) = debian(arch)?;
        setup::install(&PACKAGES)?;
        let built = cross::build(arch, profile)?;
        let devices = cross::target_dir()?.join("device");
        let kernel = kernel(&devices.join(arch.name), architecture, kernel_package)?;
        let dir = devices.join(format!("{}-{}{suffix}", arch.name, profile.name()));
        fs::create_dir_all(&dir).map_err(|e| format!("make {}: {e}", dir.display()))?;
        copy(&kernel.join("vmlinuz"), &dir.join("vmlinuz"))?;
        for module in ["button", "led", "probe"] {
            copy(&built.program(module), &dir.join(module))?;
        }
        let parts = Parts {
            busybox: kernel.join("bin/busybox"),
            modules: Modules::of(&kernel)?,
            built,
        };
        image::initramfs(&parts, &dir.join("initramfs"))?;
        Ok((dir, parts))
    }
}

/// The unpacked kernel and busybox, fetched once, with the kernel's image as `vmlinuz`.
fn kernel(dir: &Path, architecture: &str, package: &str) -> Result<PathBuf, String> {
    let kernel = dir.join("kernel");
    let vmlinuz = kernel.join("vmlinuz");
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
    copy(&image, &vmlinuz)?;
    Ok(kernel)
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    fs::copy(from, to)
        .map(drop)
        .map_err(|error| format!("copy {} to {}: {error}", from.display(), to.display()))
}
