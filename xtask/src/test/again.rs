//! Runs tests, and those that failed once more by themselves.
//!
//! Hundreds of tests share two cores with real registries, browsers and emulated machines.
//! One that fails there and passes alone has a fault, in itself or in what it tests, that
//! needs mending; it does not make a change wrong that has nothing to do with it. So the run
//! passes, and names it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::setup;

/// Failures that are looked at again. More are no accident.
const MOST: usize = 3;

/// Runs the tests of `command`. Where at most [`MOST`] fail, they alone are run once more.
///
/// # Errors
/// Tests that failed twice, too many that failed, or a failure that no test is named for.
pub(super) fn run(command: impl Fn() -> Command) -> Result<(), String> {
    let (failed, result) = watch(&mut command())?;
    if result.is_ok() || failed.is_empty() || failed.len() > MOST {
        return result;
    }
    println!("\nonce more, alone: {}", failed.join(", "));
    setup::run(command().args(["--", "--exact"]).args(&failed))?;
    let line = "*".repeat(78);
    println!("\n{line}\n*** FLAKY: failed once and passed alone, to be mended:");
    for test in &failed {
        println!("*** {test}");
    }
    println!("{line}");
    Ok(())
}

/// Runs `command`, shows what it prints, and gives the names of the tests that failed.
fn watch(command: &mut Command) -> Result<(Vec<String>, Result<(), String>), String> {
    let spawned = command.stdout(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| format!("cannot run {command:?}: {error}"))?;
    let output = child.stdout.take().expect("invariant: stdout is piped");
    let mut failed = Vec::new();
    for line in BufReader::new(output).split(b'\n') {
        let line = line.map_err(|error| format!("read what tests print: {error}"))?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        failed.extend(failure(&line).map(ToOwned::to_owned));
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    let result = match status.success() {
        true => Ok(()),
        false => Err(format!("{command:?} failed: {status}")),
    };
    Ok((failed, result))
}

/// The test whose failure a line of Rust's test harness reports.
fn failure(line: &str) -> Option<&str> {
    let name = line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?;
    Some(name.strip_suffix(" - should panic").unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_found_in_what_the_harness_prints() {
        assert_eq!(failure("test a::b ... FAILED"), Some("a::b"));
        assert_eq!(failure("test a - should panic ... FAILED"), Some("a"));
        assert_eq!(failure("test a::b ... ok"), None);
        assert_eq!(failure("test result: FAILED. 6 passed; 1 failed"), None);
    }

    #[test]
    fn a_test_that_passes_alone_passes_and_one_that_fails_twice_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("mark");
        let script = |then: &str| {
            let mark = mark.display();
            format!(
                "[ \"$1$2\" = --exactt ] && {then}; touch {mark}; echo test t ... FAILED; exit 1"
            )
        };
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            command
        };
        let flaky = script(&format!("exec test -e {}", mark.display()));
        assert_eq!(run(|| shell(&flaky)), Ok(()));
        let broken = script("exit 1");
        assert!(run(|| shell(&broken)).is_err());
    }

    #[test]
    fn many_failures_and_none_that_is_named_fail_at_once() {
        let shell = |script: &'static str| {
            move || {
                let mut command = Command::new("sh");
                command.args(["-c", script]);
                command
            }
        };
        let many =
            "[ $# = 0 ] || exit 0; for t in a b c d; do echo test $t ... FAILED; done; exit 1";
        assert!(run(shell(many)).is_err());
        assert!(run(shell("[ $# = 0 ] || exit 0; exit 1")).is_err());
    }
}
