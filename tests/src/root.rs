//! A root file system of a device's own, for what installs itself or is found in fixed places.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{CliOutput, Device, Programs};

/// This machine's files, whose changes are in memory and end with the device, with sysvinit in
/// runlevel 2 and a data partition for the agent.
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

/// Ends whatever runs in the root.
const KILL: &str = r#"
for process in /proc/[0-9]*; do
    [ "$(readlink $process/root)" = "$1/root" ] && kill -9 "${process#/proc/}"
done
"#;

/// A Debian of its own on a device; processes in it end when it is dropped.
#[derive(Debug)]
pub struct Root<'d> {
    device: &'d Device,
}

impl<'d> Root<'d> {
    /// Makes it.
    ///
    /// # Panics
    /// Where it cannot be mounted.
    #[must_use]
    pub fn new(device: &'d Device) -> Self {
        let mut prepare = device.command("sh");
        prepare.args(["-c", PREPARE, "sh"]).arg(device.dir());
        let _ = CliOutput::of(prepare.arg(device.cgroup())).ok();
        Self { device }
    }

    /// Where a path of it is, for those on the device and outside of it.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        let root = self.device.dir().join("root");
        root.join(inside.trim_start_matches('/'))
    }

    /// A command that runs in it.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut chroot = self.device.command("chroot");
        chroot.arg(self.device.dir().join("root")).arg(program);
        chroot.env("DEBIAN_FRONTEND", "noninteractive");
        chroot
    }

    /// Runs a script of the shell.
    ///
    /// # Panics
    /// Where there is no shell.
    #[must_use]
    pub fn run(&self, script: &str) -> CliOutput {
        CliOutput::of(self.command("sh").args(["-c", script]))
    }

    /// Standard output of a script that must work.
    ///
    /// # Panics
    /// Where it does not.
    #[track_caller]
    pub fn must(&self, script: &str) -> String {
        self.run(script).ok()
    }

    /// Puts `text` into a file of it, which is executable.
    ///
    /// # Panics
    /// Where it cannot be written.
    pub fn script(&self, path: &str, text: &str) {
        // From inside: the mounts are the device's alone.
        let write = format!("cat > {path} <<'END OF IT'\n{text}END OF IT\nchmod 755 {path}");
        let _ = self.must(&write);
    }

    /// Installs the agent's programs, and those of the hub, where packages do.
    ///
    /// # Panics
    /// Where they cannot be copied.
    pub fn install(&self, programs: &Programs) {
        let dir = programs.agent.display();
        let _ = self.must(&format!(
            "install -t /usr/bin {dir}/kobune {dir}/kobune-hub && \
             install -D -t /usr/libexec/kobune {dir}/kobune-shim {dir}/kobune-monitor"
        ));
    }

    /// What a test must not find afterwards, without what the root itself consists of.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let own = ["root", "memory"].map(|name| self.device.dir().join(name));
        let own = own.map(|path| path.display().to_string());
        let mut left = self.device.leftovers();
        left.retain(|left| !own.iter().any(|own| left.contains(own)));
        left
    }
}

impl Drop for Root<'_> {
    fn drop(&mut self) {
        let mut kill = self.device.command("sh");
        let _ = kill
            .args(["-c", KILL, "sh"])
            .arg(self.device.dir())
            .output();
    }
}

/// Whether there is such a process.
#[must_use]
pub fn is_there(pid: i64) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Directory of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::canonicalize(&root).unwrap_or(root)
}
