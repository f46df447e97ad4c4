//! Goes on reading a log as it grows and rotates.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::files::{self, LogFile};
use super::lines::Lines;
use super::{LogError, LogLine, LogQuery, tail};

/// A reader that remembers where it stopped. Every line is visited exactly once, across
/// any number of rotations between two polls, unless the monitor removed a file that no
/// poll has seen yet.
#[derive(Debug)]
pub struct Follow {
    dir: PathBuf,
    query: LogQuery,
    /// Where reading stopped.
    current: Option<Lines>,
    /// Files known to be newer than the current one, oldest first. They are held open, so
    /// they are read even if the monitor removes them.
    newer: VecDeque<LogFile>,
}

impl Follow {
    /// Positions at the begin of what `query` asks for; reads nothing yet. The log may
    /// still be missing: it is found when it appears.
    ///
    /// # Errors
    /// A file of the log that cannot be opened or read.
    pub fn open(dir: &Path, query: &LogQuery) -> Result<Self, LogError> {
        let files = files::open(dir)?;
        let start = tail::start(&files, query)?;
        let mut newer: VecDeque<LogFile> = files.into_iter().skip(start.file).collect();
        let current = newer.pop_front().map(|file| Lines::new(file, start.offset));
        Ok(Self {
            dir: dir.to_owned(),
            query: *query,
            current,
            newer,
        })
    }

    /// Visits every line that was written since the last poll, until `visit` breaks; the
    /// next poll goes on behind that line. Does not wait for more.
    ///
    /// # Errors
    /// A file that cannot be opened or read; the next poll tries again where this one stopped.
    pub fn poll(
        &mut self,
        visit: &mut dyn FnMut(LogLine<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, LogError> {
        loop {
            if self.drain(visit)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            if !self.find_newer()? {
                return Ok(ControlFlow::Continue(()));
            }
            // A newer file exists, so the monitor has finished this one; what it wrote
            // between the read above and the rename is still to be read.
            if self.drain(visit)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            self.current = self.newer.pop_front().map(|file| Lines::new(file, 0));
        }
    }

    fn drain(
        &mut self,
        visit: &mut dyn FnMut(LogLine<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, LogError> {
        let Some(lines) = &mut self.current else {
            return Ok(ControlFlow::Continue(()));
        };
        let query = &self.query;
        lines.drain(u64::MAX, &mut |line| query.show(line, visit))
    }

    /// Whether there is a file to read after the current one.
    fn find_newer(&mut self) -> Result<bool, LogError> {
        if !self.newer.is_empty() {
            return Ok(true);
        }
        let Some(Lines { file, .. }) = &self.current else {
            self.newer = files::open(&self.dir)?.into();
            return Ok(!self.newer.is_empty());
        };
        if files::is_current(&self.dir, file) {
            return Ok(false);
        }
        let mut found = files::open(&self.dir)?;
        if let Some(at) = found.iter().position(|other| other.id == file.id) {
            found.drain(..=at);
        } else if !file.is_removed() {
            // It has a name, only not where we looked: a rename was under way.
            return Ok(false);
        }
        self.newer = found.into();
        Ok(!self.newer.is_empty())
    }
}
