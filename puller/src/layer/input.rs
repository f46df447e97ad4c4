//! The receiving end of a transfer: what came before, from disk, then what comes through the channel.

use std::io::{self, BufRead, Read};
use std::ops::Range;

use tokio::sync::mpsc;

use super::{Bytes, Failure, PIECE, Piece, hasher};
use crate::digest::{Hasher, VerifyError};
use crate::manifest::Layer;
use crate::store::{Spool, StoreError};

/// The receiving end: compressed bytes, first those on disk from before, then those from the
/// channel, hashed and counted as they are taken.
pub(super) struct Input {
    pieces: mpsc::Receiver<Piece>,
    spool: Option<Spool>,
    /// Bytes on disk that are still to be read.
    kept: u64,
    /// What the disk said when they could not be.
    unread: Option<StoreError>,
    current: Option<Bytes>,
    position: usize,
    hasher: Hasher,
    received: u64,
    /// The layer's table of contents, as far as it came, and where it is.
    table: Option<(Range<u64>, Vec<u8>)>,
    pub(super) state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Ended,
    Abandoned,
}

impl Input {
    pub(super) fn new(layer: &Layer, pieces: mpsc::Receiver<Piece>, spool: Option<Spool>) -> Self {
        Self {
            pieces,
            kept: spool.as_ref().map_or(0, Spool::length),
            spool,
            unread: None,
            current: None,
            position: 0,
            hasher: hasher(&layer.digest),
            received: 0,
            table: layer
                .chunked
                .as_ref()
                .map(|chunked| (chunked.toc.range.clone(), Vec::new())),
            state: State::Open,
        }
    }

    /// Takes the next piece; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        self.current = None;
        self.position = 0;
        match self.state {
            State::Open => {}
            State::Ended => return Ok(false),
            State::Abandoned => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
        if self.kept > 0 {
            return self.replay();
        }
        match self.pieces.blocking_recv() {
            Some(Piece::Data(bytes)) => {
                let appended = self.spool.as_mut().map(|spool| spool.append(&bytes));
                if matches!(appended, Some(Err(_))) {
                    // It is only for another time; a full disk needs the space more.
                    self.drop_spool();
                }
                self.take(bytes);
                Ok(true)
            }
            Some(Piece::End) => {
                self.state = State::Ended;
                Ok(false)
            }
            None => {
                self.state = State::Abandoned;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
    }

    /// Takes the next piece from disk.
    fn replay(&mut self) -> io::Result<bool> {
        let length = usize::try_from(self.kept).map_or(PIECE, |kept| kept.min(PIECE));
        let mut bytes = vec![0; length].into_boxed_slice();
        let spool = self.spool.as_mut();
        let spool = spool.expect("invariant: what was kept is on disk while it is read");
        if let Err(error) = spool.read(&mut bytes) {
            self.unread = Some(error);
            self.state = State::Abandoned;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.kept -= length as u64;
        self.take(bytes);
        Ok(true)
    }

    fn take(&mut self, bytes: Bytes) {
        self.hasher.update(&bytes);
        if let Some((range, table)) = &mut self.table {
            let within = |at: u64| {
                let place = at.saturating_sub(self.received);
                usize::try_from(place).map_or(bytes.len(), |place| place.min(bytes.len()))
            };
            table.extend_from_slice(&bytes[within(range.start)..within(range.end)]);
        }
        self.received += bytes.len() as u64;
        self.current = Some(bytes);
    }

    /// The layer's table of contents, as it is in the blob.
    pub(super) fn table(&self) -> Option<&[u8]> {
        self.table.as_ref().map(|(_, table)| &**table)
    }

    pub(super) fn drop_spool(&mut self) {
        if let Some(spool) = self.spool.take() {
            spool.remove();
        }
    }

    /// Why there is no more, after [`Self::advance`] failed.
    fn broken_off(&mut self) -> Failure {
        self.unread
            .take()
            .map_or(Failure::Abandoned, Failure::Store)
    }

    fn buffered(&self) -> &[u8] {
        match &self.current {
            Some(bytes) => &bytes[self.position..],
            None => &[],
        }
    }

    /// Receives what is left and holds all of it against the manifest.
    pub(super) fn verify(&mut self, layer: &Layer) -> Result<(), Failure> {
        while self.advance().map_err(|_| self.broken_off())? {}
        let hasher = std::mem::replace(&mut self.hasher, hasher(&layer.digest));
        let actual = hasher.finish();
        let source = if self.received < layer.size {
            VerifyError::Truncated {
                expected: layer.size,
                received: self.received,
            }
        } else if actual != layer.digest {
            VerifyError::Digest {
                expected: layer.digest.clone(),
                actual,
            }
        } else {
            return Ok(());
        };
        Err(Failure::Verify(source))
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.buffered().is_empty() && self.advance()? {}
        Ok(self.buffered())
    }

    fn consume(&mut self, count: usize) {
        self.position += count;
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
