//! Checks and tests, as CI runs them.

use std::process::Command;

use crate::setup;

/// Sets up, checks and tests everything.
pub(crate) fn run() -> Result<(), String> {
    setup::install(&setup::DEMO)?;
    setup::install(&setup::TEST)?;
    setup::install(&crate::device::PACKAGES)?;
    check()?;
    let mut test = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    if !setup::is_root() {
        // Built as the user, run as root: namespaces, mounts and cgroups.
        test.args([
            "--config",
            "target.'cfg(unix)'.runner = 'sudo --preserve-env'",
        ]);
    }
    setup::run(&mut test)
}

/// Formatting, lints and documentation.
pub(crate) fn check() -> Result<(), String> {
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

fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args);
    command
}
