//! Other people's packages that tests run: each set in a directory of its own below the target
//! directory, made once. Installs nothing into the machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::programs::target_dir;

/// The interpreter of a virtual environment called `name` that has `packages` of pip, each
/// with its version. `None`, with a word, where it cannot be made.
///
/// # Panics
/// In CI where it cannot be made.
#[must_use]
pub fn python(name: &str, packages: &[&str]) -> Option<PathBuf> {
    let dir = target_dir().join(name);
    let python = dir.join("bin/python");
    let made = once(&dir, packages, || {
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&dir))?;
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet"])
            .args(packages))
    });
    had(made).then_some(python)
}

/// A `node_modules` with `packages` of npm, each with its version, and what they need; no
/// script of theirs has run. `None`, with a word, where it cannot be made.
///
/// # Panics
/// In CI where it cannot be made.
#[must_use]
pub fn node_modules(name: &str, packages: &[&str]) -> Option<PathBuf> {
    let dir = target_dir().join(name);
    let made = once(&dir, packages, || {
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        run(Command::new("npm")
            .args(["install", "--no-save", "--no-audit", "--no-fund"])
            .args(["--ignore-scripts", "--loglevel=error", "--prefix"])
            .arg(&dir)
            .args(packages))
    });
    had(made).then(|| dir.join("node_modules"))
}

/// Runs `make` unless it has succeeded for these packages before; one at a time, as tests of
/// one program run side by side.
fn once(
    dir: &Path,
    packages: &[&str],
    make: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock();
    let done = dir.join("done");
    if std::fs::read_to_string(&done).unwrap_or_default() == packages.join(" ") {
        return Ok(());
    }
    make()?;
    std::fs::write(&done, packages.join(" ")).map_err(|error| error.to_string())
}

/// Whether the packages are there; in CI they must be.
#[allow(clippy::print_stderr)]
fn had(made: Result<(), String>) -> bool {
    let Err(error) = made else { return true };
    assert!(
        std::env::var_os("CI").is_none(),
        "CI must have the test's packages: {error}"
    );
    eprintln!("skipped: {error}");
    false
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
