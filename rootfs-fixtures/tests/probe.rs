//! The probe's answers, on which other tests rely.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const PROBE: &str = env!("CARGO_BIN_EXE_probe");

fn probe(words: &str) -> (Option<i32>, String) {
    let output = Command::new(PROBE).args(words.split(' ')).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout)
            .unwrap()
            .trim_end()
            .to_owned(),
    )
}

/// An echo server with its port.
fn listen(protocol: &str) -> (Child, String) {
    let mut child = Command::new(PROBE)
        .args(["listen", protocol, "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    let port = line.trim_end().rsplit_once(':').unwrap().1.to_owned();
    (child, port)
}

#[test]
fn answers_are_printed() {
    for (words, code, answer) in [
        ("open /dev/null rw", 0, "ok"),
        ("open /nowhere r", 0, "ENOENT"),
        ("open /proc w", 0, "EISDIR"),
        ("exit 42", 42, ""),
        ("spam 3", 0, "line 1\nline 2\nline 3"),
        ("hosts 127.0.0.1", 0, "127.0.0.1"),
        ("fork 3", 0, "3 of 3"),
        ("sleep 0", 0, ""),
        ("nonsense", 2, ""),
        ("open /dev/null x", 2, ""),
        ("connect 127.0.0.1 1", 1, ""),
    ] {
        assert_eq!(probe(words), (Some(code), answer.to_owned()), "{words}");
    }
    for (words, part) in [
        ("caps", "CapEff:"),
        ("caps", "NoNewPrivs:"),
        ("id", "Uid:"),
        ("mounts", " / / "),
        ("env", "PATH="),
        ("alloc 1", "allocated 1 MiB"),
    ] {
        let (code, answer) = probe(words);
        assert_eq!(code, Some(0), "{words}");
        assert!(answer.contains(part), "{words}: {answer}");
    }
}

#[test]
fn echoes_come_back() {
    for (protocol, client) in [("tcp", "connect"), ("udp", "udp")] {
        let (mut server, port) = listen(protocol);
        let answer = probe(&format!("{client} 127.0.0.1 {port} hello"));
        server.kill().unwrap();
        server.wait().unwrap();
        assert_eq!(answer, (Some(0), "hello".to_owned()), "{protocol}");
    }
}
