//! The daemon's log on standard error, in the journal's words where that is the journal.

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogLevel;

/// Logs from `level` on.
pub(crate) fn to_stderr(level: LogLevel) {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false);
    // Fails where a test has set a subscriber before, which then stays.
    let _ = match is_journal() {
        true => log.without_time().with_writer(Journal).try_init(),
        false => log.with_writer(io::stderr).try_init(),
    };
}

/// Whether standard error is the stream that systemd names in `JOURNAL_STREAM`.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let error = std::fs::metadata("/proc/self/fd/2");
    error.is_ok_and(|error| stream == format!("{}:{}", error.dev(), error.ino()))
}

/// Begins each message with its priority, as `sd-daemon(3)` has it.
#[derive(Debug, Clone, Copy)]
struct Journal;

/// A message of some priority.
#[derive(Debug)]
struct Message {
    prefix: &'static str,
}

impl<'a> MakeWriter<'a> for Journal {
    type Writer = Message;

    fn make_writer(&'a self) -> Message {
        Message { prefix: "<6>" }
    }

    fn make_writer_for(&'a self, message: &Metadata<'_>) -> Message {
        let prefix = match *message.level() {
            Level::ERROR => "<3>",
            Level::WARN => "<4>",
            Level::INFO => "<6>",
            _ => "<7>",
        };
        Message { prefix }
    }
}

impl Write for Message {
    /// `text` is a whole message.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let line = [self.prefix.as_bytes(), text].concat();
        io::stderr().write_all(&line)?;
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
