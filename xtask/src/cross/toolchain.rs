//! What compiles and links for a foreign processor, installed below the target directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Arch, Profile, workspace};
use crate::setup;

/// Zig from PyPI: clang, lld and musl for every target in one package.
const ZIG_VERSION: &str = "0.17.1";

/// What cargo tells a program that it runs about its package. Build scripts ask for the same
/// names, and everything would be built again whenever another program runs us.
const PACKAGE_VARIABLES: [&str; 5] = [
    "CARGO_BIN_",
    "CARGO_CRATE_",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
    "CARGO_PRIMARY_",
];

/// A ready toolchain.
#[derive(Debug)]
pub(crate) struct Toolchain {
    arch: Arch,
    compiler: PathBuf,
    archiver: PathBuf,
    /// Whether the standard library is built along: for size, or for want of a prebuilt one.
    builds_std: bool,
}

impl Toolchain {
    /// Installs what `profile` needs and is missing, below `dir` and with rustup. Idempotent.
    pub(crate) fn set_up(dir: &Path, arch: Arch, profile: Profile) -> Result<Self, String> {
        let zig = install_zig(&dir.join(format!("zig-{ZIG_VERSION}")))?;
        let bin = dir.join("bin");
        fs::create_dir_all(&bin).map_err(|error| format!("make {}: {error}", bin.display()))?;
        let compiler = bin.join(format!("{}-cc", arch.triple));
        let archiver = bin.join("zig-ar");
        // cc-rs names the target as Rust does, which zig does not understand.
        let drop_target = "for argument do shift\n\
            case $argument in --target=*) ;; *) set -- \"$@\" \"$argument\" ;; esac\ndone";
        let zig = zig.display();
        write_script(
            &compiler,
            &format!(
                "{drop_target}\nexec '{zig}' cc -target {} -mcpu={} \"$@\"",
                arch.zig, arch.cpu
            ),
        )?;
        write_script(&archiver, &format!("exec '{zig}' ar \"$@\""))?;
        let builds_std = profile == Profile::Dist || !(has_std(arch)? || add_std(arch)?);
        if builds_std {
            add_source()?;
        }
        Ok(Self {
            arch,
            compiler,
            archiver,
            builds_std,
        })
    }

    /// Flags of the compiler, as cargo takes them.
    fn flags(&self, profile: Profile) -> String {
        // Zig brings the start files and the C library. Without PIE there is nothing to
        // relocate, and no page is made private by it; nor one for what is protected once
        // that is done.
        let mut flags = vec![
            "-Clink-self-contained=no",
            "-Crelocation-model=static",
            "-Crelro-level=off",
            "-Ctarget-feature=+crt-static",
        ];
        if profile == Profile::Dist {
            // A panic aborts, and nobody unwinds.
            flags.push("-Cforce-unwind-tables=no");
            flags.extend(self.arch.small);
        }
        flags.join(" ")
    }

    /// A `cargo build` for the target in `profile`, its output below `dir`, with the
    /// crates in `patched` in the place of the registry's.
    pub(crate) fn cargo(&self, dir: &Path, patched: &[PathBuf], profile: Profile) -> Command {
        let triple = self.arch.triple;
        let lower = triple.replace('-', "_");
        let upper = lower.to_uppercase();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        for (name, _) in std::env::vars_os() {
            let of_package = |prefix| name.to_string_lossy().starts_with(prefix);
            if PACKAGE_VARIABLES.into_iter().any(of_package) {
                cargo.env_remove(&name);
            }
        }
        cargo
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env(format!("CC_{lower}"), &self.compiler)
            .env(format!("AR_{lower}"), &self.archiver)
            .env(format!("CARGO_TARGET_{upper}_LINKER"), &self.compiler)
            .env(
                format!("CARGO_TARGET_{upper}_RUSTFLAGS"),
                self.flags(profile),
            )
            .args(["build", "--locked", "--profile", profile.name()])
            .args(["--target", triple])
            .arg("--target-dir")
            .arg(dir);
        // Unlike `[patch]`, `paths` leaves Cargo.lock as it is.
        let paths: Vec<String> = patched.iter().map(|p| format!("{p:?}")).collect();
        cargo.args(["--config", &format!("paths = [{}]", paths.join(", "))]);
        if self.builds_std {
            // Building std is unstable as an interface only.
            cargo
                .env("RUSTC_BOOTSTRAP", "1")
                .arg("-Zbuild-std=std,panic_abort");
            if profile == Profile::Dist {
                cargo.arg("-Zbuild-std-features=optimize_for_size");
            }
        }
        if let Ok(workspace) = workspace() {
            cargo.current_dir(workspace);
        }
        cargo
    }
}

fn install_zig(dir: &Path) -> Result<PathBuf, String> {
    let zig = dir.join("ziglang/zig");
    if !zig.exists() {
        println!("installing zig {ZIG_VERSION} from PyPI");
        setup::run(
            Command::new("python3")
                .args(["-m", "pip", "install", "--quiet", "--no-deps"])
                .args(["--root-user-action", "ignore", "--target"])
                .arg(dir)
                .arg(format!("ziglang=={ZIG_VERSION}")),
        )?;
    }
    Ok(zig)
}

/// Whether the compiler has a standard library for the target.
fn has_std(arch: Arch) -> Result<bool, String> {
    let lib = rustc(&["--print", "target-libdir", "--target", arch.triple])?;
    Ok(lib.is_dir())
}

/// Asks rustup for the standard library; `false` where it has none for the target. Where the
/// source is there already it is not asked again.
fn add_std(arch: Arch) -> Result<bool, String> {
    if has_source()? {
        return Ok(false);
    }
    let prebuilt = Command::new("rustup")
        .args(["target", "add", arch.triple])
        .stderr(Stdio::null())
        .status()
        .map_err(|error| {
            let triple = arch.triple;
            format!("no standard library for {triple} and no rustup to get it: {error}")
        })?;
    if !prebuilt.success() {
        println!("no prebuilt standard library for {}", arch.triple);
    }
    Ok(prebuilt.success())
}

fn has_source() -> Result<bool, String> {
    let sysroot = rustc(&["--print", "sysroot"])?;
    Ok(sysroot.join("lib/rustlib/src/rust/library/std").is_dir())
}

/// Gets the standard library's source.
fn add_source() -> Result<(), String> {
    if has_source()? {
        return Ok(());
    }
    setup::run(Command::new("rustup").args(["--quiet", "component", "add", "rust-src"]))
}

/// A path that the compiler prints.
fn rustc(args: &[&str]) -> Result<PathBuf, String> {
    let output = Command::new("rustc").args(args).output();
    let output = output.map_err(|error| format!("run rustc: {error}"))?;
    let path = String::from_utf8_lossy(&output.stdout);
    Ok(PathBuf::from(path.trim_end()))
}

fn write_script(path: &Path, body: &str) -> Result<(), String> {
    let text = format!("#!/bin/sh\n{body}\n");
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(|error| format!("write {}: {error}", path.display()))
}
