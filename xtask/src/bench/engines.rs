//! Engines on a device, from Debian's packages: what a whole engine costs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kobune_tests::Device;

use super::idle::{self, Memory};

/// The image that the engine has.
pub(super) const IMAGE: &str = "bench:1";
/// Debian's client: another that comes first may be of another version.
const CLIENT: &str = "/usr/bin/docker";
/// Longest wait for the daemon.
const PATIENCE: Duration = Duration::from_secs(60);

/// dockerd with its containerd. Dropping it ends both, and what they run.
pub(super) struct Docker {
    daemon: Child,
    dir: PathBuf,
    cgroup: String,
}

impl Docker {
    /// Starts it on `device`, in whose namespaces this must be called, with an image whose only
    /// layer is the directory `layer`.
    pub(super) fn start(device: &Device, layer: &Path) -> Result<Self, String> {
        let dir = device.dir().join("docker");
        let failed = |error: io::Error| format!("{}: {error}", dir.display());
        fs::create_dir_all(&dir).map_err(failed)?;
        let log = fs::File::create(dir.join("log")).map_err(failed)?;
        let cgroup = format!("{}/docker", device.cgroup());
        let daemon = Command::new("/usr/sbin/dockerd")
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .arg("--host")
            .arg(format!("unix://{}", dir.join("socket").display()))
            .args(["--cgroup-parent", &cgroup])
            // It would pivot its helpers' root, which a root file system in memory refuses.
            .env("DOCKER_RAMDISK", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("start dockerd: {error}"))?;
        let docker = Self {
            daemon,
            dir,
            cgroup,
        };
        docker.wait()?;
        docker.import(layer)?;
        Ok(docker)
    }

    fn wait(&self) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        while !succeeds(self.client().arg("version")) {
            if Instant::now() > deadline {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                return Err(format!("dockerd does not answer: {log}"));
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Gives the image to docker, and to its containerd under the name that docker would use.
    fn import(&self, layer: &Path) -> Result<(), String> {
        let (tar, saved) = (self.dir.join("layer.tar"), self.dir.join("image.tar"));
        let mut pack = Command::new("tar");
        pack.arg("-C").arg(layer).arg("-cf").arg(&tar).arg(".");
        let mut import = self.client();
        import.arg("import").arg(&tar).arg(IMAGE);
        let mut save = self.client();
        save.arg("save").arg("--output").arg(&saved).arg(IMAGE);
        let mut give = self.containerd_client();
        give.args(["image", "import"]).arg(&saved);
        for step in [&mut pack, &mut import, &mut save, &mut give] {
            let output = step
                .output()
                .map_err(|error| format!("{step:?}: {error}"))?;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned());
            }
        }
        Ok(())
    }

    /// The client, to which a command is to be added.
    pub(super) fn client(&self) -> Command {
        let mut client = Command::new(CLIENT);
        let socket = self.dir.join("socket");
        client
            .arg("--host")
            .arg(format!("unix://{}", socket.display()));
        client
    }

    /// containerd's client.
    pub(super) fn containerd_client(&self) -> Command {
        let mut client = Command::new("ctr");
        let socket = self.dir.join("exec/containerd/containerd.sock");
        client.arg("--address").arg(socket);
        client
    }

    /// A cgroup below the device's.
    pub(super) fn cgroup(&self, name: &str) -> String {
        format!("{}-{name}", self.cgroup)
    }
}

/// podman with a root file system that is a directory, and nothing that it would have to set up.
/// Dropping it ends what it runs.
pub(super) struct Podman {
    dir: PathBuf,
}

impl Podman {
    /// With a copy of `layer`.
    pub(super) fn new(device: &Device, layer: &Path) -> Result<Self, String> {
        let dir = device.dir().join("podman");
        fs::create_dir_all(&dir)
            .and_then(|()| copy(layer, &dir.join("rootfs")))
            .map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(Self { dir })
    }

    /// Runs a container that the options describe.
    pub(super) fn run(&self, options: &[&str], command: &[&str]) -> Command {
        let mut run = self.command();
        run.args(["run", "--network=none"]).args(options);
        // More than it may have here is what it would ask for.
        run.args(["--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"]);
        run.arg("--rootfs").arg(self.dir.join("rootfs"));
        run.args(command);
        run
    }

    fn command(&self) -> Command {
        let mut podman = Command::new("podman");
        podman.arg("--root").arg(self.dir.join("storage"));
        podman.arg("--runroot").arg(self.dir.join("run"));
        podman.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs"]);
        podman.arg("--runtime=runc");
        podman
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self
            .command()
            .args(["rm", "--all", "--force", "--time=0"])
            .output();
    }
}

/// Memory of what runs of the `programs`, in the calling thread's network.
pub(super) fn memory(programs: &[&str]) -> Result<Memory, String> {
    let network = |path: String| fs::read_link(path).ok();
    let own = network("/proc/thread-self/ns/net".to_owned());
    let mut total = Memory::default();
    for entry in fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))? {
        let name = entry
            .map_err(|error| format!("/proc: {error}"))?
            .file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let exe = exe.file_name().unwrap_or_default().to_string_lossy();
        if programs.contains(&&*exe) && network(format!("/proc/{pid}/ns/net")) == own {
            total = total + idle::memory(pid)?;
        }
    }
    Ok(total)
}

impl Drop for Docker {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.daemon.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

fn succeeds(command: &mut Command) -> bool {
    let output = command.output();
    output.is_ok_and(|output| output.status.success())
}

/// Copies a directory with all that belongs to its files.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let copied = Command::new("cp").arg("-a").args([from, to]).status()?;
    match copied.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("cp: {copied}"))),
    }
}
