//! The Debian package, the manual page and the completions, as their users meet them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kobune_tests::root::is_there;
use kobune_tests::{CliOutput, Device, Programs, Root, privileged, probe, until};
use serde_json::Value;

/// Runs what must work; its standard output.
#[track_caller]
fn must(command: &mut Command) -> String {
    CliOutput::of(command).ok()
}

fn xtask(args: &[&str]) {
    must(Command::new(env!("CARGO_BIN_EXE_xtask")).args(args));
}

/// The programs under test without their symbols, as a package has them.
fn stripped(dir: &Path) -> PathBuf {
    let programs = dir.join("programs");
    fs::create_dir(&programs).expect("a directory");
    for name in ["kobune", "kobune-shim", "kobune-monitor"] {
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(programs.join(name));
        must(strip.arg(Programs::built().agent(name)));
    }
    programs
}

/// This machine's processor, in Debian's words.
fn host() -> String {
    let arch = must(Command::new("dpkg").arg("--print-architecture"));
    arch.trim().to_owned()
}

/// Packs `programs` in `dir`.
fn package(dir: &Path, programs: &Path, version: &str) -> PathBuf {
    let (arch, out) = (host(), dir.to_string_lossy().into_owned());
    let programs = programs.to_string_lossy().into_owned();
    let places = [
        "--fast",
        "--programs",
        &programs,
        "--out",
        &out,
        "--version",
        version,
    ];
    xtask(&[&["deb", arch.as_str()], places.as_slice()].concat());
    dir.join(format!("kobune_{version}_{arch}.deb"))
}

#[test]
fn the_package_and_its_scripts_satisfy_their_linters() {
    let dir = tempfile::tempdir().expect("a directory");
    let package = package(dir.path(), &stripped(dir.path()), "0.1.0");
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on", "warning,error"]);
    let lintian = CliOutput::of(lintian.arg(&package));
    assert_eq!((lintian.code, lintian.stdout.as_str()), (0, ""));
    for script in ["postinst", "prerm", "postrm"] {
        let path = format!(
            "{}/../packaging/debian/{script}",
            env!("CARGO_MANIFEST_DIR")
        );
        must(Command::new("shellcheck").arg(path));
    }
}

#[test]
fn the_same_content_makes_the_same_package() {
    let dir = tempfile::tempdir().expect("a directory");
    let programs = dir.path().join("programs");
    fs::create_dir(&programs).expect("a directory");
    for name in ["kobune", "kobune-shim", "kobune-monitor"] {
        fs::write(programs.join(name), name).expect("a file");
    }
    let first = fs::read(package(dir.path(), &programs, "1.0")).expect("the package");
    let second = fs::read(package(dir.path(), &programs, "1.0")).expect("the package");
    assert!(first == second);
}

#[test]
fn the_manual_page_names_every_command_and_has_no_mistake() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().to_string_lossy().into_owned();
    xtask(&["manual", &out]);
    let mut man = Command::new("man");
    man.args(["--warnings", "-E", "UTF-8", "--local-file"]);
    man.arg(dir.path().join("man/man1/kobune.1"));
    let shown = CliOutput::of(man.env("MANWIDTH", "100").env("MAN_KEEP_FORMATTING", ""));
    assert_eq!(shown.stderr, "");
    let help = Command::new(Programs::built().agent("kobune"))
        .arg("help")
        .output();
    let help = String::from_utf8(help.expect("it runs").stdout).expect("text");
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let mut commands = 0;
    for line in listed.take_while(|line| !line.is_empty()) {
        let Some(name) = line
            .strip_prefix("  ")
            .and_then(|line| line.split(' ').next())
        else {
            continue;
        };
        if !name.is_empty() {
            assert!(
                shown.stdout.contains(&format!("\n       {name}")),
                "{name} is missing"
            );
            commands += 1;
        }
    }
    assert!(commands > 20, "{help}");
}

/// What a shell offers for the last word of `line`.
fn offered(shell: &str, dir: &Path, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let script = match shell {
        "bash" => format!(
            ". {}/bash-completion/completions/kobune\nCOMP_WORDS=({line})\nCOMP_CWORD={}\n\
             _kobune\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            dir.display(),
            words.len() - 1
        ),
        _ => format!(
            "source {}/fish/vendor_completions.d/kobune.fish\ncomplete -C '{line}'",
            dir.display()
        ),
    };
    let said = must(Command::new(shell).arg("-c").arg(script).env("HOME", dir));
    let words = said.lines().filter_map(|line| line.split('\t').next());
    words.map(str::to_owned).collect()
}

#[test]
fn shells_complete_commands_and_options() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    xtask(&["manual", &dir.to_string_lossy()]);
    for shell in ["bash", "fish"] {
        let has = |line: &str, word: &str| {
            let offered = offered(shell, dir, line);
            assert!(
                offered.iter().any(|offer| offer == word),
                "{shell}: {line}: {offered:?}"
            );
        };
        has("kobune ap", "apply");
        has("kobune run --cap", "--cap-drop");
        has("kobune stats --no", "--no-stream");
        has("kobune config m", "mp");
    }
    let mut zsh = Command::new("zsh");
    zsh.arg("-n")
        .arg(dir.join("zsh/vendor-completions/_kobune"));
    must(&mut zsh);
}

/// Waits until the module runs; its first process.
fn running(debian: &Root<'_>) -> i64 {
    let module = || {
        let shown = debian.run("kobune inspect m -o json").stdout;
        serde_json::from_str::<Value>(&shown).unwrap_or_default()
    };
    until(60, "the module runs", || module()["status"] == "running");
    module()["pid"].as_i64().expect("a pid")
}

/// Of the loop that keeps the daemon.
fn supervisor(debian: &Root<'_>) -> String {
    debian.must("cat /run/kobune.pid")
}

#[test]
fn the_package_is_installed_upgraded_with_modules_running_removed_and_purged() {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let programs = stripped(device.dir());
    let registry = probe::registry(&device, &["1"]);
    let mut module = probe::module(&registry, "1", &["sleep", "3600"]);
    module["restartPolicy"] = "always".into();
    let manifest = device.dir().join("manifest.json");
    let text = probe::deployment([("m", module)]).to_string();
    fs::write(&manifest, text).expect("the manifest");
    let [old, new] = ["1.0", "1.1"].map(|version| package(device.dir(), &programs, version));
    let debian = Root::new(&device);

    debian.must(&format!("dpkg -i {}", old.display()));
    until(60, "the daemon answers", || {
        debian.run("kobune list").code == 0
    });
    debian.must(&format!("kobune apply {}", manifest.display()));
    let (first, keeper) = (running(&debian), supervisor(&debian));
    let refused = debian.run("kobune halt").failed(1);
    assert!(refused.contains("in use by another daemon"), "{refused}");

    debian.must(&format!("dpkg -i {}", new.display()));
    until(60, "the daemon answers", || {
        debian.run("kobune list").code == 0
    });
    assert_eq!(running(&debian), first, "the upgrade touched the module");
    assert_ne!(supervisor(&debian), keeper, "the old daemon runs on");

    debian.must("dpkg --remove kobune");
    assert!(!is_there(first), "the module outlived the agent");
    debian.must("test -d /var/lib/kobune/modules/m");
    debian.must(&format!("dpkg -i {}", new.display()));
    let second = running(&debian);

    debian.must("dpkg --purge kobune");
    assert!(!is_there(second), "the module outlived the agent");
    let left = "cd / && ls -A var/lib/kobune; \
                find etc usr lib run var/lib -xdev -name '*kobune*' ! -path var/lib/kobune; \
                getent group kobune";
    assert_eq!(debian.run(left).stdout, "");
    assert_eq!(debian.leftovers(), Vec::<String>::new());
}
