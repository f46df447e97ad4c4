//! A network, mount and device-node namespace that stands for an edge device.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Run inside the new namespaces: loopback up, a `/dev` of its own with the tutorial's
/// `/dev/i2c-1` (89:1, with no adapter behind it), and a `/run` and `/etc/hosts` apart.
const PREPARE: &str = r#"
set -e
ip link set lo up
mkdir -p "$1/dev"
mount -t tmpfs -o mode=755 tmpfs "$1/dev"
for node in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0" "i2c-1 89 1"; do
    set -- "$1" $node
    mknod -m 666 "$1/dev/$2" c "$3" "$4"
done
mkdir "$1/dev/pts" "$1/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$1/dev/pts"
ln -s pts/ptmx "$1/dev/ptmx"
ln -s /proc/self/fd "$1/dev/fd"
mount -t tmpfs tmpfs "$1/dev/shm"
mount --rbind "$1/dev" /dev
echo ready
exec sleep infinity
"#;

/// Undoes what does not outlive the power. Links may go with their namespaces meanwhile.
const POWER_CYCLE: &str = r#"
grep -o " $1/\(state\|run\)/[^ ]*" /proc/mounts | sort -r | while read -r mount; do
    umount -l "$mount" || exit 1
done
for link in $(ip -brief link | cut -d " " -f 1 | cut -d @ -f 1 | grep "^kb\|^azure-iot-edge$"); do
    ip link del "$link" 2>/dev/null
done
nft flush ruleset
rm -rf "$1/run"
"#;

/// A device. Dropping it ends every process in it, and with them its network and mounts.
#[derive(Debug)]
pub struct Device {
    holder: Child,
    dir: TempDir,
    cgroup: String,
}

impl Device {
    /// Makes a device; needs root.
    ///
    /// # Panics
    /// Where the namespaces cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("kobune-")
            .tempdir()
            .expect("a temporary directory");
        let mut holder = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--propagation",
                "private",
                "--fork",
                "--kill-child",
            ])
            .args(["sh", "-c", PREPARE, "sh"])
            .arg(dir.path())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("unshare runs");
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("stdout is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the device answers");
        assert_eq!(
            line, "ready\n",
            "the device's namespaces could not be prepared"
        );
        let cgroup = format!("/kobune-test-{}", holder.id());
        Self {
            holder,
            dir,
            cgroup,
        }
    }

    /// Directory of the device's files, seen alike from inside and outside.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Parent cgroup of its containers.
    #[must_use]
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// A command that runs on the device.
    #[must_use]
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &self.inside().to_string(),
                "--net",
                "--mount",
                "--",
            ])
            .arg(program.as_ref());
        command
    }

    /// As [`Device::command`], with variables that only the program has, not what leads it here.
    #[must_use]
    pub fn command_with(&self, env: &[(String, String)], program: &Path) -> Command {
        let mut command = self.command("env");
        command.args(env.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(program);
        command
    }

    /// Runs `work` on a thread in the device's network; sockets made there stay there.
    ///
    /// # Panics
    /// Where `work` panics.
    pub fn in_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace =
            fs::File::open(format!("/proc/{}/ns/net", self.inside())).expect("the device lives");
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("the device's network");
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `work` on a thread in the device's network and mounts; programs it starts are
    /// on the device.
    ///
    /// # Panics
    /// Where `work` panics.
    pub fn in_namespaces<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = |kind| {
            fs::File::open(format!("/proc/{}/ns/{kind}", self.inside())).expect("the device lives")
        };
        let (network, mounts) = (namespace("net"), namespace("mnt"));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // A thread that shares its root and directory cannot change its mounts.
                unshare(CloneFlags::CLONE_FS).expect("a root of its own");
                setns(network, CloneFlags::CLONE_NEWNET).expect("the device's network");
                setns(mounts, CloneFlags::CLONE_NEWNS).expect("the device's mounts");
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Answer of `curl` on the device: status code and body.
    ///
    /// # Errors
    /// With curl's own words where there is no answer.
    pub fn http(&self, method: &str, url: &str) -> io::Result<(u16, String)> {
        let output = self
            .command("curl")
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "5",
                "--write-out",
                "\n%{http_code}",
            ])
            .args(["--request", method, url])
            .output()?;
        if !output.status.success() {
            return Err(io::Error::other(
                String::from_utf8_lossy(&output.stderr).into_owned(),
            ));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').ok_or(io::ErrorKind::InvalidData)?;
        Ok((code.parse().map_err(io::Error::other)?, body.to_owned()))
    }

    /// What agents leave behind if they are wrong: mounts below the device's directory,
    /// links on the bridge, cgroups, processes.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mounts =
            fs::read_to_string(format!("/proc/{}/mounts", self.inside())).unwrap_or_default();
        let state = self.dir.path().to_string_lossy().into_owned();
        let dev = format!("{state}/dev");
        for line in mounts.lines() {
            let target = line.split(' ').nth(1).unwrap_or_default();
            if target.starts_with(&state) && !target.starts_with(&dev) {
                found.push(format!("mount {target}"));
            }
        }
        let links = self.command("ip").args(["-brief", "link"]).output();
        let links = links
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default();
        found.extend(
            links
                .lines()
                .filter_map(|line| line.split_whitespace().next())
                .map(|link| link.split('@').next().unwrap_or(link))
                .filter(|link| !["lo", "azure-iot-edge", crate::outside::LINK].contains(link))
                .map(|link| format!("link {link}")),
        );
        for path in self.cgroup_dirs() {
            let children = fs::read_dir(&path)
                .into_iter()
                .flatten()
                .filter_map(Result::ok);
            found.extend(
                children
                    .filter(|c| c.path().is_dir())
                    .map(|c| format!("cgroup {}", c.path().display())),
            );
        }
        for pid in self
            .processes("kobune-monitor")
            .into_iter()
            .chain(self.processes("kobune-shim"))
        {
            found.push(format!("process {pid}"));
        }
        found
    }

    /// Pids of the programs called `name` whose arguments mention the device's directory.
    #[must_use]
    pub fn processes(&self, name: &str) -> Vec<i32> {
        let dir = self.dir.path().to_string_lossy().into_owned();
        let entries = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                let args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let args = String::from_utf8_lossy(&args).into_owned();
                let program = args.split('\0').next().unwrap_or_default();
                Path::new(program)
                    .file_name()
                    .is_some_and(|file| file == name)
                    && args.contains(&dir)
            })
            .collect()
    }

    /// Pid of the only monitor on the device. Waits for it: the launcher becomes it a moment
    /// after it said that the module runs.
    ///
    /// # Panics
    /// Where there is none, or more than one, for as long as `patience`.
    #[track_caller]
    #[must_use]
    pub fn monitor(&self, patience: Duration) -> Pid {
        let deadline = Instant::now() + patience;
        loop {
            let found = self.processes("kobune-monitor");
            if let [pid] = found[..] {
                return Pid::from_raw(pid);
            }
            assert!(Instant::now() < deadline, "not one monitor but {found:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What a power cycle does: the modules' processes `pids` and whatever the agent started
    /// end at once, mounts, links and rules are gone, and so is `run`, which is no disk.
    ///
    /// # Panics
    /// Where the shell cannot be run.
    pub fn power_cycle(&self, pids: &[i32]) {
        let ours = ["kobune-monitor", "kobune-shim"].map(|name| self.processes(name));
        for pid in ours.iter().flatten().chain(pids) {
            let pid = Pid::from_raw(*pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL);
        }
        for dir in self.cgroup_dirs() {
            remove_cgroup(&dir);
        }
        let run = self
            .command("sh")
            .args(["-c", POWER_CYCLE, "sh"])
            .arg(self.dir())
            .status();
        assert!(run.expect("sh runs").success(), "the power cycle failed");
    }

    fn cgroup_dirs(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let relative = self.cgroup.trim_start_matches('/');
        let mut dirs = vec![root.join(relative)];
        let hierarchies = fs::read_dir(root)
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        dirs.extend(hierarchies.map(|entry| entry.path().join(relative)));
        dirs.retain(|dir| dir.is_dir());
        dirs
    }

    /// Pid of a process inside: `unshare --fork` stays outside of nothing but waits for it.
    fn inside(&self) -> i32 {
        let children = format!("/proc/{0}/task/{0}/children", self.holder.id());
        let children = fs::read_to_string(children).unwrap_or_default();
        children
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok())
            .expect("the device lives")
    }
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        for dir in self.cgroup_dirs() {
            remove_cgroup(&dir);
        }
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// Kills what is in the cgroup and below, and removes it.
fn remove_cgroup(dir: &Path) {
    let children = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    for child in children.filter(|child| child.path().is_dir()) {
        remove_cgroup(&child.path());
    }
    for _ in 0..50 {
        let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        }
        if fs::remove_dir(dir).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
