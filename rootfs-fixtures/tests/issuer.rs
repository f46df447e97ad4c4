//! The issuer's tokens against Debian's `docker-registry`, pushed to and pulled from by skopeo.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic and print"
)]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kobune_fixtures::{Content, Issuer, Login, Platform, layout, module_image};

/// A registry of the distribution project; killed when dropped.
struct DockerRegistry(Child);

impl DockerRegistry {
    /// Nothing if it is not installed, which is an error where CI is true.
    fn start(dir: &Path, addr: SocketAddr, issuer: &Issuer) -> Option<Self> {
        let bundle = dir.join("issuer.pem");
        std::fs::write(&bundle, issuer.certificate_pem()).unwrap();
        let config = serde_json::json!({
            "version": 0.1,
            "log": { "level": "error", "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": dir.join("storage") } },
            "http": { "addr": addr.to_string() },
            "auth": { "token": {
                "realm": issuer.realm(), "service": "fixtures", "issuer": issuer.name(),
                "rootcertbundle": bundle,
            } },
        });
        let file = dir.join("config.yml");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(file)
            .env("OTEL_TRACES_EXPORTER", "none");
        match command.stdout(Stdio::null()).stderr(Stdio::null()).spawn() {
            Ok(child) => Some(Self(child)),
            Err(error) => {
                assert_ne!(
                    std::env::var("CI").as_deref(),
                    Ok("true"),
                    "docker-registry: {error}"
                );
                eprintln!("skipped: docker-registry cannot be run: {error}");
                None
            }
        }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for(addr: SocketAddr) {
    let start = Instant::now();
    while TcpStream::connect(addr).is_err() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "{addr} stays silent"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Copies with skopeo; the error is what it said.
fn copy(login: &str, source: &str, target: &str) -> Result<(), String> {
    let creds = if source.starts_with("docker") {
        "--src-creds"
    } else {
        "--dest-creds"
    };
    let output = Command::new("skopeo")
        .args([
            "copy",
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            creds,
            login,
        ])
        .args([source, target])
        .output()
        .unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn docker_registry_accepts_the_issuers_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = Issuer::start(Login::new("led", "lamp")).unwrap();
    let addr = TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let Some(_registry) = DockerRegistry::start(dir.path(), addr, &issuer) else {
        return;
    };
    wait_for(addr);

    let mut content = Content::new();
    content.add_image(
        "led-acr",
        "1.0",
        &module_image(Platform::host(), "led", b"x", &["80/tcp"]),
    );
    layout::write(&dir.path().join("layout"), &content).unwrap();
    let local = format!("oci:{}:led-acr:1.0", dir.path().join("layout").display());
    let remote = format!("docker://{addr}/led-acr:1.0");
    let pulled = format!("oci:{}:led", dir.path().join("pulled").display());
    copy("led:lamp", &local, &remote).unwrap();
    copy("led:lamp", &remote, &pulled).unwrap();
    let refusal = copy("led:dark", &remote, &pulled).unwrap_err();
    assert!(refusal.contains("unauthorized"), "{refusal}");
}
