//! Finds where the last messages of a log begin, by reading it backwards in blocks.

use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use super::files::LogFile;
use super::{LogError, LogQuery, parse_line};

const BLOCK: usize = 64 << 10;
/// In which the end of the last line mostly is; a monitor spares its memory.
const SHORT: usize = 4 << 10;
/// Enough of a line for its time, stream and tag.
const HEADER: usize = 64;

/// A line's begin: index among the files, oldest first, and byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) file: usize,
    pub(super) offset: u64,
}

/// Where reading begins so that it shows no more than `query.tail` messages; the begin of
/// the log where that is absent or more than there are.
pub(super) fn start(files: &[LogFile], query: &LogQuery) -> Result<Start, LogError> {
    let Some(wanted) = query.tail else {
        return Ok(Start::default());
    };
    let Some(newest) = files.last() else {
        return Ok(Start::default());
    };
    let mut begin = Start {
        file: files.len() - 1,
        offset: complete_len(newest)?,
    };
    if wanted == 0 {
        return Ok(begin);
    }
    let mut found = 0;
    for (at, file) in files.iter().enumerate().rev() {
        let stopped = backwards(file, &mut |offset, header| {
            let Some(line) = parse_line(header) else {
                return ControlFlow::Continue(());
            };
            let ends_message = !line.partial;
            if found == wanted && ends_message {
                return ControlFlow::Break(());
            }
            if query.allows(line.timestamp) {
                found += usize::from(ends_message);
                begin = Start { file: at, offset };
            }
            ControlFlow::Continue(())
        })?;
        if stopped.is_break() {
            break;
        }
    }
    Ok(begin)
}

/// Bytes up to the end of the last complete line.
fn complete_len(file: &LogFile) -> Result<u64, LogError> {
    let mut end = 0;
    let mut block = [0; SHORT];
    let mut stop = file.len()?;
    while stop > 0 {
        let from = stop.saturating_sub(SHORT as u64);
        let bytes = read_range(file, &mut block, from, stop)?;
        if let Some(at) = bytes.iter().rposition(|&b| b == b'\n') {
            end = from + at as u64 + 1;
            break;
        }
        stop = from;
    }
    Ok(end)
}

/// Visits begin and header of every complete line, last first.
fn backwards(
    file: &LogFile,
    visit: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, LogError> {
    let mut block = vec![0; BLOCK + HEADER];
    let mut stop = complete_len(file)?;
    let len = stop;
    while stop > 0 {
        let from = stop.saturating_sub(BLOCK as u64);
        let bytes = read_range(file, &mut block, from, len.min(stop + HEADER as u64))?;
        // The byte before a line is the line feed of the one before it, or the file's begin.
        let span = usize::try_from(stop - from).expect("invariant: at most BLOCK");
        for at in (0..span).rev() {
            let begin = from + at as u64;
            if (at > 0 && bytes.get(at - 1) != Some(&b'\n'))
                || (at == 0 && begin > 0 && !follows_line_feed(file, begin)?)
            {
                continue;
            }
            let rest = bytes.get(at..).unwrap_or_default();
            let header = rest.split(|&b| b == b'\n').next().unwrap_or_default();
            let header = &header[..header.len().min(HEADER)];
            if visit(begin, header).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        stop = from;
    }
    Ok(ControlFlow::Continue(()))
}

fn follows_line_feed(file: &LogFile, at: u64) -> Result<bool, LogError> {
    let mut byte = [0];
    Ok(read_range(file, &mut byte, at - 1, at)? == b"\n")
}

/// The bytes `from..to` of the file as far as it has them; `buffer` holds that many.
fn read_range<'b>(
    file: &LogFile,
    buffer: &'b mut [u8],
    from: u64,
    to: u64,
) -> Result<&'b [u8], LogError> {
    let want = usize::try_from(to - from).expect("invariant: fits the buffer");
    let mut filled = 0;
    while filled < want {
        match file
            .file
            .read_at(&mut buffer[filled..want], from + filled as u64)
        {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(file.read_error(source)),
        }
    }
    Ok(&buffer[..filled])
}
