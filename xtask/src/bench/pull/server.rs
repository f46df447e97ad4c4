//! docker-registry on a loopback port.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ends with this value.
pub(super) struct Server {
    child: Child,
    pub(super) address: &'static str,
}

impl Server {
    /// Starts one whose blobs are below `work`, and waits until it listens.
    pub(super) fn start(work: &Path) -> Result<Self, String> {
        let address = "127.0.0.1:5977";
        // YAML contains JSON.
        let config = serde_json::json!({
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": work.join("registry")}},
            "http": {"addr": address},
        });
        let file = work.join("registry.yml");
        fs::write(&file, config.to_string()).map_err(|error| error.to_string())?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file);
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("run docker-registry: {error}"))?;
        let server = Self { child, address };
        let begin = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            if begin.elapsed() > Duration::from_secs(10) {
                return Err("docker-registry does not listen".to_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
