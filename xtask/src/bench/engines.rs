//! Docker on a device, from Debian's package: what a whole engine costs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kobune_tests::Device;

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
        let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
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
