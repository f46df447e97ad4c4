//! The hub's portal in a browser: the tutorial from enrolment to `200` and a live log.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kobune_tests::{Agent, Device, Hub, Programs, privileged, tutorial};

/// What drives the browser, and what looks for faults of accessibility.
const PACKAGES: [&str; 2] = ["selenium==4.38.0", "axe-core-python==0.1.0"];
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
    let Some(python) = prepared() else { return };
    let device = Device::new();
    let registry = tutorial::registry(&device, &["1.0"]);
    let hub = Hub::start(&device);
    add_user(&device, "anna");
    let output = target_dir().join("portal-screenshots").join(size);
    let _ = std::fs::remove_dir_all(&output);
    std::fs::create_dir_all(&output).expect("a directory");
    // Chromium opens nothing below a path with dots in it.
    let output = output.canonicalize().expect("it was just made");
    let log = std::fs::File::create(output.join("walk.log")).expect("a log");
    let mut browser = device
        .command(python)
        .arg(suite().join("walk.py"))
        .env("HOME", &output)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PORTAL_SIZE", size)
        .env("PORTAL_OUTPUT", &output)
        .env("PORTAL_USER", "anna")
        .env("PORTAL_PASSWORD", PASSWORD)
        .env(
            "PORTAL_MANIFEST",
            tutorial::deployment(&registry, "1.0").to_string(),
        )
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a descriptor"))
        .stderr(log)
        .spawn()
        .expect("python runs");
    let name = format!("walk-{}", size.split('x').next().unwrap_or_default());
    let connection = output.join(format!("{name}.connection"));
    let deadline = Instant::now() + Duration::from_secs(300);
    let mut agent = None;
    let ended = loop {
        if agent.is_none() && connection.exists() {
            let string = std::fs::read_to_string(&connection).expect("it was just made");
            agent = Some(Agent::start(&device, &configuration(&device, &string)));
        }
        if let Some(status) = browser.try_wait().expect("a child") {
            break Some(status);
        }
        if Instant::now() > deadline {
            let _ = browser.kill();
            let _ = browser.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let told = std::fs::read_to_string(output.join("walk.log")).unwrap_or_default();
    let agent_log = agent.as_ref().map(Agent::log).unwrap_or_default();
    if let Some(agent) = agent {
        agent.clear();
    }
    let _ = std::fs::remove_dir_all(output.join(format!("profile-{}", &name[5..])));
    assert!(
        ended.is_some_and(|status| status.success()),
        "{told}\nhub's log:\n{}\nagent's log:\n{agent_log}",
        hub.log()
    );
    println!("{told}\nscreenshots: {}", output.display());
    // Passwords and keys are not for logs either.
    assert!(!hub.log().contains(PASSWORD) && !hub.log().contains(tutorial::PASSWORD));
}

/// The two lines that the page shows, with where the certificate is here.
fn configuration(device: &Device, connection_string: &str) -> String {
    let ca = device.dir().join("hub/ca.pem");
    format!(
        "trust_bundle_cert = \"file://{}\"\n[provisioning]\nsource = \"manual\"\nconnection_string = \"{}\"\n",
        ca.display(),
        connection_string.trim()
    )
}

fn add_user(device: &Device, name: &str) {
    let mut child = device
        .command(Programs::built().agent("kobune-hub"))
        .args(["user", "add", name, "--role", "operator", "--state"])
        .arg(device.dir().join("hub"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("kobune-hub runs");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    writeln!(stdin, "{PASSWORD}").expect("it reads");
    drop(stdin);
    assert!(child.wait().expect("a child").success());
}

/// Python with the driver; `None` where the test cannot run and need not.
#[allow(clippy::print_stderr)]
fn prepared() -> Option<PathBuf> {
    static PYTHON: std::sync::OnceLock<Option<PathBuf>> = std::sync::OnceLock::new();
    if !privileged() {
        return None;
    }
    let python = PYTHON.get_or_init(|| match environment() {
        Ok(python) => Some(python),
        Err(error) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI must have Chromium and pip: {error}"
            );
            eprintln!("skipped: {error}");
            None
        }
    });
    python.clone()
}

/// A virtual environment below the target directory, made once.
fn environment() -> Result<PathBuf, String> {
    if !Path::new("/usr/bin/chromedriver").exists() {
        return Err("there is no /usr/bin/chromedriver".to_owned());
    }
    let dir = target_dir().join("portal-venv");
    let python = dir.join("bin/python");
    let done = dir.join("done");
    if std::fs::read_to_string(&done).unwrap_or_default() == PACKAGES.join(" ") {
        return Ok(python);
    }
    let run = |command: &mut Command| match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Err(format!("{command:?}: {error}")),
    };
    run(Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&dir))?;
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet"])
        .args(PACKAGES))?;
    std::fs::write(&done, PACKAGES.join(" ")).map_err(|error| error.to_string())?;
    Ok(python)
}

fn suite() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("portal")
}

fn target_dir() -> PathBuf {
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(workspace).join("target"), PathBuf::from)
}
