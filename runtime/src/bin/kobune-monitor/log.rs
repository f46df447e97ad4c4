//! The container's log on disk: CRI log lines, rotated by size.
//!
//! `2026-01-02T03:04:05.678901234Z stdout F message`, as Kubernetes writes them: `F` ends a
//! line, `P` is a part that the next record of the same stream continues. Output is
//! written as it comes, so a monitor that is killed has lost nothing it had read.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use kobune_runtime::{LogOptions, Timestamp};

/// Bytes read from a pipe at a time, a quarter of a pipe's default capacity.
pub(crate) const BUFFER: usize = 16 << 10;

/// Where output came from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// The log of one container.
pub(crate) struct Log {
    dir: PathBuf,
    options: LogOptions,
    file: Option<File>,
    size: u64,
    /// Whether the last record of stdout, stderr was a part.
    partial: [bool; 2],
    /// Lines that were appended, whole ones alone.
    lines: u64,
    /// Bytes that could not be written since the last that could.
    lost: u64,
    /// Records on their way to the file.
    text: String,
    bytes: Vec<u8>,
}

impl Log {
    /// Continues the log in `dir`. A log that cannot be opened is tried again with every write.
    pub(crate) fn open(dir: PathBuf, options: LogOptions) -> Self {
        let mut log = Self {
            dir,
            options,
            file: None,
            size: 0,
            partial: [false; 2],
            lines: 0,
            lost: 0,
            text: String::with_capacity(128),
            bytes: Vec::with_capacity(2 * BUFFER),
        };
        log.reopen();
        if log.is_torn() {
            // A power cut, or the end of an earlier monitor, within a record.
            log.bytes.push(b'\n');
            log.flush();
        }
        log
    }

    /// Whether the file ends within a line.
    fn is_torn(&self) -> bool {
        let Some(at) = self.size.checked_sub(1) else {
            return false;
        };
        let mut last = [b'\n'];
        let file = File::open(self.dir.join("log"));
        let read = file.and_then(|file| file.read_exact_at(&mut last, at));
        read.is_ok() && last != [b'\n']
    }

    /// Appends what `stream` said at `now`.
    pub(crate) fn append(&mut self, stream: Stream, output: &[u8], now: Timestamp) {
        self.text.clear();
        let name = if stream == Stream::Stdout {
            "stdout"
        } else {
            "stderr"
        };
        let _ = write!(self.text, "{now} {name} ");
        for line in output.split_inclusive(|&byte| byte == b'\n') {
            let (tag, line) = match line.strip_suffix(b"\n") {
                Some(line) => (b"F ", line),
                None => (b"P ", line),
            };
            self.bytes.extend_from_slice(self.text.as_bytes());
            self.bytes.extend_from_slice(tag);
            self.bytes.extend_from_slice(line);
            self.bytes.push(b'\n');
            self.partial[stream as usize] = tag == b"P ";
            self.lines += u64::from(tag == b"F ");
            if self.bytes.len() >= BUFFER {
                self.flush();
            }
        }
        self.flush();
    }

    /// How many lines were appended.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    /// Ends a line that the stream left open.
    pub(crate) fn finish(&mut self, stream: Stream) {
        if self.partial[stream as usize] {
            self.append(stream, b"\n", Timestamp::now());
        }
    }

    /// Writes the collected records; what does not fit on the disk is counted as lost.
    fn flush(&mut self) {
        if self.size > 0 && self.size + self.bytes.len() as u64 > self.options.max_size {
            self.rotate();
        }
        if self.file.is_none() {
            self.reopen();
        }
        let mut records = std::mem::take(&mut self.bytes);
        let written = if self.report_loss() {
            self.write(&records)
        } else {
            0
        };
        self.lost += (records.len() - written) as u64;
        records.clear();
        self.bytes = records;
    }

    /// Writes as much of `bytes` as the disk takes; how much that was.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let Some(file) = &mut self.file else {
            return 0;
        };
        let mut written = 0;
        while written < bytes.len() {
            match file.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.size += written as u64;
        written
    }

    /// Says, on a line of its own, how much is missing at this place; `false` where the
    /// disk does not take even that.
    fn report_loss(&mut self) -> bool {
        if self.lost == 0 {
            return true;
        }
        // The write that failed may have left half a record behind: end its line first.
        let line = format!(
            "\n{} stderr F kobune: {} bytes of log lost here, the disk did not take them\n",
            Timestamp::now(),
            self.lost
        );
        let told = self.write(line.as_bytes()) == line.len();
        if told {
            self.lines += 1;
            self.lost = 0;
        }
        told
    }

    /// `log` becomes `log.1`, `log.1` becomes `log.2`, and the oldest goes.
    fn rotate(&mut self) {
        let numbered = |number: u32| self.dir.join(format!("log.{number}"));
        let oldest = self.options.max_files.saturating_sub(1);
        if oldest == 0 {
            let _ = fs::remove_file(self.dir.join("log"));
        } else {
            for number in (1..oldest).rev() {
                let _ = fs::rename(numbered(number), numbered(number + 1));
            }
            let _ = fs::rename(self.dir.join("log"), numbered(1));
        }
        self.file = None;
        self.reopen();
    }

    fn reopen(&mut self) {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.dir.join("log"));
        self.file = file.ok();
        self.size = self
            .file
            .as_ref()
            .and_then(|f| f.metadata().ok())
            .map_or(0, |m| m.len());
    }
}

#[cfg(test)]
mod tests;
