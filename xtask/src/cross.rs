//! Static programs for devices: `cargo xtask cross ARCH`.
//!
//! Linked with musl, so that they run on any Linux from 4.9 on whatever its C library. The C
//! compiler, C library and linker of every target are zig's, from PyPI; the Rust standard
//! library is built from its source, for size; for tests it is rustup's where there is one. The
//! dependencies in `packaging/patches` are patched ([`staging`]).

mod examine;
mod staging;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};

use crate::setup;
use toolchain::Toolchain;

/// How programs are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As they are installed: small.
    Dist,
    /// As the virtual device's tests want them: soon.
    Lab,
}

impl Profile {
    /// As `Cargo.toml` has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dist => "dist",
            Self::Lab => "lab",
        }
    }
}

/// A processor that programs are built for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arch {
    /// As the command line has it.
    pub(crate) name: &'static str,
    /// Rust's target.
    triple: &'static str,
    /// Zig's target.
    zig: &'static str,
    /// Zig's name of the oldest processor.
    cpu: &'static str,
    /// What the compiler is asked for where small programs are wanted.
    small: &'static [&'static str],
    /// As ELF files have it.
    machine: u16,
    /// How a program is run on the oldest processor that QEMU has; empty for the machine's own.
    emulator: &'static [&'static str],
    /// What kobune, kobune-shim and kobune-monitor may take together, in bytes.
    budget: u64,
}

/// The processors, the smallest last.
pub(crate) const ARCHES: [Arch; 4] = [
    Arch {
        name: "x86_64",
        triple: "x86_64-unknown-linux-musl",
        zig: "x86_64-linux-musl",
        cpu: "x86_64",
        small: &[],
        machine: 62,
        emulator: &[],
        budget: 10_500_000,
    },
    Arch {
        name: "arm64",
        triple: "aarch64-unknown-linux-musl",
        zig: "aarch64-linux-musl",
        cpu: "generic",
        small: &[],
        machine: 183,
        emulator: &["qemu-aarch64", "-cpu", "cortex-a53"],
        budget: 9_200_000,
    },
    Arch {
        name: "armv7",
        triple: "armv7-unknown-linux-musleabihf",
        zig: "arm-linux-musleabihf",
        cpu: "generic+v7a+vfp3d16",
        // Thumb-2 says the same in three quarters of the bytes. Older processors have but the
        // first Thumb, which says it slower.
        small: &["-Ctarget-feature=+thumb-mode"],
        machine: 40,
        emulator: &["qemu-arm", "-cpu", "cortex-a8"],
        budget: 7_000_000,
    },
    Arch {
        name: "armv6",
        triple: "arm-unknown-linux-musleabihf",
        zig: "arm-linux-musleabihf",
        cpu: "arm1176jzf_s",
        small: &[],
        machine: 40,
        emulator: &["qemu-arm", "-cpu", "arm1176"],
        budget: 9_700_000,
    },
];

/// What a device gets.
const PROGRAMS: [&str; 3] = ["kobune", "kobune-shim", "kobune-monitor"];
/// The tutorial's modules and what the virtual device needs besides.
const FIXTURES: [&str; 4] = ["button", "led", "probe", "qwiic-device"];

/// Where the programs of one processor are.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    dir: PathBuf,
}

impl Built {
    /// Directory of all of them.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Path of a program.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Arch {
    /// The processor called `name`.
    pub(crate) fn named(name: &str) -> Result<Self, String> {
        let known = || ARCHES.map(|arch| arch.name).join(", ");
        ARCHES
            .into_iter()
            .find(|arch| arch.name == name)
            .ok_or_else(|| format!("unknown processor {name:?}: known are {}", known()))
    }
}

/// Builds for the processor that `args` name, sees that it is static and runs, says the sizes,
/// and holds the budget.
pub(crate) fn run(args: &[&str]) -> Result<(), String> {
    let names: Vec<_> = args.iter().filter(|arg| **arg != "--static").collect();
    let [name] = names[..] else {
        return Err("usage: cargo xtask cross armv7|arm64|armv6|x86_64 [--static]".to_owned());
    };
    let arch = Arch::named(name)?;
    let built = build(arch, Profile::Dist)?;
    let mut total = 0;
    for program in PROGRAMS {
        let size = size(&built.program(program))?;
        println!("{size:>10}  {}", built.program(program).display());
        total += size;
    }
    println!("{total:>10}  of {} bytes for {}", arch.budget, arch.name);
    for program in FIXTURES {
        let size = size(&built.program(program))?;
        println!("{size:>10}  {}", built.program(program).display());
    }
    examine::runs(&built.program("kobune"), arch)?;
    if total > arch.budget {
        return Err(format!(
            "the programs take {total} bytes, {} more than their budget",
            total - arch.budget
        ));
    }
    Ok(())
}

/// Builds everything for `arch`; quick where nothing changed.
pub(crate) fn build(arch: Arch, profile: Profile) -> Result<Built, String> {
    let bins = PROGRAMS.iter().flat_map(|bin| ["--bin", bin]);
    let packages = ["--package", "kobune", "--package", "kobune-runtime"];
    let args = packages.into_iter().chain(bins).collect::<Vec<_>>();
    examined(cargo(arch, profile, &args)?, arch, &PROGRAMS)?;
    build_fixtures(arch, profile)
}

/// Builds the tutorial's modules and what the virtual device needs besides, without the agent.
pub(crate) fn build_fixtures(arch: Arch, profile: Profile) -> Result<Built, String> {
    let bins = FIXTURES.iter().flat_map(|bin| ["--bin", bin]);
    let package = ["--package", "kobune-fixtures", "--no-default-features"];
    let features = ["--features", "modules"];
    let args = package.into_iter().chain(features).chain(bins);
    let built = cargo(arch, profile, &args.collect::<Vec<_>>())?;
    examined(built, arch, &FIXTURES)
}

/// `built`, where all of its `programs` are static.
fn examined(built: Built, arch: Arch, programs: &[&str]) -> Result<Built, String> {
    for program in programs {
        examine::is_static(&built.program(program), arch)?;
    }
    Ok(built)
}

/// Runs a `cargo build` with `args` for `arch`, with what that takes set up.
fn cargo(arch: Arch, profile: Profile, args: &[&str]) -> Result<Built, String> {
    let dir = target_dir()?.join("cross");
    fs::create_dir_all(&dir).map_err(|error| format!("make {}: {error}", dir.display()))?;
    let patched = staging::stage(&dir.join("patched"))?;
    let toolchain = Toolchain::set_up(&dir, arch, profile)?;
    setup::run(toolchain.cargo(&dir, &patched, profile).args(args))?;
    Ok(Built {
        dir: dir.join(arch.triple).join(profile.name()),
    })
}

fn size(path: &Path) -> Result<u64, String> {
    let metadata = fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(metadata.len())
}

/// Cargo's target directory, absolute.
pub(crate) fn target_dir() -> Result<PathBuf, String> {
    let dir = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    Ok(workspace()?.join(dir))
}

/// Root of the workspace.
pub(crate) fn workspace() -> Result<PathBuf, String> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    own.canonicalize()
        .map_err(|error| format!("find the workspace at {}: {error}", own.display()))
}
