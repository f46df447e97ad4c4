//! Reads a container's log: what its processes wrote, while its monitor goes on writing.
//!
//! On disk a log is a directory with the current file `log` and rotated files `log.1`
//! (the newest of them), `log.2` and so on; the monitor renames upwards from the highest
//! number, then creates a new `log`. Each line is one record in the format of the
//! Kubernetes container runtime interface:
//! `2026-01-02T03:04:05.678901234Z stdout F message`. This module never writes.
//!
//! A record counts once its line feed is on disk. What does not parse (a line that a power
//! cut tore) is passed over, and so is a line longer than [`MAX_LINE`].

mod files;
mod follow;
mod lines;
mod tail;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use crate::Timestamp;
pub use follow::Follow;

/// Longest line in bytes that is read; memory use is bounded by it. The monitor cuts what
/// a module writes into pieces far below.
pub const MAX_LINE: usize = 256 << 10;

/// Which lines of a log to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Only the last so many messages of those that the other fields allow; all where
    /// absent. A message in pieces counts once, with the pieces that stand directly
    /// before its last.
    pub tail: Option<usize>,
    /// Only lines written at or after this moment.
    pub since: Option<Timestamp>,
    /// Only lines written at or before this moment.
    pub until: Option<Timestamp>,
}

/// One record of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// When the monitor read it.
    pub timestamp: Timestamp,
    /// Where the module wrote it.
    pub stream: LogStream,
    /// The message continues in the next line of the same stream.
    pub partial: bool,
    /// What the module wrote, without line feed; any bytes.
    pub message: &'a [u8],
}

/// Output of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum LogStream {
    Stdout,
    Stderr,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file of the log cannot be opened; a missing one is no error.
    #[error("cannot open log file {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the log cannot be read.
    #[error("cannot read log file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Calls `visit` with each line of the log in `dir` that `query` asks for, oldest first,
/// until it breaks. Blocks; ends at what was on disk when it began, however fast the
/// module writes. A missing directory or log is an empty one.
///
/// # Errors
/// A file that cannot be opened or read; lines before it have been visited.
pub fn read(
    dir: &Path,
    query: &LogQuery,
    visit: &mut dyn FnMut(LogLine<'_>) -> ControlFlow<()>,
) -> Result<(), LogError> {
    let files = files::open(dir)?;
    let start = tail::start(&files, query)?;
    for (at, file) in files.into_iter().enumerate().skip(start.file) {
        let offset = if at == start.file { start.offset } else { 0 };
        let mut lines = lines::Lines::new(file, offset);
        let end = lines.len()?;
        if lines
            .drain(end, &mut |line| query.show(line, visit))?
            .is_break()
        {
            break;
        }
    }
    Ok(())
}

/// Writes the files of the log in `dir` to `out`, oldest first, as they are now. The last line
/// may be there in part.
///
/// # Errors
/// A file that cannot be opened, read or copied.
pub(crate) fn copy(dir: &Path, out: &mut impl io::Write) -> Result<(), LogError> {
    for mut file in files::open(dir)? {
        let len = file.len()?;
        let copied = io::copy(&mut io::Read::take(&mut file.file, len), out);
        copied.map_err(|source| file.read_error(source))?;
    }
    Ok(())
}

/// Parses a line without its line feed; `None` for what is no record.
#[must_use]
pub fn parse_line(line: &[u8]) -> Option<LogLine<'_>> {
    // File systems may leave zeros where a power cut caught an append.
    let zeros = line.iter().take_while(|&&b| b == 0).count();
    let mut fields = line[zeros..].splitn(4, |&b| b == b' ');
    let timestamp = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let stream = match fields.next()? {
        b"stdout" => LogStream::Stdout,
        b"stderr" => LogStream::Stderr,
        _ => return None,
    };
    let partial = match fields.next()? {
        b"F" => false,
        b"P" => true,
        _ => return None,
    };
    Some(LogLine {
        timestamp,
        stream,
        partial,
        message: fields.next()?,
    })
}

impl LogQuery {
    fn allows(&self, at: Timestamp) -> bool {
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at <= until)
    }

    fn show(
        &self,
        line: &[u8],
        visit: &mut dyn FnMut(LogLine<'_>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        match parse_line(line) {
            Some(parsed) if self.allows(parsed.timestamp) => visit(parsed),
            _ => ControlFlow::Continue(()),
        }
    }
}

impl LogStream {
    /// As the log writes it: `stdout` or `stderr`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

#[cfg(test)]
mod tests;
