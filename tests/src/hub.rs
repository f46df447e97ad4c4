//! A `kobune-hub` on a device, and its service side as operators' tools use it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kobune_iothub_auth::{ConnectionString, SasToken};
use serde_json::{Value, json};

use crate::{Device, Programs};

/// A running hub, called `localhost`. Ends when it is dropped.
#[derive(Debug)]
pub struct Hub<'d> {
    device: &'d Device,
    state: PathBuf,
    child: Child,
}

impl<'d> Hub<'d> {
    /// Starts a hub in the device's network, on IoT Hub's own ports.
    ///
    /// # Panics
    /// Where it does not answer within 20 seconds.
    #[must_use]
    pub fn start(device: &'d Device) -> Self {
        let state = device.dir().join("hub");
        let log = fs::File::create(device.dir().join("hub.log")).expect("the hub's log");
        let child = device
            .command(Programs::built().agent("kobune-hub"))
            .arg("serve")
            .arg("--state")
            .arg(&state)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("the hub starts");
        let hub = Self {
            device,
            state,
            child,
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while hub.try_service("GET", "/devices", None).is_none() {
            assert!(
                Instant::now() < deadline,
                "the hub does not answer: {}",
                hub.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        hub
    }

    /// Makes a device with the capability of IoT Edge; the agent's configuration for it.
    ///
    /// # Panics
    /// Where the hub refuses it.
    #[must_use]
    pub fn enrol(&self, id: &str) -> String {
        let output = self
            .device
            .command(Programs::built().agent("kobune-hub"))
            .args(["device", "create", id, "--edge", "--state"])
            .arg(&self.state)
            .output()
            .expect("kobune-hub runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output:?}");
        format!(
            "trust_bundle_cert = \"file://{}\"\n[provisioning]\nsource = \"manual\"\nconnection_string = \"{}\"\n",
            self.state.join("ca.pem").display(),
            text.trim()
        )
    }

    /// What the hub logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.device.dir().join("hub.log")).unwrap_or_default()
    }

    /// A request to the service side; status and body (`Null` where there is none).
    ///
    /// # Panics
    /// Where the hub cannot be reached.
    #[track_caller]
    #[must_use]
    pub fn service(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let answer = self.try_service(method, path, body);
        answer.unwrap_or_else(|| panic!("the hub cannot be reached: {}", self.log()))
    }

    fn try_service(&self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let text = fs::read_to_string(self.state.join("service.connection-string")).ok()?;
        let service: ConnectionString = text.parse().ok()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let policy = service.shared_access_key_name.as_deref();
        let token = SasToken::sign(service.key()?, &service.host_name, now + 300, policy);
        let mut curl = self.device.command("curl");
        curl.args([
            "--silent",
            "--max-time",
            "40",
            "--write-out",
            "\n%{http_code}",
        ])
        .args(["--request", method, "--cacert"])
        .arg(self.state.join("ca.pem"))
        .args(["--header", &format!("Authorization: {}", token.to_text())])
        .args([
            "--header",
            "Content-Type: application/json",
            "--header",
            "If-Match: *",
        ]);
        if let Some(body) = body {
            curl.args(["--data-binary", &body.to_string()]);
        }
        let url = format!("https://{}{path}?api-version=2021-04-12", service.host_name);
        let output = curl.arg(url).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n')?;
        let code: u16 = code.parse().ok().filter(|code| *code != 0)?;
        Some((code, serde_json::from_str(body).unwrap_or_default()))
    }

    /// Sets the device's modules, as the portal and `az iot edge set-modules` do.
    ///
    /// # Panics
    /// Where the hub refuses that.
    #[track_caller]
    pub fn set_modules(&self, device: &str, content: &Value) {
        let path = format!("/devices/{device}/applyConfigurationContent");
        let (status, body) = self.service("POST", &path, Some(content));
        assert!(matches!(status, 200 | 204), "{status} {body}");
    }

    /// Calls a method of the device's agent; its status and payload.
    ///
    /// # Panics
    /// Where the hub does not let the call through.
    #[track_caller]
    #[must_use]
    pub fn call(&self, device: &str, method: &str, payload: &Value) -> (u64, Value) {
        let path = format!("/twins/{device}/modules/%24edgeAgent/methods");
        let body = json!({"methodName": method, "payload": payload,
            "responseTimeoutInSeconds": 30, "connectTimeoutInSeconds": 10});
        let (status, answer) = self.service("POST", &path, Some(&body));
        assert_eq!(status, 200, "{answer}");
        (
            answer["status"].as_u64().expect("a status"),
            answer["payload"].clone(),
        )
    }

    /// The twin of the device's agent.
    ///
    /// # Panics
    /// Where the hub does not give it.
    #[track_caller]
    #[must_use]
    pub fn twin(&self, device: &str) -> Value {
        let path = format!("/twins/{device}/modules/%24edgeAgent");
        let (status, twin) = self.service("GET", &path, None);
        assert_eq!(status, 200, "{twin}");
        twin
    }

    /// Waits until `check` of the agent's twin holds.
    ///
    /// # Panics
    /// Where it does not within `seconds`, with the twin and both logs.
    #[track_caller]
    pub fn wait_for(&self, device: &str, seconds: u64, check: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let twin = self.twin(device);
            if check(&twin) {
                return twin;
            }
            let agent = self.device.dir().join("agent.log");
            assert!(
                Instant::now() < deadline,
                "the twin is {twin:#}\nhub's log:\n{}\nagent's log:\n{}",
                self.log(),
                fs::read_to_string(agent).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Hub<'_> {
    fn drop(&mut self) {
        // nsenter becomes the program: this is the hub itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
