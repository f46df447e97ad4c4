//! One layer, in one pass: bytes from the socket are hashed, decompressed, hashed again and unpacked
//! while the next ones arrive. No compressed byte reaches the disk.
//!
//! ```text
//! Body (async) --bounded channel--> Input --> decoder --> Hashed --> unpack --> staging directory
//!                                   digest, size         diff_id               commit by rename
//! ```

mod delta;
mod input;

use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use flate2::bufread::MultiGzDecoder;
use oci_spec::image::Digest;
use tokio::sync::{mpsc, watch};

use delta::Delta;
#[cfg(any(test, fuzzing))]
pub(crate) use delta::hostile;
use input::{Input, State};

use crate::digest::{Hasher, VerifyError};
use crate::error::PullError;
use crate::manifest::{Compression, Layer};
use crate::meter::Meter;
use crate::progress::{LayerProgress, LayerState, ProgressSink};
use crate::registry::{Body, Session, Subject};
use crate::store::{Spool, Staging, Store, StoreError};
use crate::unpack::{self, Files, Resolver, UnpackError, Unpacked};

/// Bytes in one piece between socket and decoder. The client hands out its whole read buffer, up to
/// 400 KiB; copied into pieces it is reused at once, instead of one being allocated for each read.
const PIECE: usize = 32 << 10;
/// Pieces between socket and decoder, 256 KiB in all: at 100 Mbit/s what comes in 20 ms.
const IN_FLIGHT: usize = 8;
/// Longest archive in a layer; a gzip stream can be a thousand times smaller.
const MAX_ARCHIVE: u64 = 64 << 30;

/// Largest window of a zstd stream, 8 MiB: what RFC 8878, 3.1.1.1.2, recommends that decoders support
/// and `zstd -19` uses; the usual levels of image builders use 2 MiB. The decoder keeps one in memory.
const MAX_WINDOW_LOG: u32 = 23;

/// A part of a compressed layer.
type Bytes = Box<[u8]>;

/// What the sender says.
enum Piece {
    Data(Bytes),
    /// All bytes came. Without it, a closed channel means that they did not.
    End,
}

/// Why unpacking stopped.
pub(crate) enum Failure {
    /// The sender gave up; it knows why.
    Abandoned,
    Verify(VerifyError),
    Unpack(UnpackError),
    Store(StoreError),
}

/// One layer on its way into the store.
pub(crate) struct Transfer<'a> {
    pub(crate) session: &'a Session<'a>,
    pub(crate) store: &'a Store,
    pub(crate) layer: &'a Layer,
    pub(crate) progress: &'a dyn ProgressSink,
    /// From which size on the compressed bytes are kept on disk meanwhile.
    pub(crate) spool_from: Option<u64>,
    pub(crate) meter: &'a Meter,
    /// Whether it is part of a large pull.
    pub(crate) is_large: bool,
}

/// A layer in a file.
pub(crate) struct LocalLayer<'a> {
    /// Of the file, if it is known.
    pub(crate) digest: Option<&'a Digest>,
    pub(crate) diff_id: &'a Digest,
    pub(crate) compression: Compression,
}

/// Hashes what is read through it, and refuses endless archives.
struct Hashed<R> {
    inner: R,
    hasher: Hasher,
    left: u64,
}

impl Transfer<'_> {
    /// Fetches what is missing of the layer, verifies and unpacks it, and gives it its name in the
    /// store. When `stop`
    /// turns true, or the meter wants a pause, it gives up, which is no error. What is left of a
    /// layer that broke off is its spooled beginning, if anything.
    pub(crate) async fn run(
        &self,
        stop: &watch::Receiver<bool>,
    ) -> Result<Option<PathBuf>, PullError> {
        if let Some(chunked) = &self.layer.chunked {
            match self.delta(chunked, stop).await? {
                Delta::Done(path) => return Ok(Some(path)),
                Delta::Stopped => return Ok(None),
                Delta::Whole(doubt) => {
                    if let Some(doubt) = doubt {
                        self.progress.whole(&self.layer.digest, &doubt);
                    }
                }
            }
        }
        let spool = self.spool().await?;
        let resumed = spool.as_ref().is_some_and(|spool| spool.length() > 0);
        match self.attempt(spool, stop).await {
            // The beginning on disk may be what is wrong; it is gone now.
            Err(PullError::Verify { .. }) if resumed => {
                let spool = self.spool().await?;
                self.attempt(spool, stop).await
            }
            other => other,
        }
    }

    async fn spool(&self) -> Result<Option<Spool>, PullError> {
        if self.spool_from.is_none_or(|from| self.layer.size < from) {
            return Ok(None);
        }
        let (store, layer) = (self.store.clone(), self.layer.clone());
        let opened = joined(tokio::task::spawn_blocking(move || {
            store.spool(&layer.digest, layer.size)
        }));
        let reference = self.session.reference;
        let failed = |source| PullError::Store {
            reference: reference.clone(),
            source,
        };
        opened.await.map(Some).map_err(failed)
    }

    async fn attempt(
        &self,
        spool: Option<Spool>,
        stop: &watch::Receiver<bool>,
    ) -> Result<Option<PathBuf>, PullError> {
        let kept = spool.as_ref().map_or(0, Spool::length);
        let (sender, pieces) = mpsc::channel(IN_FLIGHT);
        let worker = tokio::task::spawn_blocking({
            let (store, layer) = (self.store.clone(), self.layer.clone());
            move || receive(&store, &layer, pieces, spool)
        });
        let mut body = Body::layer(self.session, self.layer, kept);
        let sent = self.send(&mut body, sender, stop.clone()).await;
        let unpacked = joined(worker).await;
        match (sent, unpacked) {
            (Err(error), _) => Err(error),
            (Ok(()), Ok(path)) => Ok(Some(path)),
            (Ok(()), Err(Failure::Abandoned)) => Ok(None),
            (Ok(()), Err(failure)) => Err(self.failed(failure)),
        }
    }

    /// What a failure is to the caller of the pull.
    fn failed(&self, failure: Failure) -> PullError {
        let (reference, layer) = (self.session.reference.clone(), self.layer.digest.clone());
        match failure {
            Failure::Verify(source) => self.session.unverified(&Subject::Layer(layer), source),
            Failure::Store(source) => PullError::Store { reference, source },
            Failure::Unpack(source) => PullError::Unpack {
                reference,
                layer,
                source,
            },
            Failure::Abandoned => unreachable!("invariant: whoever gave up knows why"),
        }
    }

    /// Moves the body into the channel, until its end, until the receiver wants no more, or until
    /// told to stop.
    async fn send(
        &self,
        body: &mut Body<'_>,
        sender: mpsc::Sender<Piece>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), PullError> {
        let tell = |done, state| {
            self.progress.update(&LayerProgress {
                layer: self.layer.digest.clone(),
                done,
                total: self.layer.size,
                state,
            });
        };
        tell(body.received(), LayerState::Downloading);
        loop {
            let chunk = tokio::select! {
                chunk = body.chunk() => chunk?,
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            };
            let Some(chunk) = chunk else {
                tell(self.layer.size, LayerState::Finishing);
                // A receiver that is gone says why itself.
                let _ = sender.send(Piece::End).await;
                return Ok(());
            };
            for piece in chunk.as_ref().chunks(PIECE) {
                if sender.send(Piece::Data(piece.into())).await.is_err() {
                    return Ok(());
                }
            }
            tell(body.received(), LayerState::Downloading);
            if !self.meter.took(chunk.as_ref().len(), self.is_large).await {
                return Ok(());
            }
        }
    }
}

async fn joined<T>(task: tokio::task::JoinHandle<T>) -> T {
    match task.await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Blocking: unpacks what comes through the channel and commits it.
fn receive(
    store: &Store,
    layer: &Layer,
    pieces: mpsc::Receiver<Piece>,
    spool: Option<Spool>,
) -> Result<PathBuf, Failure> {
    let mut input = Input::new(layer, pieces, spool);
    let received = unpack_verified(store, layer, &mut input);
    // What broke off is worth keeping; after anything else it is done with, or of no use.
    if !matches!(received, Err(Failure::Abandoned)) {
        input.drop_spool();
    }
    received
}

/// Takes a layer from a file into the store: verified, unpacked and named as one that is pulled.
/// Blocking.
pub(crate) fn take_local(
    store: &Store,
    layer: &LocalLayer<'_>,
    file: impl Read,
) -> Result<PathBuf, Failure> {
    let staging = store.stage().map_err(Failure::Store)?;
    let mut list = staging.list().map_err(Failure::Store)?;
    let mut file = BufReader::new(Hashed {
        inner: file,
        hasher: hasher(layer.digest.unwrap_or(layer.diff_id)),
        left: MAX_ARCHIVE,
    });
    let diff_id = layer.diff_id;
    let unpacked = match layer.compression {
        Compression::Gzip => write(MultiGzDecoder::new(&mut file), &staging, diff_id, &mut list),
        Compression::Zstd => zstd_decoder(&mut file)
            .map_err(|source| UnpackError::Read { entries: 0, source })
            .and_then(|archive| write(archive, &staging, diff_id, &mut list)),
        Compression::None => write(&mut file, &staging, diff_id, &mut list),
    };
    if let Err(error) = &unpacked
        && !error.is_content()
    {
        return unpacked.map(|_| PathBuf::new()).map_err(Failure::Unpack);
    }
    // What is wrong with the archive may be that it is another.
    io::copy(&mut file, &mut io::sink())
        .map_err(|source| Failure::Unpack(UnpackError::Read { entries: 0, source }))?;
    let actual = file.into_inner().hasher.finish();
    if let Some(expected) = layer.digest.filter(|expected| **expected != actual) {
        let expected = expected.clone();
        return Err(Failure::Verify(VerifyError::Digest { expected, actual }));
    }
    let (actual, unpacked) = unpacked.map_err(Failure::Unpack)?;
    check_diff_id(diff_id, actual)?;
    staging
        .commit(diff_id, &unpacked, Some(list))
        .map_err(Failure::Store)
}

fn unpack_verified(store: &Store, layer: &Layer, input: &mut Input) -> Result<PathBuf, Failure> {
    let staging = store.stage().map_err(Failure::Store)?;
    let mut list = staging.list().map_err(Failure::Store)?;
    let unpacked = match layer.compression {
        Compression::Gzip => write(
            MultiGzDecoder::new(&mut *input),
            &staging,
            &layer.diff_id,
            &mut list,
        ),
        Compression::Zstd => zstd_decoder(&mut *input)
            .map_err(|source| UnpackError::Read { entries: 0, source })
            .and_then(|archive| write(archive, &staging, &layer.diff_id, &mut list)),
        Compression::None => write(&mut *input, &staging, &layer.diff_id, &mut list),
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
    let (diff_id, unpacked) = unpacked.map_err(Failure::Unpack)?;
    check_diff_id(&layer.diff_id, diff_id)?;
    if let (Some(chunked), Some(table)) = (&layer.chunked, input.table())
        && let Some(known) = delta::known(chunked, table)
    {
        list.set_known(known);
    }
    // Before the flush, which would write what of it is still only in memory.
    input.drop_spool();
    staging
        .commit(&layer.diff_id, &unpacked, Some(list))
        .map_err(Failure::Store)
}

/// Holds what the archive hashed to against the configuration.
fn check_diff_id(expected: &Digest, actual: Digest) -> Result<(), Failure> {
    if actual == *expected {
        return Ok(());
    }
    Err(Failure::Verify(VerifyError::DiffId {
        expected: expected.clone(),
        actual,
    }))
}

/// A decoder for all frames of the stream, skippable ones such as those of zstd:chunked included.
pub(crate) fn zstd_decoder<R: BufRead>(input: R) -> io::Result<zstd::Decoder<'static, R>> {
    let mut decoder = zstd::Decoder::with_buffer(input)?;
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    Ok(decoder)
}

/// Unpacks an archive and reads on to the end of its stream; gives its digest.
fn write(
    archive: impl Read,
    staging: &Staging,
    diff_id: &Digest,
    files: &mut dyn Files,
) -> Result<(Digest, Unpacked), UnpackError> {
    let mut archive = Hashed {
        inner: archive,
        hasher: hasher(diff_id),
        left: MAX_ARCHIVE,
    };
    let unpacked = unpack::unpack(&mut archive, staging.path(), Resolver::probe(), files)?;
    // Padding behind the last entry is part of the digest.
    io::copy(&mut archive, &mut io::sink())
        .map_err(|source| UnpackError::Read { entries: 0, source })?;
    Ok((archive.hasher.finish(), unpacked))
}

fn hasher(digest: &Digest) -> Hasher {
    Hasher::new(digest.algorithm()).expect("invariant: layers with other digests were refused")
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
