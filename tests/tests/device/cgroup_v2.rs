//! Tests that ran on this machine, whose cgroups may be of version 1, once more where they are of
//! version 2: under Debian's kernel, in a guest with this machine's files.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kobune_tests::{Device, Guest, Programs, cross_built, full, privileged};
use serde_json::Value;

/// An emulated processor takes a few minutes, beside others' tests more.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Which tests, by their program: those whose answers depend on it. With `KOBUNE_FULL` all of them.
const TESTS: [(&str, &str); 3] = [
    ("kobune_runtime", "cgroup::"),
    (
        "isolation",
        "devices:: limits:: options:: runc:: peers::modules_see_what_they_would_see_under_podman",
    ),
    ("storage_limit", ""),
];

#[test]
fn what_modules_see_and_may_do_holds_on_cgroup_v2() {
    if !cross_built() || !privileged() {
        return;
    }
    let guest = match Guest::prepared() {
        Ok(guest) => guest,
        Err(error) => {
            let has_qemu = Path::new("/usr/bin/qemu-system-x86_64").exists();
            assert!(!has_qemu, "the guest's files: {error}");
            let _ = writeln!(std::io::stderr(), "skipped: no guest: {error}");
            return;
        }
    };
    let lab = Device::new();
    let output = guest.run(&lab, &script(Programs::built()), PATIENCE);
    let _ = write!(std::io::stdout(), "{}", output.stdout);
    assert_eq!(output.code, 0, "{}", output.stdout);
    // This kernel has what this machine's may lack.
    let lacks = "this kernel has no project quotas";
    assert!(!output.stdout.contains(lacks), "{}", output.stdout);
}

/// Runs every program to its end; fails where one does.
fn script(built: &Programs) -> String {
    let dir = env!("CARGO_MANIFEST_DIR");
    let mut script = format!("cd {dir}; failed=0\n");
    // Large as they are unstripped, and read by starts that are waited for.
    script += &format!("cat {}/kobune* > /dev/null 2>&1\n", built.agent.display());
    // All is built, and cannot be built there.
    script += "export CARGO=/bin/true RUST_BACKTRACE=0\n";
    for (program, path) in programs() {
        let tests = TESTS.iter().find(|(name, _)| *name == program);
        let (_, some) = tests.expect("invariant: one of the programs that were asked for");
        let some = if full() { "" } else { some };
        script += &format!("{path} --show-output --test-threads 2 {some} || failed=1\n");
    }
    script + "exit $failed"
}

/// Names and paths of the programs of [`TESTS`], built as `cargo xtask test` builds them.
fn programs() -> Vec<(String, String)> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--workspace", "--locked", "--no-run", "--lib"])
        .args(["--test", "isolation", "--test", "storage_limit"])
        .args(["--message-format", "json"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = text.lines().map(serde_json::from_str::<Value>);
    let built = messages.flatten().filter_map(|message| {
        let name = message["target"]["name"].as_str()?.to_owned();
        let path = message["executable"].as_str()?.to_owned();
        let asked_for = TESTS.iter().any(|(asked_for, _)| *asked_for == name);
        asked_for.then_some((name, path))
    });
    let built: Vec<_> = built.collect();
    assert_eq!(built.len(), TESTS.len(), "{built:?}");
    built
}
