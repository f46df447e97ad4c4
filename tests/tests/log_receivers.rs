//! The log drivers journald and syslog: what receivers get that the test itself is, also when
//! they are away, stuck, or come late.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Stdio};
use std::time::Duration;

use kobune_fixtures::Registry;
use kobune_tests::{Agent, Device, privileged, probe, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Seconds in which everything here happens.
const SOON: u64 = 30;
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Says numbered lines, a hundred at a time: each time when `/go/N` is there.
const HUNDREDS: &str = "n=0; while :; do until [ -e /go/$n ]; do busybox usleep 10000; done; \
    i=0; while [ $i -lt 100 ]; do n=$((n+1)); i=$((i+1)); echo line $n; done; done";

/// Runs `test` with an agent on a device with a `/run` and a `/var/log` of its own.
fn with_agent(test: impl FnOnce(&Agent<'_>, &Registry, &Device)) {
    if !privileged() {
        return;
    }
    let device = Device::new();
    let made = device
        .command("sh")
        .args([
            "-c",
            "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && \
                mount -t tmpfs tmpfs /var/log",
        ])
        .status();
    assert!(made.unwrap().success());
    fs::create_dir(device.dir().join("go")).unwrap();
    let registry = probe::registry(&device, &["1"]);
    let agent = Agent::start(&device, "");
    test(&agent, &registry, &device);
    agent.clear();
    assert_eq!(device.leftovers(), Vec::<String>::new());
}

/// Runs a module `m` of busybox with `script` and this `LogConfig`.
fn run(agent: &Agent<'_>, registry: &Registry, script: &str, log: &Value) {
    let host = json!({ "LogConfig": log });
    let mut module = probe::shell(registry, &["/bin/sh", "-c", script], host);
    let go = format!("{}:/go:ro", agent.device().dir().join("go").display());
    let binds = &mut module["settings"]["createOptions"]["HostConfig"]["Binds"];
    binds.as_array_mut().unwrap().push(json!(go));
    let _ = agent.apply(&probe::deployment([("m", module)])).ok();
}

/// Lets the script say the lines after `number`.
fn go(device: &Device, number: u32) {
    fs::write(device.dir().join("go").join(number.to_string()), "").unwrap();
}

/// A receiver of datagrams on the device, which was not there before.
fn listen(device: &Device, path: &str) -> UnixDatagram {
    let socket = device.in_namespaces(|| {
        let _ = fs::remove_file(path);
        UnixDatagram::bind(path).unwrap()
    });
    socket
        .set_read_timeout(Some(Duration::from_secs(SOON)))
        .unwrap();
    socket
}

fn receive(socket: &UnixDatagram) -> String {
    let mut bytes = vec![0; 64 << 10];
    let count = socket.recv(&mut bytes).expect("a message in time");
    String::from_utf8(bytes[..count].to_vec()).unwrap()
}

/// A field of a message to the journal.
fn field<'m>(message: &'m str, name: &str) -> Option<&'m str> {
    let mut fields = message.lines().filter_map(|line| line.split_once('='));
    fields
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value)
}

/// What the next message to the journal says.
fn said(socket: &UnixDatagram) -> String {
    field(&receive(socket), "MESSAGE").unwrap().to_owned()
}

#[track_caller]
fn expect_lines(socket: &UnixDatagram, numbers: impl Iterator<Item = u32>) {
    for number in numbers {
        assert_eq!(said(socket), format!("line {number}"));
    }
}

#[test]
fn the_journal_gets_lines_with_dockers_fields_and_kobune_logs_has_them_too() {
    with_agent(|agent, registry, device| {
        let journal = listen(device, JOURNAL);
        let script = "echo hello; busybox usleep 300000; echo oops >&2; busybox usleep 300000; \
            busybox printf 'in '; busybox usleep 300000; busybox printf 'pieces\\n'; \
            busybox usleep 300000; busybox head -c 20000 /dev/zero | busybox tr '\\0' x; exec busybox sleep 600";
        let log = json!({ "Type": "journald", "Config": { "tag": "my-{{.Name}}" } });
        run(agent, registry, script, &log);
        let hello = receive(&journal);
        let image = registry.reference("probe", "1");
        for (name, value) in [
            ("MESSAGE", "hello"),
            ("PRIORITY", "6"),
            ("CONTAINER_NAME", "m"),
            ("CONTAINER_ID", "m"),
            ("CONTAINER_TAG", "my-m"),
            ("SYSLOG_IDENTIFIER", "my-m"),
            ("IMAGE_NAME", &image),
        ] {
            assert_eq!(field(&hello, name), Some(value), "{hello}");
        }
        let oops = receive(&journal);
        assert_eq!(field(&oops, "MESSAGE"), Some("oops"));
        assert_eq!(field(&oops, "PRIORITY"), Some("3"));
        // A line is one message, however it was written, up to 16 KiB.
        let pieces = receive(&journal);
        assert_eq!(field(&pieces, "MESSAGE"), Some("in pieces"));
        assert_eq!(field(&pieces, "CONTAINER_PARTIAL_MESSAGE"), None);
        let long = receive(&journal);
        assert_eq!(field(&long, "CONTAINER_PARTIAL_MESSAGE"), Some("true"));
        let _ = agent.cli(&["stop", "m"]).ok();
        let rest = receive(&journal);
        assert_eq!(field(&rest, "CONTAINER_PARTIAL_MESSAGE"), None);
        let both = [&long, &rest].map(|part| field(part, "MESSAGE").unwrap().len());
        assert!(
            both[0] >= 16 << 10 && both[0] + both[1] == 20_000,
            "{both:?}"
        );

        let logs = agent.logs("m");
        assert!(
            logs.contains("hello\n") && logs.contains("in pieces\n"),
            "{logs}"
        );
        let home = device.dir().join("state/modules/m");
        assert!(fs::symlink_metadata(home.join("log")).unwrap().is_symlink());
        assert!(!home.join("log.saved").exists());
        assert_eq!(agent.module("m")["warnings"], json!([]));
    });
}

#[test]
fn what_is_said_while_the_journal_is_away_arrives_when_it_is_there_again() {
    with_agent(|agent, registry, device| {
        let journal = listen(device, JOURNAL);
        run(agent, registry, HUNDREDS, &json!({ "Type": "journald" }));
        go(device, 0);
        expect_lines(&journal, 1..=100);
        drop(journal);
        go(device, 100);
        agent.wait_log("m", "line 200\n");
        let journal = listen(device, JOURNAL);
        expect_lines(&journal, 101..=200);
        go(device, 200);
        expect_lines(&journal, 201..=300);
    });
}

#[test]
fn a_stuck_journal_does_not_hold_the_module_up_and_is_told_what_it_missed() {
    with_agent(|agent, registry, device| {
        let journal = listen(device, JOURNAL);
        let script = "n=0; while [ $n -lt 20000 ]; do n=$((n+1)); echo line $n; done; \
            exec busybox sleep 600";
        let log = json!({ "Type": "journald", "Config": { "max-buffer-size": "200k" } });
        run(agent, registry, script, &log);
        agent.wait_log("m", "line 20000\n");

        let (mut last, mut dropped) = (0, 0);
        let report = loop {
            let message = receive(&journal);
            let text = field(&message, "MESSAGE").unwrap();
            let Some(number) = text.strip_prefix("line ") else {
                break message;
            };
            let number: u32 = number.parse().unwrap();
            dropped += number - last - 1;
            last = number;
        };
        // Once, after the rest.
        assert_eq!((field(&report, "PRIORITY"), last), (Some("4"), 20_000));
        let text = field(&report, "MESSAGE").unwrap();
        let expected = format!("kobune: {dropped} lines were dropped here");
        assert!(
            dropped > 1000 && text.starts_with(&expected),
            "{text}, not {dropped}"
        );
        journal.set_nonblocking(true).unwrap();
        assert!(journal.recv(&mut [0; 1]).is_err(), "and nothing more");
    });
}

#[test]
fn the_last_words_of_a_module_reach_a_journal_that_comes_later() {
    with_agent(|agent, registry, device| {
        let script = "echo first; echo second; exit 0";
        run(agent, registry, script, &json!({ "Type": "journald" }));
        let module = agent.wait_for("m", SOON, |module| module["exitCode"] == 0);
        let warnings = module["warnings"].to_string();
        assert!(
            warnings.contains("there is no /run/systemd/journal/socket"),
            "{warnings}"
        );
        assert_eq!(agent.logs("m"), "first\nsecond\n");
        let journal = listen(device, JOURNAL);
        let _ = agent.cli(&["restart", "m"]).ok();
        let all: Vec<String> = (0..4).map(|_| said(&journal)).collect();
        assert_eq!(all, ["first", "second", "first", "second"]);
        agent.wait_for("m", SOON, |module| module["warnings"] == json!([]));
    });
}

/// A message of syslog without its time, which takes `length` bytes from the first `>` on.
fn without_time(message: &str, length: usize) -> String {
    let (priority, rest) = message.split_once('>').unwrap();
    format!("{priority}>{}", &rest[length..])
}

#[test]
fn syslog_gets_lines_at_dev_log_or_over_udp() {
    with_agent(|agent, registry, device| {
        let local = listen(device, "/dev/log");
        let script = "echo hello; busybox usleep 300000; echo oops >&2; exec busybox sleep 600";
        run(agent, registry, script, &json!({ "Type": "syslog" }));
        let pid = agent.wait_running("m")["pid"].to_string();
        let [hello, oops] = [receive(&local), receive(&local)].map(|it| without_time(&it, 16));
        assert_eq!(hello, format!("<30>m[{pid}]: hello"));
        assert_eq!(oops, format!("<27>m[{pid}]: oops"));

        let server = device.in_network(|| UdpSocket::bind("127.0.0.1:5514").unwrap());
        let timeout = Some(Duration::from_secs(SOON));
        server.set_read_timeout(timeout).unwrap();
        let log = json!({ "Type": "syslog", "Config": {
            "syslog-address": "udp://127.0.0.1:5514", "syslog-format": "rfc5424micro",
            "syslog-facility": "local0", "tag": "a b",
        }});
        run(agent, registry, script, &log);
        let mut bytes = [0; 1000];
        let count = server.recv(&mut bytes).unwrap();
        let message = String::from_utf8_lossy(&bytes[..count]).into_owned();
        let pid = agent.wait_running("m")["pid"].to_string();
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let host = host.trim();
        let expected = format!("<134> {host} a_b {pid} - - hello");
        assert_eq!(
            without_time(&message, "1 2026-01-02T03:04:05.678901Z".len()),
            expected
        );
    });
}

#[test]
fn syslog_over_tcp_survives_a_server_that_comes_back() {
    with_agent(|agent, registry, device| {
        let listen = || device.in_network(|| TcpListener::bind("127.0.0.1:5514").unwrap());
        let lines = |server: &TcpListener, numbers: std::ops::RangeInclusive<u32>| {
            let (connection, _) = server.accept().unwrap();
            let timeout = Some(Duration::from_secs(SOON));
            connection.set_read_timeout(timeout).unwrap();
            let mut reader = BufReader::new(connection);
            for number in numbers {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                assert!(line.ends_with(&format!("]: line {number}\n")), "{line:?}");
            }
            reader
        };
        let log =
            json!({ "Type": "syslog", "Config": { "syslog-address": "tcp://127.0.0.1:5514" } });
        run(agent, registry, HUNDREDS, &log);
        go(device, 0);
        // Nobody listens yet.
        agent.wait_log("m", "line 100\n");
        let server = listen();
        let reader = lines(&server, 1..=100);
        drop((server, reader));
        // It is noticed that the server has hung up before the next line is lost to it.
        until(SOON, "the connection is gone", || {
            let shown = device
                .command("ss")
                .args(["-Htn", "state", "close-wait"])
                .output();
            shown.is_ok_and(|shown| shown.stdout.is_empty())
        });
        go(device, 100);
        agent.wait_log("m", "line 200\n");
        let server = listen();
        let _reader = lines(&server, 101..=200);
    });
}

/// systemd's journal on a device.
struct Journald<'d> {
    device: &'d Device,
    process: Child,
}

impl<'d> Journald<'d> {
    fn start(device: &'d Device) -> Self {
        let mut command = device.command("/lib/systemd/systemd-journald");
        let process = command.stderr(Stdio::null()).spawn().unwrap();
        Self { device, process }
    }

    /// What module `m` said, with its priority.
    fn entries(&self) -> Vec<(String, String)> {
        let mut command = self.device.command("journalctl");
        command.args(["-D", "/run/log/journal", "-o", "json", "CONTAINER_NAME=m"]);
        let shown = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let entries = shown.lines().map(|line| {
            let entry: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| entry[name].as_str().unwrap().to_owned();
            assert_eq!(text("SYSLOG_IDENTIFIER"), "m");
            (text("PRIORITY"), text("MESSAGE"))
        });
        entries.collect()
    }
}

impl Drop for Journald<'_> {
    fn drop(&mut self) {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

#[test]
fn systemds_journal_shows_modules_by_name_and_misses_nothing_while_it_restarts() {
    with_agent(|agent, registry, device| {
        let journal = Journald::start(device);
        run(agent, registry, HUNDREDS, &json!({ "Type": "journald" }));
        go(device, 0);
        until(SOON, "a hundred", || journal.entries().len() == 100);
        drop(journal);
        go(device, 100);
        agent.wait_log("m", "line 200\n");
        let journal = Journald::start(device);
        until(SOON, "two hundred", || journal.entries().len() == 200);
        let expected = (1..=200).map(|number| ("6".to_owned(), format!("line {number}")));
        assert_eq!(journal.entries(), expected.collect::<Vec<_>>());
    });
}
