use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use kobune_runtime::log::parse_line;
use tempfile::tempdir;

use super::*;

fn options(max_size: u64, max_files: u32) -> LogOptions {
    LogOptions {
        max_size,
        max_files,
    }
}

fn messages(path: &Path) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    let lines = text.split(|&byte| byte == b'\n');
    lines
        .filter_map(parse_line)
        .map(|line| String::from_utf8_lossy(line.message).into_owned())
        .collect()
}

fn say(log: &mut Log, text: &str) {
    log.append(Stream::Stdout, text.as_bytes(), Timestamp::now());
}

#[test]
fn a_record_torn_by_a_power_cut_does_not_swallow_the_next() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("log");
    for (torn, ends) in [("", ""), ("2026-01-02T03:04:0", "\n"), ("whole\n", "")] {
        fs::write(&path, torn).unwrap();
        say(
            &mut Log::open(dir.path().into(), options(1 << 20, 2)),
            "a\n",
        );
        let text = fs::read_to_string(&path).unwrap();
        let rest = text.strip_prefix(&format!("{torn}{ends}20"));
        assert!(rest.is_some(), "{torn:?} became {text:?}");
        assert_eq!(messages(&path), ["a"]);
    }
}

#[test]
fn rotation_keeps_the_number_and_size_of_files() {
    for max_files in [1, 2, 4] {
        let dir = tempdir().unwrap();
        let mut log = Log::open(dir.path().into(), options(2000, max_files));
        for number in 0..1000 {
            say(&mut log, &format!("line {number}\n"));
        }
        let sizes: Vec<u64> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len(), max_files as usize);
        assert!(sizes.iter().all(|size| *size <= 2000), "{sizes:?}");
        let last = messages(&dir.path().join("log"));
        assert_eq!(last.last().unwrap(), "line 999");
    }
}

#[test]
fn a_disk_that_takes_nothing_costs_lines_and_the_log_says_so() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("log");
    symlink("/dev/full", &path).unwrap();
    let mut log = Log::open(dir.path().into(), options(1 << 20, 2));
    say(&mut log, "lost\n");
    say(&mut log, "lost too\n");
    assert!(log.lost > 0);
    fs::remove_file(&path).unwrap();
    log.reopen();
    say(&mut log, "kept\n");
    let messages = messages(&path);
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(messages[0].contains("bytes of log lost here"));
    assert_eq!(messages[1], "kept");
    assert_eq!(log.lost, 0);
}

#[test]
fn a_line_in_parts_is_ended_when_the_stream_ends() {
    let dir = tempdir().unwrap();
    let mut log = Log::open(dir.path().into(), options(1 << 20, 2));
    say(&mut log, "no line feed");
    log.finish(Stream::Stderr);
    log.finish(Stream::Stdout);
    log.finish(Stream::Stdout);
    assert_eq!(messages(&dir.path().join("log")), ["no line feed", ""]);
}
