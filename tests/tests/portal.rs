//! The hub's portal in a browser: the tutorial from enrolment to `200` and a live log.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use kobune_tests::{Agent, Device, Hub, Programs, packages, privileged, target_dir, tutorial};
use serde_json::{Value, json};

/// What drives the browser, and what a device connects with.
const DRIVER: [&str; 2] = ["selenium==4.38.0", "paho-mqtt==1.6.1"];
/// What looks for faults of accessibility.
const AXE: [&str; 1] = ["axe-core@4.14.1"];
const PASSWORD: &str = "a password of a test";

#[test]
fn the_tutorial_is_clicked_through_on_a_desk() {
    walk("1280x900");
}

#[test]
fn the_tutorial_is_clicked_through_on_a_phone() {
    walk("390x844");
}

#[allow(clippy::print_stdout)]
fn walk(size: &str) {
    let Some(browser) = Browser::prepared(size) else {
        return;
    };
    let device = Device::new();
    let registry = tutorial::registry(&device, &["1.0"]);
    let hub = Hub::start(&device);
    add_user(&device, "anna", "operator");
    add_user(&device, "ben", "reader");
    // More than a page of the list has; a phone scrolls them.
    for n in 0..=110 {
        let _ = hub.register(&json!({ "deviceId": format!("z-{n:03}") }));
    }
    let mut walk = browser.start(&device, &tutorial::deployment(&registry, "1.0"));
    let (ended, agent) = see_through(&mut walk, &device, &hub, &browser.connection());
    let told = browser.told();
    let agent_log = agent.as_ref().map(Agent::log).unwrap_or_default();
    if let Some(agent) = agent {
        agent.clear();
    }
    assert!(
        ended.is_some_and(|status| status.success()),
        "{told}\nhub's log:\n{}\nagent's log:\n{agent_log}",
        hub.log()
    );
    println!("{told}\nscreenshots: {}", browser.output.display());
    // Passwords and keys are not for logs either.
    assert!(!hub.log().contains(PASSWORD) && !hub.log().contains(tutorial::PASSWORD));
}

/// Waits for the end of the walk, with an agent as soon as the page has shown what it takes.
/// No status if the walk does not end.
fn see_through<'d>(
    walk: &mut Child,
    device: &'d Device,
    hub: &Hub<'_>,
    connection: &Path,
) -> (Option<ExitStatus>, Option<Agent<'d>>) {
    let deadline = Instant::now() + Duration::from_secs(900);
    let mut agent = None;
    loop {
        if agent.is_none() && connection.exists() {
            let string = fs::read_to_string(connection).expect("it was just made");
            agent = Some(Agent::start(device, &hub.configuration(&string)));
        }
        if let Some(status) = walk.try_wait().expect("a child") {
            return (Some(status), agent);
        }
        if Instant::now() > deadline {
            let _ = walk.kill();
            let _ = walk.wait();
            return (None, agent);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A browser with a screen of some size, and the directory of what it leaves.
struct Browser {
    python: PathBuf,
    axe: PathBuf,
    size: String,
    output: PathBuf,
}

impl Browser {
    /// `None` where the test cannot run and need not.
    fn prepared(size: &str) -> Option<Self> {
        if !privileged() {
            return None;
        }
        let python = packages::python("portal-venv", &DRIVER)?;
        let axe = packages::node_modules("portal-node", &AXE)?;
        let output = target_dir().join("portal-screenshots").join(size);
        let _ = fs::remove_dir_all(&output);
        fs::create_dir_all(&output).expect("a directory");
        Some(Self {
            python,
            axe: axe.join("axe-core/axe.min.js"),
            size: size.to_owned(),
            // Chromium opens nothing below a path with dots in it.
            output: output.canonicalize().expect("it was just made"),
        })
    }

    fn start(&self, device: &Device, deployment: &Value) -> Child {
        let log = File::create(self.output.join("walk.log")).expect("a log");
        device
            .command(&self.python)
            .arg(suite().join("walk.py"))
            .env("HOME", &self.output)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PORTAL_SIZE", &self.size)
            .env("PORTAL_OUTPUT", &self.output)
            .env("PORTAL_AXE", &self.axe)
            .env("PORTAL_USER", "anna")
            .env("PORTAL_PASSWORD", PASSWORD)
            .env("PORTAL_MANIFEST", deployment.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            .spawn()
            .expect("python runs")
    }

    fn width(&self) -> &str {
        self.size.split('x').next().unwrap_or_default()
    }

    /// Where the walk puts the connection string of the device that it has enrolled.
    fn connection(&self) -> PathBuf {
        self.output
            .join(format!("walk-{}.connection", self.width()))
    }

    fn told(&self) -> String {
        fs::read_to_string(self.output.join("walk.log")).unwrap_or_default()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let profile = format!("profile-{}", self.width());
        let _ = fs::remove_dir_all(self.output.join(profile));
    }
}

fn add_user(device: &Device, name: &str, role: &str) {
    let mut child = device
        .command(Programs::built().hub())
        .args(["user", "add", name, "--role", role, "--state"])
        .arg(device.dir().join("hub"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("kobune-hub runs");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    writeln!(stdin, "{PASSWORD}").expect("it reads");
    drop(stdin);
    assert!(child.wait().expect("a child").success());
}

fn suite() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("portal")
}
