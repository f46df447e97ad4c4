//! Checks and tests, as CI runs them.

mod again;
mod preparation;

use std::process::Command;

use crate::setup;
use preparation::Preparation;

/// Sets up, checks and tests everything; the virtual device too where `device` says so and
/// QEMU can be installed.
pub(crate) fn run(device: bool) -> Result<(), String> {
    setup::install(setup::DEMO)?;
    setup::install(setup::TEST)?;
    check()?;
    let preparation = if device {
        setup::install(&crate::device::PACKAGES).and_then(|()| Preparation::start().map(Some))
    } else {
        Ok(None)
    };
    let tests = again::run(tests);
    let on_device = match preparation {
        Ok(Some(preparation)) => preparation.finish().and_then(|()| device_tests()),
        Ok(None) => skipped("--no-device"),
        Err(why) => skipped(&why),
    };
    tests.and(on_device)
}

/// Says that the virtual device was left out, where nobody can miss it.
fn skipped(why: &str) -> Result<(), String> {
    let line = "*".repeat(78);
    println!("\n{line}\n*** SKIPPED: nothing was tested on Arm: {why}\n{line}");
    Ok(())
}

/// All tests; those on the device skip themselves.
fn tests() -> Command {
    let mut test = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    if !setup::is_root() {
        // Built as the user, run as root: namespaces, mounts and cgroups.
        test.args([
            "--config",
            "target.'cfg(unix)'.runner = 'sudo --preserve-env'",
        ]);
    }
    test
}

/// Those on the device, and those that cross-build. With the whole workspace, so that
/// nothing is built with other features.
fn device_tests() -> Result<(), String> {
    again::run(|| {
        let mut test = tests();
        test.args(["--test", "device", "--test", "device_old_kernel"]);
        test.env("KOBUNE_DEVICE", "1");
        test
    })
}

/// Packages in `Cargo.lock`, the project's own included. Raising this takes a reason.
const MAX_PACKAGES: usize = 400;
/// What must never be linked: C libraries that need cmake, bindgen or a licence we do not
/// ship, and what would bring a second TLS stack.
const BANNED: [&str; 6] = [
    "aws-lc-rs",
    "aws-lc-sys",
    "openssl-sys",
    "native-tls",
    "libseccomp-sys",
    "libbpf-sys",
];

/// Formatting, dependencies, lints and documentation.
pub(crate) fn check() -> Result<(), String> {
    dependencies(&std::fs::read_to_string("Cargo.lock").map_err(|error| error.to_string())?)?;
    setup::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    setup::run(&mut cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))?;
    setup::run(
        cargo(&["doc", "--workspace", "--no-deps", "--locked", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

/// Holds `Cargo.lock` to what a small static agent can afford.
fn dependencies(lock: &str) -> Result<(), String> {
    let names: Vec<&str> = lock
        .lines()
        .filter_map(|line| line.strip_prefix("name = "))
        .collect();
    let named = |banned: &&&str| names.iter().any(|name| name.trim_matches('"') == **banned);
    if let Some(banned) = BANNED.iter().find(named) {
        return Err(format!("Cargo.lock has {banned}, which must not be linked"));
    }
    if lock.contains("source = \"git+") {
        return Err("Cargo.lock has a git dependency".to_owned());
    }
    if names.len() > MAX_PACKAGES {
        return Err(format!(
            "Cargo.lock has {} packages, more than {MAX_PACKAGES}",
            names.len()
        ));
    }
    Ok(())
}

fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}
