//! The Debian package, the manual page and the completions, as their users meet them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kobune_tests::{CliOutput, Device, Programs, privileged, probe, until};
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

/// A Debian of its own on a device, with sysvinit in runlevel 2: this machine's files, whose
/// changes are in memory and end with the device, and a data partition for the agent.
struct Debian<'d> {
    device: &'d Device,
}

const PREPARE: &str = r#"
set -e
mkdir "$1/memory" "$1/root"
mount -t tmpfs tmpfs "$1/memory"
mkdir "$1/memory/upper" "$1/memory/work"
mount -t overlay -o "lowerdir=/,upperdir=$1/memory/upper,workdir=$1/memory/work" overlay "$1/root"
for dir in dev proc sys; do mount --rbind "/$dir" "$1/root/$dir"; done
mount -t tmpfs tmpfs "$1/root/run"
mkdir -p "$1/root/var/lib/kobune" "$1/root/etc/kobune"
mount -t tmpfs tmpfs "$1/root/var/lib/kobune"
rm -f "$1/root/usr/sbin/policy-rc.d" "$1/root/sbin/runlevel"
printf '#!/bin/sh\necho N 2\n' > "$1/root/sbin/runlevel"
chmod +x "$1/root/sbin/runlevel"
echo "cgroup_parent = \"$2\"" > "$1/root/etc/kobune/config.toml"
"#;

impl<'d> Debian<'d> {
    fn new(device: &'d Device) -> Self {
        let mut prepare = device.command("sh");
        prepare.args(["-c", PREPARE, "sh"]).arg(device.dir());
        must(prepare.arg(device.cgroup()));
        Self { device }
    }

    fn run(&self, script: &str) -> CliOutput {
        let mut chroot = self.device.command("chroot");
        chroot.arg(self.device.dir().join("root"));
        let mut command = chroot.args(["sh", "-c", script]);
        command = command.env("DEBIAN_FRONTEND", "noninteractive");
        CliOutput::of(command)
    }

    #[track_caller]
    fn must(&self, script: &str) -> String {
        self.run(script).ok()
    }

    /// Waits until the module runs; its first process.
    fn running(&self) -> i64 {
        let module = || {
            let shown = self.run("kobune inspect m -o json").stdout;
            serde_json::from_str::<Value>(&shown).unwrap_or_default()
        };
        until(60, "the module runs", || module()["status"] == "running");
        module()["pid"].as_i64().expect("a pid")
    }

    /// Of the loop that keeps the daemon.
    fn supervisor(&self) -> String {
        self.must("cat /run/kobune.pid")
    }
}

impl Drop for Debian<'_> {
    /// Ends what a test that failed left.
    fn drop(&mut self) {
        let kill = "for process in /proc/[0-9]*; do [ \"$(readlink $process/root)\" = \"$1/root\" ] \
                    && kill -9 \"${process#/proc/}\"; done";
        let mut kill_all = self.device.command("sh");
        let _ = kill_all
            .args(["-c", kill, "sh"])
            .arg(self.device.dir())
            .output();
    }
}

fn is_there(pid: i64) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
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
    let debian = Debian::new(&device);

    debian.must(&format!("dpkg -i {}", old.display()));
    until(60, "the daemon answers", || {
        debian.run("kobune list").code == 0
    });
    debian.must(&format!("kobune apply {}", manifest.display()));
    let (first, keeper) = (debian.running(), debian.supervisor());
    let refused = debian.run("kobune halt").failed(1);
    assert!(refused.contains("in use by another daemon"), "{refused}");

    debian.must(&format!("dpkg -i {}", new.display()));
    until(60, "the daemon answers", || {
        debian.run("kobune list").code == 0
    });
    assert_eq!(debian.running(), first, "the upgrade touched the module");
    assert_ne!(debian.supervisor(), keeper, "the old daemon runs on");

    debian.must("dpkg --remove kobune");
    assert!(!is_there(first), "the module outlived the agent");
    debian.must("test -d /var/lib/kobune/modules/m");
    debian.must(&format!("dpkg -i {}", new.display()));
    let second = debian.running();

    debian.must("dpkg --purge kobune");
    assert!(!is_there(second), "the module outlived the agent");
    let left = "cd / && ls -A var/lib/kobune; \
                find etc usr lib run var/lib -xdev -name '*kobune*' ! -path var/lib/kobune; \
                getent group kobune";
    assert_eq!(debian.run(left).stdout, "");
    let leftovers = device.leftovers();
    let root = device.dir().join("root").display().to_string();
    let memory = device.dir().join("memory").display().to_string();
    let leftovers: Vec<_> = leftovers
        .iter()
        .filter(|left| !left.contains(&root) && !left.contains(&memory))
        .collect();
    assert_eq!(leftovers, Vec::<&String>::new());
}
