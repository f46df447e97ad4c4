use std::fs::{self, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::*;

/// What the monitor does to the directory, as its contract says.
struct Writer {
    dir: PathBuf,
    files: u32,
}

impl Writer {
    fn write(&self, text: &str) {
        let path = self.dir.join("log");
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn message(&self, second: u64, text: &str) {
        self.write(&record(second, "stdout F", text));
    }

    fn rotate(&self) {
        let name = |n| match n {
            0 => self.dir.join("log"),
            n => self.dir.join(format!("log.{n}")),
        };
        for n in (0..self.files).rev() {
            let _ = fs::rename(name(n), name(n + 1));
        }
        fs::write(name(0), "").unwrap();
    }
}

fn record(second: u64, kind: &str, text: &str) -> String {
    format!("{} {kind} {text}\n", Timestamp::from_unix(second, 0))
}

fn writer(files: u32) -> (tempfile::TempDir, Writer) {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().to_owned();
    (temp, Writer { dir, files })
}

fn shown(dir: &Path, query: &LogQuery) -> Vec<String> {
    let mut all = Vec::new();
    read(dir, query, &mut |line| {
        all.push(String::from_utf8_lossy(line.message).into_owned());
        ControlFlow::Continue(())
    })
    .unwrap();
    all
}

fn tail(n: usize) -> LogQuery {
    LogQuery {
        tail: Some(n),
        ..LogQuery::default()
    }
}

#[test]
fn records_parse() {
    let at = Timestamp::from_unix(1_767_323_045, 678_901_234);
    for (text, stream, partial, message) in [
        (
            "stdout F hello world",
            LogStream::Stdout,
            false,
            "hello world",
        ),
        ("stderr P  x ", LogStream::Stderr, true, " x "),
        ("stdout F ", LogStream::Stdout, false, ""),
    ] {
        let line = format!("\0\0{at} {text}");
        let parsed = parse_line(line.as_bytes()).unwrap();
        let expected = LogLine {
            timestamp: at,
            stream,
            partial,
            message: message.as_bytes(),
        };
        assert_eq!(parsed, expected);
    }
    for bad in [
        "",
        "stdout F x",
        "2026-01-02T03:04:05Z stdin F x",
        "2026-01-02T03:04:05Z stdout X x",
        "2026-01-02T03:04:05Z stdout",
    ] {
        assert_eq!(parse_line(bad.as_bytes()), None, "{bad:?}");
    }
}

#[test]
fn a_missing_log_is_empty() {
    let (temp, _) = writer(3);
    assert!(shown(&temp.path().join("none"), &LogQuery::default()).is_empty());
    assert!(shown(temp.path(), &tail(3)).is_empty());
}

#[test]
fn tail_since_and_until_select_across_files() {
    let (temp, log) = writer(5);
    for second in 0..9 {
        log.message(second, &second.to_string());
        if second % 3 == 2 {
            log.rotate();
        }
    }
    let at = |s| Some(Timestamp::from_unix(s, 0));
    for (tail, since, until, expected) in [
        (None, None, None, "012345678"),
        (Some(0), None, None, ""),
        (Some(1), None, None, "8"),
        (Some(4), None, None, "5678"),
        (Some(99), None, None, "012345678"),
        (None, at(4), None, "45678"),
        (None, None, at(4), "01234"),
        (Some(2), None, at(4), "34"),
        (Some(2), at(4), at(6), "56"),
        (Some(9), at(7), None, "78"),
        (Some(2), at(20), None, ""),
    ] {
        let query = LogQuery { tail, since, until };
        assert_eq!(shown(temp.path(), &query).concat(), expected, "{query:?}");
    }
}

#[test]
fn tail_finds_line_begins_wherever_blocks_end() {
    // Lengths around the block and header sizes, so that blocks end before, in and after
    // line feeds and headers.
    for length in [
        0,
        1,
        63,
        64,
        700,
        4051,
        65_535 - 42,
        65_536 - 42,
        65_537 - 42,
        200_000,
    ] {
        let (temp, log) = writer(2);
        for n in 0..40 {
            log.message(n, &format!("{n:02}{}", "x".repeat(length)));
        }
        for wanted in [1, 3, 39] {
            let firsts: Vec<_> = shown(temp.path(), &tail(wanted))
                .iter()
                .map(|text| text[..2].parse::<usize>().unwrap())
                .collect();
            assert_eq!(firsts, Vec::from_iter(40 - wanted..40), "length {length}");
        }
    }
}

#[test]
fn a_message_in_pieces_counts_once() {
    let (temp, log) = writer(3);
    log.message(1, "one");
    log.write(&record(2, "stdout P", "two-"));
    log.rotate();
    log.write(&record(3, "stdout P", "and-"));
    log.write(&record(4, "stdout F", "half"));
    assert_eq!(shown(temp.path(), &tail(1)), ["two-", "and-", "half"]);
    assert_eq!(
        shown(temp.path(), &tail(2)),
        ["one", "two-", "and-", "half"]
    );
}

#[test]
fn a_torn_line_is_passed_over() {
    let (temp, log) = writer(3);
    log.message(1, "one");
    log.write("\0\0\0\0");
    log.message(2, "two");
    log.write("2026-01-02T03:0\n");
    log.message(3, "three");
    log.write(&"y".repeat(MAX_LINE * 2));
    log.write("\n");
    log.message(4, "four");
    log.write(record(5, "stdout F", "torn").trim_end());
    assert_eq!(
        shown(temp.path(), &LogQuery::default()),
        ["one", "two", "three", "four"]
    );
    assert_eq!(shown(temp.path(), &tail(2)), ["three", "four"]);
    // What follows in the next file is not touched by it.
    log.rotate();
    log.message(6, "six");
    assert_eq!(shown(temp.path(), &tail(2)), ["four", "six"]);
}

#[test]
fn follow_goes_on_behind_a_break_and_in_the_middle_of_a_line() {
    let (temp, log) = writer(3);
    let mut follow = Follow::open(temp.path(), &tail(0)).unwrap();
    let mut poll = |limit: usize| {
        let mut seen = Vec::new();
        let _ = follow
            .poll(&mut |line| {
                seen.push(String::from_utf8_lossy(line.message).into_owned());
                if seen.len() == limit {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        seen
    };
    assert!(poll(9).is_empty());
    log.message(1, "a");
    log.message(2, "b");
    let (head, end) = ("1970-01-01T00:00:03.000000000Z stdo", "ut F c\n");
    log.write(head);
    assert_eq!(poll(1), ["a"]);
    assert_eq!(poll(9), ["b"]);
    log.write(end);
    log.rotate();
    log.message(4, "d");
    log.rotate();
    log.message(5, "e");
    assert_eq!(poll(9), ["c", "d", "e"]);
    assert!(poll(9).is_empty());
}

#[test]
fn follow_finds_a_log_that_was_removed_and_written_anew() {
    let (temp, log) = writer(3);
    log.message(1, "old");
    let mut follow = Follow::open(temp.path(), &LogQuery::default()).unwrap();
    let mut seen = Vec::new();
    let mut visit = |line: LogLine<'_>| {
        seen.push(String::from_utf8_lossy(line.message).into_owned());
        ControlFlow::Continue(())
    };
    assert!(follow.poll(&mut visit).unwrap().is_continue());
    fs::remove_file(temp.path().join("log")).unwrap();
    assert!(follow.poll(&mut visit).unwrap().is_continue());
    log.message(2, "new");
    assert!(follow.poll(&mut visit).unwrap().is_continue());
    assert_eq!(seen, ["old", "new"]);
}

#[test]
fn follow_shows_every_line_once_while_a_writer_rotates() {
    const LINES: u64 = 10_000;
    let (temp, log) = writer(40);
    // Lines that the reader has seen; the writer stays so close that no file is removed
    // before it was read.
    let seen = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..LINES {
                while n > seen.load(Ordering::SeqCst) + 60 {
                    std::thread::yield_now();
                }
                log.message(n, &n.to_string());
                if n % 3 == 0 {
                    log.rotate();
                }
            }
        });
        let mut follow = Follow::open(temp.path(), &LogQuery::default()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while seen.load(Ordering::SeqCst) < LINES {
            let _ = follow
                .poll(&mut |line| {
                    let text = std::str::from_utf8(line.message).unwrap();
                    let expected = seen.fetch_add(1, Ordering::SeqCst);
                    // Not a panic in here: the writer would wait for ever.
                    if text.parse() != Ok(expected) {
                        seen.store(u64::MAX - 60, Ordering::SeqCst);
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                })
                .unwrap();
            if Instant::now() > deadline {
                seen.store(u64::MAX - 60, Ordering::SeqCst);
            }
        }
    });
    assert_eq!(
        seen.load(Ordering::SeqCst),
        LINES,
        "a line was lost or came twice"
    );
}
