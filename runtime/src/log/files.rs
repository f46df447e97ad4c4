//! The files of a log while a monitor renames them.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::LogError;

/// Name of the file that the monitor appends to.
const CURRENT: &str = "log";

/// Searches for a log's files that may find a rotation under way. A monitor rotates far
/// more seldom; a log whose current file is missing is searched so often in vain.
const TRIES: u32 = 20;

/// An open file of a log; it stays readable when it is renamed or removed.
#[derive(Debug)]
pub(super) struct LogFile {
    pub(super) file: File,
    /// As it was named when it was opened; for messages.
    pub(super) path: PathBuf,
    pub(super) id: FileId,
}

/// Device and inode: the file's identity for as long as it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

/// Opens every file of the log in `dir`, oldest first.
///
/// Files only move to higher numbers, so looking upwards misses none; one that was renamed
/// in between is seen twice and kept once. While the monitor renames, one number is
/// vacant, so the search ends at the second vacant one. If a whole rotation passed
/// meanwhile, another vacancy may have ended the search too early: it is done again.
pub(super) fn open(dir: &Path) -> Result<Vec<LogFile>, LogError> {
    let mut tries = 0;
    loop {
        let before = current(dir);
        let files = open_numbered(dir)?;
        tries += 1;
        if tries == TRIES || (before.is_some() && before == current(dir)) {
            return Ok(files);
        }
    }
}

fn open_numbered(dir: &Path) -> Result<Vec<LogFile>, LogError> {
    let mut files: Vec<LogFile> = Vec::new();
    files.extend(open_one(dir.join(CURRENT))?);
    let mut vacant = 0;
    for number in 1_u32.. {
        match open_one(dir.join(format!("{CURRENT}.{number}")))? {
            Some(file) if files.iter().any(|known| known.id == file.id) => {}
            Some(file) => files.push(file),
            None if vacant == 1 => break,
            None => vacant += 1,
        }
    }
    files.reverse();
    Ok(files)
}

fn current(dir: &Path) -> Option<FileId> {
    let found = std::fs::metadata(dir.join(CURRENT)).ok()?;
    Some(FileId::of(&found))
}

/// Whether `file` is the one that the monitor appends to now.
pub(super) fn is_current(dir: &Path, file: &LogFile) -> bool {
    current(dir) == Some(file.id)
}

fn open_one(path: PathBuf) -> Result<Option<LogFile>, LogError> {
    let opened = File::open(&path).and_then(|file| {
        let id = FileId::of(&file.metadata()?);
        Ok((file, id))
    });
    match opened {
        Ok((file, id)) => Ok(Some(LogFile { file, path, id })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(LogError::Open { path, source }),
    }
}

impl LogFile {
    /// Whether the file has no name any more.
    pub(super) fn is_removed(&self) -> bool {
        self.file.metadata().is_ok_and(|found| found.nlink() == 0)
    }

    pub(super) fn len(&self) -> Result<u64, LogError> {
        match self.file.metadata() {
            Ok(found) => Ok(found.len()),
            Err(source) => Err(self.read_error(source)),
        }
    }

    pub(super) fn read_error(&self, source: io::Error) -> LogError {
        LogError::Read {
            path: self.path.clone(),
            source,
        }
    }
}

impl FileId {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}
