//! Complete lines of one file, forwards, as they appear.

use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use super::files::LogFile;
use super::{LogError, MAX_LINE};

const BLOCK: usize = 16 << 10;

/// A position in a file that may still grow.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) file: LogFile,
    /// Next byte to read.
    offset: u64,
    /// Begin of a line whose end has not been read yet.
    begun: Vec<u8>,
    /// The line at hand is too long; its bytes are dropped up to its end.
    too_long: bool,
}

impl Lines {
    /// Reads from `offset`, which is the begin of a line.
    pub(super) fn new(file: LogFile, offset: u64) -> Self {
        Self {
            file,
            offset,
            begun: Vec::new(),
            too_long: false,
        }
    }

    pub(super) fn len(&self) -> Result<u64, LogError> {
        self.file.len()
    }

    /// Visits every complete line up to byte `end` of the file. After a break the next
    /// call goes on behind the line that broke.
    pub(super) fn drain(
        &mut self,
        end: u64,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, LogError> {
        let mut block = [0; BLOCK];
        loop {
            let left = end.saturating_sub(self.offset);
            let want = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
            let got = match self.file.file.read_at(&mut block[..want], self.offset) {
                Ok(0) => return Ok(ControlFlow::Continue(())),
                Ok(got) => got,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(self.file.read_error(source)),
            };
            if self.take(&block[..got], visit).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    fn take(
        &mut self,
        mut bytes: &[u8],
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
            let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
            self.offset += end as u64 + 1;
            bytes = rest;
            self.finish(line, visit)?;
        }
        self.offset += bytes.len() as u64;
        self.begin(bytes);
        ControlFlow::Continue(())
    }

    fn finish(
        &mut self,
        rest: &[u8],
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        if self.begun.is_empty() && !self.too_long {
            return visit(rest);
        }
        self.begin(rest);
        let line = std::mem::take(&mut self.begun);
        if std::mem::take(&mut self.too_long) {
            return ControlFlow::Continue(());
        }
        visit(&line)
    }

    fn begin(&mut self, bytes: &[u8]) {
        if self.begun.len() + bytes.len() > MAX_LINE {
            self.too_long = true;
            self.begun = Vec::new();
        }
        if !self.too_long {
            self.begun.extend_from_slice(bytes);
        }
    }
}
