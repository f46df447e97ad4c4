//! Terminals and standard input of modules, and those who attach to them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use kobune_tests::{Agent, Device, privileged, probe, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Longest that anything here may take.
const SOON: u64 = 30;

/// Runs `test` with an agent whose module `m` runs `script`, with `options` over its others.
fn with_module(script: &str, options: &Value, test: impl FnOnce(&mut Agent<'_>)) {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let registry = probe::registry(&device, &["1"]);
    let mut agent = Agent::start(&device, "");
    let host_config = options
        .get("HostConfig")
        .cloned()
        .unwrap_or_else(|| json!({}));
    let mut module = probe::shell(&registry, &["sh", "-c", script], host_config);
    for (name, value) in options.as_object().unwrap() {
        if name != "HostConfig" {
            module["settings"]["createOptions"][name] = value.clone();
        }
    }
    let _ = agent.apply(&probe::deployment([("m", module)])).ok();
    test(&mut agent);
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

/// A command with what it says.
struct Client {
    child: Child,
    input: Option<std::process::ChildStdin>,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Client {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let (to, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                let _ = to.send(buffer[..count].to_vec());
            }
        });
        Self {
            input: child.stdin.take(),
            child,
            output,
            seen: String::new(),
        }
    }

    /// `kobune attach` with pipes.
    fn attach(agent: &Agent<'_>, options: &[&str]) -> Self {
        Self::start(agent.command(&[&["attach"], options, &["m"]].concat()))
    }

    /// The same at a terminal of 31 by 97.
    fn at_terminal(agent: &Agent<'_>, options: &[&str]) -> Self {
        let own = agent.command(&[&["attach"], options, &["m"]].concat());
        let words: Vec<String> = std::iter::once(own.get_program())
            .chain(own.get_args())
            .map(|word| format!("'{}'", word.to_str().unwrap()))
            .collect();
        let mut script = Command::new("script");
        let line = format!(
            "stty rows 31 cols 97; echo at terminal; {}",
            words.join(" ")
        );
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        let mut client = Self::start(script);
        client.wait("at terminal");
        client
    }

    fn send(&mut self, text: &str) {
        self.input
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    /// Waits until it said `text`, and forgets what it said up to there.
    fn wait(&mut self, text: &str) {
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            match self.output.recv_timeout(Duration::from_secs(SOON)) {
                Ok(more) => self.seen.push_str(&String::from_utf8_lossy(&more)),
                Err(error) => panic!("no {text:?}, {error}: {:?}", self.seen),
            }
        }
    }

    /// Its exit code and what it said since.
    fn end(mut self) -> (i32, String) {
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        while let Ok(more) = self.output.recv_timeout(Duration::from_secs(SOON)) {
            self.seen.push_str(&String::from_utf8_lossy(&more));
        }
        (code, std::mem::take(&mut self.seen))
    }
}

#[test]
fn a_module_has_a_terminal_that_clients_type_at_and_leave() {
    let script = "busybox tty; busybox stty size; echo $TERM; test -t 2 && echo all; \
                  while :; do read word && echo \"said $word $(busybox stty size)\"; \
                  test \"$word\" = end && exit 7; done";
    let options = json!({
        "Tty": true, "OpenStdin": true, "HostConfig": { "ConsoleSize": [33, 99] },
    });
    with_module(script, &options, |agent| {
        agent.wait_running("m");
        let log = agent.wait_log("m", "all");
        let lines: Vec<&str> = log.lines().map(str::trim).collect();
        assert!(
            lines[0].starts_with("/dev/pts/") || lines[0] == "/dev/console",
            "{log}"
        );
        assert_eq!(lines[1..], ["33 99", "xterm", "all"]);

        let mut client = Client::at_terminal(agent, &[]);
        client.send("one\n");
        client.wait("said one 31 97");
        // The agent has no part in it.
        agent.kill();
        client.send("two\n");
        client.wait("said two");
        agent.restart();
        // A second one sees the same.
        let mut other = Client::at_terminal(agent, &["--detach-keys", "ctrl-x"]);
        other.send("three\n");
        other.wait("said three");
        client.wait("said three");
        client.send("\x10\x11");
        let (code, said) = client.end();
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("detached"), "{said}");
        other.send("four\n");
        other.wait("said four");
        other.send("end\n");
        let (code, said) = other.end();
        assert_eq!(code, 7, "{said}");
        let log = agent.logs("m");
        for word in ["one", "two", "three", "four", "end"] {
            assert!(log.contains(&format!("said {word}")), "{log}");
        }
        let said = agent.cli(&["attach", "m"]).failed(1);
        assert!(said.contains("not running"), "{said}");
    });
}

#[test]
fn keys_of_the_terminal_are_signals_also_below_a_first_process() {
    let script = "trap 'echo interrupted; exit 5' INT; \
                  while :; do echo tick; busybox usleep 50000; done";
    let options = json!({ "Tty": true, "OpenStdin": true, "HostConfig": { "Init": true } });
    with_module(script, &options, |agent| {
        agent.wait_running("m");
        let mut client = Client::at_terminal(agent, &[]);
        // From then on keys are the module's.
        client.wait("tick");
        client.send("\x03");
        client.wait("interrupted");
        assert_eq!(client.end().0, 5);
    });
}

#[test]
fn input_waits_for_clients_and_ends_only_where_that_was_asked_for() {
    with_module("exec busybox cat", &json!({ "OpenStdin": true }), |agent| {
        agent.wait_running("m");
        for word in ["first\n", "second\n"] {
            let mut client = Client::attach(agent, &[]);
            client.send(word);
            client.wait(word.trim());
            // Its end is not the module's.
            client.input = None;
            client.child.kill().unwrap();
            client.child.wait().unwrap();
        }
        assert_eq!(agent.module("m")["status"], "running");
        assert_eq!(agent.logs("m"), "first\nsecond\n");
    });
}

#[test]
fn signals_reach_the_main_process() {
    let script = "trap 'echo caught; exit 3' TERM; \
                  while :; do echo tick; busybox usleep 50000; done";
    with_module(script, &json!({ "OpenStdin": true }), |agent| {
        agent.wait_running("m");
        // Not to the module: the command alone ends.
        let mut client = Client::attach(agent, &["--sig-proxy=false"]);
        client.wait("tick");
        kill_with(&client, Signal::SIGTERM);
        assert_eq!(client.end().0, -1);
        let mut client = Client::attach(agent, &["--no-stdin"]);
        client.wait("tick");
        kill_with(&client, Signal::SIGTERM);
        client.wait("caught");
        assert_eq!(client.end().0, 3);
    });
}

#[test]
fn input_of_one_client_alone_ends_with_it_and_none_of_it_is_lost() {
    let options = json!({ "OpenStdin": true, "StdinOnce": true });
    with_module("exec busybox wc -c", &options, |agent| {
        agent.wait_running("m");
        let mut client = Client::attach(agent, &[]);
        // More than every buffer on the way together.
        let mut input = client.input.take().unwrap();
        let written = std::thread::spawn(move || input.write_all(&vec![b'x'; 3 << 20]));
        written.join().unwrap().unwrap();
        assert_eq!(client.end(), (0, format!("{}\n", 3 << 20)));
    });
    // Without any of it, input is empty.
    with_module("busybox wc -c; exec sleep 600", &json!({}), |agent| {
        let _ = agent.wait_log("m", "0\n");
    });
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up() {
    let script = "read go; busybox seq 1 400000; busybox sleep 600";
    with_module(script, &json!({ "OpenStdin": true }), |agent| {
        agent.wait_running("m");
        let socket = agent.device().dir().join("run/modules/m/attach");
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut deaf = kobune_runtime::shim::attach::connect(&socket).unwrap();
        let mut babbling: UnixStream = kobune_runtime::shim::attach::connect(&socket).unwrap();
        babbling.write_all(&[0xff; 64]).unwrap();
        // No frame: that one is shown out.
        babbling
            .set_read_timeout(Some(Duration::from_secs(SOON)))
            .unwrap();
        assert_eq!(babbling.read(&mut [0; 8]).unwrap(), 0);
        deaf.write_all(b"\0\0\0\0\x03go\n").unwrap();
        until(SOON, "all is in the log", || {
            agent.logs("m").ends_with("400000\n")
        });
        // What was sent is whole; then the connection ends.
        let mut rest = Vec::new();
        deaf.read_to_end(&mut rest).unwrap();
        assert!(rest.starts_with(&[16]), "output comes first");
        assert_eq!(agent.module("m")["status"], "running");
    });
}

#[test]
fn output_that_is_not_kept_is_there_for_those_who_type() {
    let none = json!({ "LogConfig": { "Type": "none" } });
    let options = json!({ "OpenStdin": true, "HostConfig": none });
    with_module(
        "while read w; do echo \"said $w\"; done",
        &options,
        |agent| {
            agent.wait_running("m");
            let mut client = Client::attach(agent, &[]);
            client.send("word\n");
            client.wait("said word");
            kill_with(&client, Signal::SIGKILL);
            assert_eq!(agent.logs("m"), "");
        },
    );
    with_module(
        "exec busybox sleep 600",
        &json!({ "HostConfig": none }),
        |agent| {
            agent.wait_running("m");
            let said = agent.cli(&["attach", "m"]).failed(1);
            assert!(said.contains("its output is discarded"), "{said}");
        },
    );
}

fn kill_with(client: &Client, signal: Signal) {
    let pid = i32::try_from(client.child.id()).unwrap();
    kill(Pid::from_raw(pid), signal).unwrap();
}
