//! A `kobune-hub` on a device, and its service side as operators' tools use it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kobune_iothub_auth::{ConnectionString, SasToken};
use serde_json::{Value, json};

use crate::{CliOutput, Device, Programs, until};

/// Good also for a hub whose clock is a day ahead.
const TOKEN_SECONDS: u64 = 3 * 24 * 3600;

/// A running hub, called `localhost`. Ends when it is dropped.
#[derive(Debug)]
pub struct Hub<'d> {
    device: &'d Device,
    state: PathBuf,
    arguments: Vec<String>,
    env: Vec<(String, String)>,
    child: Option<Child>,
}

impl<'d> Hub<'d> {
    /// Starts a hub in the device's network, on IoT Hub's own ports.
    ///
    /// # Panics
    /// Where it does not answer within 20 seconds.
    #[must_use]
    pub fn start(device: &'d Device) -> Self {
        Self::start_with(device, &[])
    }

    /// As [`Hub::start`], with further arguments of `serve`.
    ///
    /// # Panics
    /// Where it does not answer within 20 seconds.
    #[must_use]
    pub fn start_with(device: &'d Device, arguments: &[&str]) -> Self {
        let mut hub = Self {
            device,
            state: device.dir().join("hub"),
            arguments: arguments.iter().map(ToString::to_string).collect(),
            env: Vec::new(),
            child: None,
        };
        hub.restart();
        hub
    }

    /// Starts the hub's process again after [`Hub::kill`].
    ///
    /// # Panics
    /// Where it does not answer within 20 seconds.
    pub fn restart(&mut self) {
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.device.dir().join("hub.log"))
            .expect("the hub's log");
        let child = self
            .device
            .command_with(&self.env, &Programs::built().hub())
            .arg("serve")
            .arg("--state")
            .arg(&self.state)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("the hub starts");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.request("GET", "/devices", None, &[]).is_none() {
            assert!(
                Instant::now() < deadline,
                "the hub does not answer: {}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Environment of the hub's process from its next start on.
    pub fn set_env(&mut self, env: Vec<(String, String)>) {
        self.env = env;
    }

    /// Ends the hub's process with SIGKILL.
    pub fn kill(&mut self) {
        // nsenter becomes the program: this is the hub itself.
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Pid of the hub's process.
    ///
    /// # Panics
    /// Where it is not running.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the hub runs").id()
    }

    /// PEM file of the certificate that the hub's own are signed with.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.state.join("ca.pem")
    }

    /// A call of the hub's command line with its service connection string, to be run.
    ///
    /// # Panics
    /// Where the hub has not written that down.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let file = self.state.join("service.connection-string");
        let string = fs::read_to_string(file).expect("a running hub has written it down");
        let mut command = self.device.command(Programs::built().hub());
        command
            .args(args)
            .env("KOBUNE_HUB_CONNECTION_STRING", string.trim())
            .env("KOBUNE_HUB_CA", self.ca());
        command
    }

    /// Runs the hub's command line.
    ///
    /// # Panics
    /// Where it cannot be run.
    #[must_use]
    pub fn cli(&self, args: &[&str]) -> CliOutput {
        CliOutput::of(&mut self.command(args))
    }

    /// Makes a device with the capability of IoT Edge; the agent's configuration for it.
    ///
    /// # Panics
    /// Where the hub refuses it.
    #[must_use]
    pub fn enrol(&self, id: &str) -> String {
        self.configuration(&self.cli(&["device", "create", id, "--edge"]).ok())
    }

    /// The agent's configuration for the device of `connection_string`.
    #[must_use]
    pub fn configuration(&self, connection_string: &str) -> String {
        format!(
            "trust_bundle_cert = \"file://{}\"\n[provisioning]\nsource = \"manual\"\nconnection_string = \"{}\"\n",
            self.ca().display(),
            connection_string.trim()
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
        let answer = self.request(method, path, body, &["If-Match: *"]);
        answer.unwrap_or_else(|| panic!("the hub cannot be reached: {}", self.log()))
    }

    /// Asks as who has another connection string than the owner's; the status of the answer.
    ///
    /// # Panics
    /// Where the hub cannot be reached.
    #[track_caller]
    #[must_use]
    pub fn service_as(&self, service: &ConnectionString, method: &str, path: &str) -> u16 {
        let answer = self.request_as(service, (method, path), None, &[]);
        answer.expect("the hub is reached").0
    }

    /// Registers the device that `identity` describes; as the hub has it then.
    ///
    /// # Panics
    /// Where the hub refuses it.
    #[track_caller]
    #[must_use]
    pub fn register(&self, identity: &Value) -> Value {
        let path = format!("/devices/{}", identity["deviceId"].as_str().expect("an id"));
        // What exists is no news, so there is no If-Match.
        let answer = self.request("PUT", &path, Some(identity), &[]);
        let (status, made) = answer.expect("the hub is reached");
        assert_eq!(status, 200, "{made}");
        made
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[&str],
    ) -> Option<(u16, Value)> {
        let text = fs::read_to_string(self.state.join("service.connection-string")).ok()?;
        let service: ConnectionString = text.parse().ok()?;
        self.request_as(&service, (method, path), body, headers)
    }

    fn request_as(
        &self,
        service: &ConnectionString,
        (method, path): (&str, &str),
        body: Option<&Value>,
        headers: &[&str],
    ) -> Option<(u16, Value)> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let policy = service.shared_access_key_name.as_deref();
        let expiry = now + TOKEN_SECONDS;
        let token = SasToken::sign(service.key()?, &service.host_name, expiry, policy);
        let mut curl = self.device.command("curl");
        curl.args([
            "--silent",
            "--max-time",
            "40",
            // Whatever the hub is called: it is on the device.
            "--connect-to",
            "::127.0.0.1:",
            "--write-out",
            "\n%{http_code}",
        ])
        .args(["--request", method, "--cacert"])
        .arg(self.state.join("ca.pem"))
        .args(["--header", &format!("Authorization: {}", token.to_text())])
        .args(["--header", "Content-Type: application/json"]);
        for header in headers {
            curl.args(["--header", header]);
        }
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

    /// Waits until the newest desired properties are carried out.
    ///
    /// # Panics
    /// Where they are not within `seconds`.
    #[track_caller]
    pub fn wait_in_sync(&self, device: &str, seconds: u64) -> Value {
        self.wait_for(device, seconds, |twin| {
            let (desired, reported) = (
                &twin["properties"]["desired"],
                &twin["properties"]["reported"],
            );
            reported["lastDesiredStatus"]["code"] == 200
                && reported["lastDesiredVersion"] == desired["$version"]
        })
    }

    /// Waits until the identity of a module has a key.
    ///
    /// # Panics
    /// Where it has none within `seconds`.
    #[track_caller]
    pub fn wait_for_key(&self, device: &str, module: &str, seconds: u64) {
        let path = format!("/devices/{device}/modules/{module}");
        until(seconds, "the module's key", || {
            let (_, identity) = self.service("GET", &path, None);
            identity["authentication"]["symmetricKey"]["primaryKey"].is_string()
        });
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
        self.kill();
    }
}
