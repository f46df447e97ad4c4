//! The tutorial's two programs against each other, with the simulated button.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic")]

#[path = "support/client.rs"]
mod client;

use std::io::{BufRead, BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use client::Client;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A running program; killed if a test forgets it.
struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start(path: &str, environment: &[(&str, &str)]) -> Self {
        let child = Command::new(path)
            .env_clear()
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self::over(child)
    }

    fn over(mut child: Child) -> Self {
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn led(port: u16) -> (Self, SocketAddr) {
        let port = port.to_string();
        let environment = [("PORT", port.as_str()), ("QWIIC_SIMULATE", "always")];
        let mut led = Self::start(env!("CARGO_BIN_EXE_led"), &environment);
        let line = led.line_with("listening on ");
        let port = line.rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
        (led, (Ipv4Addr::LOCALHOST, port).into())
    }

    fn button(led: SocketAddr) -> Self {
        let url = format!("http://{led}");
        let environment = [("LED_URL", url.as_str()), ("QWIIC_SIMULATE", "always")];
        Self::start(env!("CARGO_BIN_EXE_button"), &environment)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(
            self.output.read_line(&mut line).unwrap(),
            0,
            "the program ended"
        );
        line.trim_end().to_owned()
    }

    /// The next line that contains `text`.
    fn line_with(&mut self, text: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(text) {
                return line;
            }
        }
    }

    fn terminate(&mut self) -> ExitStatus {
        kill(
            Pid::from_raw(self.child.id().try_into().unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        self.child.wait().unwrap()
    }

    fn complaint(&mut self) -> String {
        let mut text = String::new();
        self.child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        text
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_led_follows_the_button_until_both_are_stopped() {
    let (mut led, addr) = Program::led(0);
    let mut button = Program::button(addr);
    assert_eq!(
        button.line(),
        "QWIIC_SIMULATE is set: using a simulated Qwiic button"
    );
    assert_eq!(button.line(), format!("POST http://{addr}/False 200"));
    assert_eq!(led.line(), "POST /False 200 LED off");
    assert_eq!(
        button.line_with("/True"),
        format!("POST http://{addr}/True 200")
    );
    assert_eq!(led.line_with("LED on"), "POST /True 200 LED on");
    assert_eq!(
        Client::new(addr).get("/").json(),
        serde_json::json!({ "led": true })
    );
    for program in [&mut button, &mut led] {
        assert_eq!(program.terminate().code(), Some(0));
        assert_eq!(program.line_with("stopped"), "stopped");
    }
}

#[test]
fn the_button_goes_on_while_the_led_is_away() {
    let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let mut button = Program::button(addr);
    button.line_with("failed: ");
    let (_led, _) = Program::led(addr.port());
    assert!(button.line_with(" 200").starts_with("POST http://"));
    assert_eq!(button.terminate().code(), Some(0));
}

#[test]
fn the_led_says_what_is_wrong_with_a_request() {
    let (_led, addr) = Program::led(0);
    for (method, path, status) in [
        ("POST", "/on", 200),
        ("POST", "/maybe", 400),
        ("POST", "/a/b", 404),
        ("PUT", "/on", 405),
    ] {
        let answer = Client::new(addr).request(method, path, &[]);
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(
            answer.json().get("error").is_some(),
            status != 200,
            "{method} {path}"
        );
    }
}

#[test]
fn without_simulation_a_missing_adapter_is_fatal() {
    if std::path::Path::new("/dev/i2c-1").exists() {
        return;
    }
    for path in [env!("CARGO_BIN_EXE_button"), env!("CARGO_BIN_EXE_led")] {
        let mut program = Program::start(path, &[("QWIIC_SIMULATE", "never")]);
        assert_eq!(program.child.wait().unwrap().code(), Some(1));
        let complaint = program.complaint();
        assert!(
            complaint.contains("opening /dev/i2c-1: No such file"),
            "{complaint}"
        );
    }
    let mut program = Program::start(env!("CARGO_BIN_EXE_led"), &[("PORT", "0")]);
    assert_eq!(
        program.line(),
        "no I2C adapter at /dev/i2c-1 (ENOENT): using a simulated Qwiic button"
    );
}

/// A node without a driver behind it is no adapter; a node that one may not open is a refusal.
#[test]
fn a_refusal_is_fatal_and_a_node_without_driver_is_not() {
    if !nix::unistd::geteuid().is_root() {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "this test needs root"
        );
        eprintln!("skipped: this test needs root");
        return;
    }
    for (options, code, said) in [
        (
            "dev",
            None,
            "no I2C adapter at /dev/i2c-1 (ENXIO): using a simulated Qwiic button",
        ),
        ("nodev", Some(1), "opening /dev/i2c-1: Permission denied"),
    ] {
        let script = format!(
            "mount -t tmpfs -o {options} tmpfs /dev && mknod /dev/i2c-1 c 89 1 && exec {}",
            env!("CARGO_BIN_EXE_led")
        );
        let child = Command::new("unshare")
            .args(["--mount", "--", "sh", "-c", &script])
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut led = Program::over(child);
        match code {
            None => assert_eq!(led.line(), said),
            Some(code) => {
                assert_eq!(led.child.wait().unwrap().code(), Some(code));
                let complaint = led.complaint();
                assert!(complaint.contains(said), "{complaint}");
            }
        }
    }
}

#[test]
fn wrong_settings_are_named() {
    for (variable, value) in [("LED_URL", "ftp://x"), ("QWIIC_SIMULATE", "perhaps")] {
        let environment = [(variable, value)];
        let mut button = Program::start(env!("CARGO_BIN_EXE_button"), &environment);
        assert_eq!(button.child.wait().unwrap().code(), Some(1), "{variable}");
        let complaint = button.complaint();
        assert!(complaint.contains(value), "{complaint}");
    }
}
