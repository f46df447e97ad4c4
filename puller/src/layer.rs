//! One layer, in one pass: bytes from the socket are hashed, decompressed, hashed again and unpacked
//! while the next ones arrive. No compressed byte reaches the disk.
//!
//! ```text
//! Body (async) --bounded channel--> Input --> gunzip --> Hashed --> unpack --> staging directory
//!                                   digest, size         diff_id               commit by rename
//! ```

use std::collections::BTreeSet;
use std::io::{self, BufRead, Read};
use std::path::PathBuf;

use flate2::bufread::MultiGzDecoder;
use oci_spec::image::Digest;
use tokio::sync::{mpsc, watch};

use crate::digest::{Hasher, VerifyError};
use crate::error::PullError;
use crate::manifest::{Compression, Layer};
use crate::progress::{LayerProgress, LayerState, ProgressSink};
use crate::registry::{Body, Session};
use crate::store::{Staging, Store, StoreError};
use crate::unpack::{self, Resolver, UnpackError};

/// Pieces between socket and decoder: some hundred kilobytes with the client's buffers.
const IN_FLIGHT: usize = 4;
/// Longest archive in a layer; a gzip stream can be a thousand times smaller.
const MAX_ARCHIVE: u64 = 64 << 30;

/// A part of a compressed layer.
type Bytes = Box<dyn AsRef<[u8]> + Send>;

/// What the sender says.
enum Piece {
    Data(Bytes),
    /// All bytes came. Without it, a closed channel means that they did not.
    End,
}

/// Directories a layer uses without listing them.
type Implied = BTreeSet<Vec<u8>>;

/// Why unpacking stopped.
enum Failure {
    /// The sender gave up; it knows why.
    Abandoned,
    Verify(VerifyError),
    Unpack(UnpackError),
    Store(StoreError),
}

/// The receiving end: compressed bytes, hashed and counted as they are taken from the channel.
struct Input {
    pieces: mpsc::Receiver<Piece>,
    current: Option<Bytes>,
    position: usize,
    hasher: Hasher,
    received: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
    Abandoned,
}

/// Hashes what is read through it, and refuses endless archives.
struct Hashed<R> {
    inner: R,
    hasher: Hasher,
    left: u64,
}

/// Fetches, verifies and unpacks `layer`, and gives it its name in the store. When `stop` turns
/// true it gives up. On any error nothing of the layer is left.
pub(crate) async fn fetch(
    session: &Session<'_>,
    store: &Store,
    layer: &Layer,
    progress: &dyn ProgressSink,
    stop: watch::Receiver<bool>,
) -> Result<Option<PathBuf>, PullError> {
    let (sender, pieces) = mpsc::channel(IN_FLIGHT);
    let worker = tokio::task::spawn_blocking({
        let (store, layer) = (store.clone(), layer.clone());
        move || receive(&store, &layer, pieces)
    });
    let mut body = Body::layer(session, &layer.digest, layer.size);
    let sent = send(&mut body, layer, sender, progress, stop).await;
    let unpacked = match worker.await {
        Ok(unpacked) => unpacked,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    let reference = session.reference.clone();
    match (sent, unpacked) {
        (Err(error), _) => Err(error),
        (Ok(()), Ok(path)) => Ok(Some(path)),
        (Ok(()), Err(Failure::Abandoned)) => Ok(None),
        (Ok(()), Err(Failure::Verify(source))) => Err(session.unverified(body.subject(), source)),
        (Ok(()), Err(Failure::Store(source))) => Err(PullError::Store { reference, source }),
        (Ok(()), Err(Failure::Unpack(source))) => Err(PullError::Unpack {
            reference,
            layer: layer.digest.clone(),
            source,
        }),
    }
}

/// Moves the body into the channel, until its end, until the receiver wants no more, or until told
/// to stop.
async fn send(
    body: &mut Body<'_>,
    layer: &Layer,
    sender: mpsc::Sender<Piece>,
    progress: &dyn ProgressSink,
    mut stop: watch::Receiver<bool>,
) -> Result<(), PullError> {
    let tell = |done, state| {
        progress.update(&LayerProgress {
            layer: layer.digest.clone(),
            done,
            total: layer.size,
            state,
        });
    };
    tell(0, LayerState::Downloading);
    loop {
        let chunk = tokio::select! {
            chunk = body.chunk() => chunk?,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        let Some(chunk) = chunk else {
            tell(layer.size, LayerState::Finishing);
            // A receiver that is gone says why itself.
            let _ = sender.send(Piece::End).await;
            return Ok(());
        };
        if sender.send(Piece::Data(Box::new(chunk))).await.is_err() {
            return Ok(());
        }
        tell(body.received(), LayerState::Downloading);
    }
}

/// Blocking: unpacks what comes through the channel and commits it.
fn receive(
    store: &Store,
    layer: &Layer,
    pieces: mpsc::Receiver<Piece>,
) -> Result<PathBuf, Failure> {
    let staging = store.stage().map_err(Failure::Store)?;
    let mut input = Input::new(layer, pieces);
    let unpacked = match layer.compression {
        Compression::Gzip => write(MultiGzDecoder::new(&mut input), &staging, layer),
        Compression::None => write(&mut input, &staging, layer),
    };
    // The disk's fault is final. The archive's may come from bytes that were never the layer's, which
    // is better said: then the digest differs, or the size.
    if let Err(error) = &unpacked
        && !error.is_content()
        && input.state != State::Abandoned
    {
        return unpacked.map(|_| PathBuf::new()).map_err(Failure::Unpack);
    }
    input.verify(layer)?;
    let (diff_id, implied) = unpacked.map_err(Failure::Unpack)?;
    if diff_id != layer.diff_id {
        return Err(Failure::Verify(VerifyError::DiffId {
            expected: layer.diff_id.clone(),
            actual: diff_id,
        }));
    }
    staging
        .commit(&layer.diff_id, &implied)
        .map_err(Failure::Store)
}

/// Unpacks an archive and reads on to the end of its stream; gives its digest.
fn write(
    archive: impl Read,
    staging: &Staging,
    layer: &Layer,
) -> Result<(Digest, Implied), UnpackError> {
    let mut archive = Hashed {
        inner: archive,
        hasher: hasher(&layer.diff_id),
        left: MAX_ARCHIVE,
    };
    let implied = unpack::unpack(&mut archive, staging.path(), Resolver::probe())?;
    // Padding behind the last entry is part of the digest.
    io::copy(&mut archive, &mut io::sink())
        .map_err(|source| UnpackError::Read { entries: 0, source })?;
    Ok((archive.hasher.finish(), implied))
}

fn hasher(digest: &Digest) -> Hasher {
    Hasher::new(digest.algorithm()).expect("invariant: layers with other digests were refused")
}

impl Input {
    fn new(layer: &Layer, pieces: mpsc::Receiver<Piece>) -> Self {
        Self {
            pieces,
            current: None,
            position: 0,
            hasher: hasher(&layer.digest),
            received: 0,
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
        match self.pieces.blocking_recv() {
            Some(Piece::Data(bytes)) => {
                let data = (*bytes).as_ref();
                self.hasher.update(data);
                self.received += data.len() as u64;
                self.current = Some(bytes);
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

    fn buffered(&self) -> &[u8] {
        match &self.current {
            Some(bytes) => &(**bytes).as_ref()[self.position..],
            None => &[],
        }
    }

    /// Receives what is left and holds all of it against the manifest.
    fn verify(mut self, layer: &Layer) -> Result<(), Failure> {
        while self.advance().map_err(|_| Failure::Abandoned)? {}
        let actual = self.hasher.finish();
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

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("archive exceeds {MAX_ARCHIVE} bytes"),
            )
        })?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}
