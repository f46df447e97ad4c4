//! Whole commands against a fake core.

use std::io::Write as _;

use super::*;
use crate::api::fake_core::FakeDaemon;

/// Exit code, standard output, standard error.
type Outcome = (u8, String, String);

/// Runs command lines one after the other on a thread of their own.
fn commands(lines: &'static [&'static [&'static str]]) -> Vec<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let daemon = FakeDaemon::start();
        let dir = daemon.dir().to_owned();
        std::fs::write(
            dir.join("good"),
            r#"{"led":{"settings":{"image":"r/led"}}}"#,
        )
        .unwrap();
        std::fs::write(dir.join("bad"), "[]").unwrap();
        let mut log = std::fs::File::create(daemon.log_dir("led").join("log")).unwrap();
        log.write_all(
            b"1970-01-01T00:00:01.000000000Z stdout P one \n\
              1970-01-01T00:00:02.000000000Z stderr F oops\n\
              1970-01-01T00:00:03.000000000Z stdout F two\n",
        )
        .unwrap();
        let work = move || lines.iter().map(|line| command(&dir, line)).collect();
        let outcomes = tokio::task::spawn_blocking(work).await.unwrap();
        daemon.stop().await;
        outcomes
    })
}

fn command(dir: &std::path::Path, line: &[&str]) -> Outcome {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let socket = format!("--socket={}", dir.join("s").display());
    let in_dir = |word: &&str| match *word {
        "good" | "bad" => dir.join(word).into_os_string(),
        word => OsString::from(word),
    };
    let words = [OsString::from(socket)]
        .into_iter()
        .chain(line.iter().map(in_dir));
    let result = run(words, &mut out, &mut err, false);
    let code = match result {
        Ok(()) => 0,
        Err(error) => {
            err.extend(error.report().bytes());
            error.exit_code()
        }
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (code, text(out), text(err))
}

fn done(out: &str, err: &str) -> Outcome {
    (0, out.to_owned(), err.to_owned())
}

#[test]
fn apply_waits_and_shows_progress() {
    let outcomes = commands(&[
        &["apply", "good"],
        &["apply", "-d", "good"],
        &["apply", "bad"],
        &["apply", "/nonexistent"],
    ]);
    let progress = "r/led: layer 0123456789ab: pulling\n";
    assert_eq!(
        outcomes[0],
        done("deployment applied, modules: 1\n", progress)
    );
    assert_eq!(outcomes[1], done("", ""));
    let refused = "kobune: invalid deployment\n  modules: no object\n";
    assert_eq!(outcomes[2], (1, String::new(), refused.to_owned()));
    assert_eq!(outcomes[3].0, 1);
    assert!(
        outcomes[3]
            .2
            .starts_with("kobune: cannot read /nonexistent: No such file")
    );
}

#[test]
fn run_prints_the_name_or_why_it_does_not_start() {
    let outcomes = commands(&[
        &["run", "r/led:1"],
        &["run", "r/led:1"],
        &["run", "missing"],
        &["-ojson", "run", "--name=x", "i"],
        &["run", "-p", "x", "i"],
    ]);
    assert_eq!(outcomes[0].1, "led\n");
    let conflict = "kobune: module \"led\" exists already\n";
    assert_eq!(outcomes[1], (1, String::new(), conflict.to_owned()));
    assert_eq!(outcomes[2].0, 1);
    let failed = "kobune: the deployment was accepted and is not carried out\n  \
                  module missing: pull failed: no such image\n";
    assert!(outcomes[2].2.ends_with(failed), "{}", outcomes[2].2);
    assert_eq!(outcomes[3].0, 0, "another module's failure is not ours");
    assert!(outcomes[3].1.contains("\"state\": \"applied\""));
    assert_eq!(outcomes[4].0, 2);
}

#[test]
fn modules_are_listed_inspected_and_changed() {
    let outcomes = commands(&[
        &["apply", "-d", "good"],
        &["list"],
        &["list", "-o", "json"],
        &["restart", "led"],
        &["stop", "led"],
        &["inspect", "led"],
        &["images"],
        &["version"],
        &["rm", "led"],
        &["stop", "led"],
    ]);
    let rows: Vec<Vec<&str>> = outcomes[1]
        .1
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["NAME", "STATUS", "DESCRIPTION", "CONFIG"]);
    assert_eq!(
        (rows[1][0], rows[1][1], rows[1][2]),
        ("led", "running", "Up")
    );
    let listed: serde_json::Value = serde_json::from_str(&outcomes[2].1).unwrap();
    assert_eq!(listed[0]["name"], "led");
    assert_eq!(listed[0]["lastStart"], "1970-01-01T00:01:40.000000000Z");
    assert_eq!(outcomes[3], done("", ""));
    assert_eq!(outcomes[4], done("", ""));
    let inspected: serde_json::Value = serde_json::from_str(&outcomes[5].1).unwrap();
    assert_eq!(inspected["status"], "stopped");
    assert_eq!(inspected["restartCount"], 1);
    assert_eq!(inspected["module"]["settings"]["image"], "r/led");
    assert!(
        outcomes[6]
            .1
            .contains("r/led          0123456789ab   1.5 MB         led\n")
    );
    let own = env!("CARGO_PKG_VERSION");
    assert_eq!(outcomes[7].1, format!("kobune {own}\ndaemon {own}\n"));
    assert_eq!(outcomes[8], done("", ""));
    let gone = "kobune: no module named \"led\"\n";
    assert_eq!(outcomes[9], (1, String::new(), gone.to_owned()));
}

#[test]
fn logs_keep_the_streams_apart() {
    let outcomes = commands(&[
        &["apply", "-d", "good"],
        &["logs", "led"],
        &["logs", "-t", "led"],
        &["logs", "-o", "json", "--tail", "1", "led"],
        &["logs", "other"],
    ]);
    assert_eq!(outcomes[1], done("one two\n", "oops\n"));
    let out = "1970-01-01T00:00:01.000000000Z one two\n";
    let err = "1970-01-01T00:00:02.000000000Z oops\n";
    assert_eq!(outcomes[2], done(out, err));
    let json = "{\"timestamp\":\"1970-01-01T00:00:03.000000000Z\",\"stream\":\"stdout\",\"message\":\"two\"}\n";
    assert_eq!(outcomes[3], done(json, ""));
    assert_eq!(outcomes[4].0, 1);
}

#[test]
fn an_absent_daemon_has_its_own_exit_code() {
    let temp = tempfile::tempdir().unwrap();
    let (code, out, err) = command(temp.path(), &["list"]);
    assert_eq!((code, out.as_str()), (3, ""));
    let socket = temp.path().join("s");
    let begin = format!("kobune: cannot reach the daemon at {}: ", socket.display());
    assert!(err.starts_with(&begin), "{err}");
    let (code, out, _) = command(temp.path(), &["version"]);
    assert_eq!(code, 0);
    assert!(out.ends_with("daemon not reachable\n"));
}

#[test]
fn a_reader_that_left_is_an_output_error() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let result = run([OsString::from("help")], &mut Gone, &mut Vec::new(), false);
    assert!(matches!(result, Err(CliError::Output(e)) if e.kind() == io::ErrorKind::BrokenPipe));
}
