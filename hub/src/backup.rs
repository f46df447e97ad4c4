//! Backups: what a hub keeps, as lines of JSON that depend on no database.
//!
//! The first line says what it is, the last one how many there are before it and the SHA-256
//! of these: what has not that line, or another digest, is no whole backup and is refused.
//! In between are the store's things and files of the state directory, in any order.

use std::io::{self, BufRead, Read as _, Write};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::moment::Moment;
use crate::store::{Kept, StoreError};

/// Version of the format. A hub reads those up to its own.
const FORMAT: u64 = 1;
/// Longest line in bytes; the hub's own are below 5 MiB.
const LINE_MAX: u64 = 16 << 20;

/// One line. Has keys in it, and so cannot be printed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum Line {
    #[serde(rename_all = "camelCase")]
    HubBackup {
        format: u64,
        /// RFC 3339.
        made: String,
        /// Version of the hub.
        by: String,
    },
    Kept(Kept),
    File {
        name: String,
        text: String,
    },
    End {
        lines: u64,
        sha256: String,
    },
}

/// A part of a backup.
pub(crate) enum Part {
    Kept(Kept),
    /// A file of the state directory, and what is in it.
    File(String, String),
}

/// The backup cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error("reading the backup")]
    Read(#[source] io::Error),
    #[error("writing the backup")]
    Write(#[source] io::Error),
    #[error("reading what is to be backed up")]
    Store(#[from] StoreError),
    #[error("this is no backup of a hub")]
    Foreign,
    #[error("the backup is of format {0}, and this program knows those up to {FORMAT}")]
    Newer(u64),
    #[error("the backup is not whole: it ends after line {0} without the last one")]
    Torn(u64),
    #[error("the backup is damaged: its digest is not the one in its last line")]
    Digest,
    #[error("the backup goes on after line {0}, its last")]
    Longer(u64),
    #[error("line {line} of the backup is not understood")]
    Line {
        line: u64,
        #[source]
        source: serde_json::Error,
    },
}

/// Writes a backup.
pub(crate) struct Writer<W> {
    out: W,
    lines: u64,
    digest: Context,
}

impl<W: Write> Writer<W> {
    /// Begins one.
    ///
    /// # Errors
    /// [`BackupError::Write`], as all of its functions.
    pub(crate) fn new(out: W, now: Moment) -> Result<Self, BackupError> {
        let (lines, digest) = (0, Context::new(&SHA256));
        let mut writer = Self { out, lines, digest };
        writer.line(&Line::HubBackup {
            format: FORMAT,
            made: now.rfc3339(),
            by: env!("CARGO_PKG_VERSION").to_owned(),
        })?;
        Ok(writer)
    }

    pub(crate) fn part(&mut self, part: Part) -> Result<(), BackupError> {
        self.line(&match part {
            Part::Kept(kept) => Line::Kept(kept),
            Part::File(name, text) => Line::File { name, text },
        })
    }

    /// Ends it: only now it is whole.
    pub(crate) fn end(mut self) -> Result<W, BackupError> {
        let (lines, sha256) = (self.lines, hex(self.digest.clone()));
        self.line(&Line::End { lines, sha256 })?;
        self.out.flush().map_err(BackupError::Write)?;
        Ok(self.out)
    }

    fn line(&mut self, line: &Line) -> Result<(), BackupError> {
        let bytes = serde_json::to_vec(line).map_err(io::Error::from);
        let mut bytes = bytes.map_err(BackupError::Write)?;
        bytes.push(b'\n');
        self.digest.update(&bytes);
        self.lines += 1;
        self.out.write_all(&bytes).map_err(BackupError::Write)
    }
}

/// Reads the backup `from`, and gives its parts to `take` as they come: what was taken is
/// good for nothing unless this returns without an error.
///
/// # Errors
/// [`BackupError`], or those of `take`.
pub(crate) fn read<E: From<BackupError>>(
    mut from: impl BufRead,
    mut take: impl FnMut(Part) -> Result<(), E>,
) -> Result<(), E> {
    let (mut lines, mut digest) = (0, Context::new(&SHA256));
    loop {
        let so_far = digest.clone();
        let line = next(&mut from, lines, &mut digest)?;
        match (lines, line) {
            (0, Line::HubBackup { format, .. }) if format <= FORMAT => {}
            (0, Line::HubBackup { format, .. }) => return Err(BackupError::Newer(format).into()),
            (0, _) | (_, Line::HubBackup { .. }) => return Err(BackupError::Foreign.into()),
            (_, Line::Kept(kept)) => take(Part::Kept(kept))?,
            (_, Line::File { name, text }) => take(Part::File(name, text))?,
            (_, Line::End { lines: all, sha256 }) => {
                if all != lines || sha256 != hex(so_far) {
                    return Err(BackupError::Digest.into());
                }
                let more = from.fill_buf().map_err(BackupError::Read)?;
                return match more.is_empty() {
                    true => Ok(()),
                    false => Err(BackupError::Longer(lines + 1).into()),
                };
            }
        }
        lines += 1;
    }
}

/// The line after the `before` that were read.
fn next(from: &mut impl BufRead, before: u64, digest: &mut Context) -> Result<Line, BackupError> {
    let mut bytes = Vec::new();
    let mut limited = from.take(LINE_MAX);
    let read = limited.read_until(b'\n', &mut bytes);
    read.map_err(BackupError::Read)?;
    digest.update(&bytes);
    match (serde_json::from_slice(&bytes), bytes.last()) {
        (Ok(line), Some(b'\n')) => Ok(line),
        // Whatever it is, it is none from its first line on.
        (_, _) if before == 0 => Err(BackupError::Foreign),
        (Err(source), Some(b'\n')) => Err(BackupError::Line {
            line: before + 1,
            source,
        }),
        (_, _) => Err(BackupError::Torn(before)),
    }
}

fn hex(digest: Context) -> String {
    let digest = digest.finish();
    let bytes = digest.as_ref().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
