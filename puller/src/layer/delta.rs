//! A layer of which many files are here already: its table of contents says which, and only the
//! others are fetched.
//!
//! ```text
//! table, framing <-- one range of the blob, in the manifest's annotations
//! framing --+
//! files here ---> Archive --> Hashed --> unpack --> staging directory
//! ranges ---+                 diff_id    digest of each file that was fetched
//! ```
//!
//! What the table says is trusted as little as anything else: a file that is here is taken for its
//! content, not for its name, and the archive put together must have the digest that the image's
//! configuration names, as if it had come as a whole. Only the digest of the compressed blob cannot
//! be checked, of which most was never here. Whatever is doubtful ends with a reason, and the whole
//! layer is fetched.

mod archive;
mod plan;
mod split;
mod toc;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::path::PathBuf;

use thiserror::Error;
use tokio::sync::{mpsc, watch};

use archive::{Archive, Arrivals};
use plan::{Plan, Source};
use toc::{Content, Toc};

use super::{
    Failure, IN_FLIGHT, PIECE, Piece, Transfer, check_diff_id, joined, write, zstd_decoder,
};
use crate::digest::{Hasher, Sha256, VerifyError, verify};
use crate::error::PullError;
use crate::manifest::{Chunked, Layer, Part};
use crate::progress::{LayerProgress, LayerState};
use crate::registry::Body;
use crate::store::{FileList, Store};
use crate::unpack::{Files, LayerFiles, UnpackError};

/// Of a layer's bytes more than this many percent are not worth the trouble.
const WORTH: u64 = 75;
/// How it went.
pub(super) enum Delta {
    /// The layer is in the store.
    Done(PathBuf),
    /// It was told to stop.
    Stopped,
    /// The whole layer is to be fetched, for this reason if there is one.
    Whole(Option<Doubt>),
}

/// Why a layer is fetched as a whole though some of it is here.
#[derive(Debug, Error)]
pub(super) enum Doubt {
    #[error("the registry serves its parts otherwise than asked for")]
    Served(#[source] Box<PullError>),
    #[error("verify its table of contents")]
    TocDigest(#[source] VerifyError),
    #[error("read its table of contents")]
    Toc(#[source] io::Error),
    #[error("verify its framing")]
    SplitDigest(#[source] VerifyError),
    #[error("put it together from its parts")]
    Parts(#[source] UnpackError),
    #[error("put it together: {0:?} is not what the table of contents says")]
    Content(String),
    #[error("verify what was put together")]
    DiffId(#[source] VerifyError),
}

/// What is to be done for a layer.
struct Prepared {
    contents: Vec<Content>,
    plan: Plan,
    /// The framing, compressed.
    split: Vec<u8>,
    split_length: u64,
}

/// Holds each file's content against the table, and lists it.
struct Checked<'a> {
    list: &'a mut FileList,
    prepared: &'a Prepared,
    /// The first of the table's files that did not end yet.
    next: usize,
    /// For files whose blocks are shared.
    opener: LayerFiles,
    /// What came of it.
    size: u64,
    hasher: Hasher,
    /// The file that has other content.
    wrong: Option<String>,
}

/// Whether all was sent.
enum Sent {
    All,
    Stopped,
}

impl Transfer<'_> {
    /// Puts the layer together from what is here and what is missing. An error is final: the disk's,
    /// or the registry's that a whole layer would meet as well.
    pub(super) async fn delta(
        &self,
        chunked: &Chunked,
        stop: &watch::Receiver<bool>,
    ) -> Result<Delta, PullError> {
        if !self.store.knows_files() {
            return Ok(Delta::Whole(None));
        }
        let prepared = match self.prepare(chunked, stop).await {
            Ok(Some(Ok(prepared))) => prepared,
            Ok(Some(Err(doubt))) => return Ok(Delta::Whole(Some(doubt))),
            Ok(None) => return Ok(Delta::Stopped),
            Err(error) => return served_otherwise(error),
        };
        if prepared.plan.bytes() * 100 > self.layer.size * WORTH {
            return Ok(Delta::Whole(None));
        }
        let ranges = prepared.plan.ranges.clone();
        let (sender, pieces) = mpsc::channel(IN_FLIGHT);
        let worker = tokio::task::spawn_blocking({
            let (store, layer) = (self.store.clone(), self.layer.clone());
            move || receive(&store, &layer, &prepared, Arrivals::new(pieces))
        });
        let sent = self.send_ranges(&ranges, sender, stop.clone()).await;
        let received = joined(worker).await;
        match (sent, received) {
            (Err(error), _) => served_otherwise(error),
            (Ok(Sent::Stopped), _) => Ok(Delta::Stopped),
            (Ok(Sent::All), Ok(Ok(path))) => Ok(Delta::Done(path)),
            (Ok(Sent::All), Ok(Err(doubt))) => Ok(Delta::Whole(Some(doubt))),
            (Ok(Sent::All), Err(failure)) => Err(self.failed(failure)),
        }
    }

    /// Fetches table and framing and decides what else to fetch; nothing if told to stop.
    async fn prepare(
        &self,
        chunked: &Chunked,
        stop: &watch::Receiver<bool>,
    ) -> Result<Option<Result<Prepared, Doubt>>, PullError> {
        let span = chunked.span();
        let (sender, mut pieces) = mpsc::channel(IN_FLIGHT);
        let collect = async {
            let mut bytes = Vec::new();
            while let Some(Piece::Data(piece)) = pieces.recv().await {
                bytes.extend_from_slice(&piece);
            }
            bytes
        };
        let ranges = [span.clone()];
        let (sent, bytes) = tokio::join!(self.send_ranges(&ranges, sender, stop.clone()), collect);
        match sent? {
            Sent::Stopped => return Ok(None),
            Sent::All => {}
        }
        let (store, chunked) = (self.store.clone(), chunked.clone());
        let prepared = tokio::task::spawn_blocking(move || Prepared::new(&store, &chunked, &bytes));
        Ok(Some(joined(prepared).await))
    }

    /// Moves ranges of the blob into the channel, one after the other.
    async fn send_ranges(
        &self,
        ranges: &[Range<u64>],
        sender: mpsc::Sender<Piece>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<Sent, PullError> {
        let wanted: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        // What is here counts as done.
        let mut done = self.layer.size.saturating_sub(wanted);
        for range in ranges {
            let mut body = Body::part(self.session, self.layer, range.clone());
            loop {
                let chunk = tokio::select! {
                    chunk = body.chunk() => chunk?,
                    _ = stop.wait_for(|stop| *stop) => return Ok(Sent::Stopped),
                };
                let Some(chunk) = chunk else { break };
                for piece in chunk.as_ref().chunks(PIECE) {
                    if sender.send(Piece::Data(piece.into())).await.is_err() {
                        // A receiver that is gone says why itself.
                        return Ok(Sent::All);
                    }
                }
                let count = chunk.as_ref().len();
                done += count as u64;
                self.progress.update(&LayerProgress {
                    layer: self.layer.digest.clone(),
                    done,
                    total: self.layer.size,
                    state: LayerState::Downloading,
                });
                // What was begun is finished: nothing of it could be kept for another time.
                let _ = self.meter.took(count, self.is_large).await;
            }
        }
        let _ = sender.send(Piece::End).await;
        Ok(Sent::All)
    }
}

/// A registry that serves no parts, or wrong ones, may serve the whole.
fn served_otherwise(error: PullError) -> Result<Delta, PullError> {
    match error {
        PullError::Verify { .. } => Ok(Delta::Whole(Some(Doubt::Served(Box::new(error))))),
        other => Err(other),
    }
}

impl Prepared {
    /// Blocking: reads the table and looks for its files in all layers that are here.
    fn new(store: &Store, chunked: &Chunked, span: &[u8]) -> Result<Self, Doubt> {
        let start = chunked.span().start;
        let cut = |part: &Part| {
            let place = |at: u64| usize::try_from(at - start).unwrap_or(usize::MAX);
            &span[place(part.range.start)..place(part.range.end)]
        };
        let (toc, split) = (cut(&chunked.toc), cut(&chunked.split));
        let Toc {
            contents,
            split_digest,
        } = table(chunked, toc)?;
        if let Some(expected) = split_digest {
            verify(split, &expected).map_err(Doubt::SplitDigest)?;
        }
        let wanted = contents
            .iter()
            .map(|content| (content.size, content.sha256));
        let plan = Plan::new(&contents, &store.places(wanted));
        Ok(Self {
            contents,
            plan,
            split: split.to_vec(),
            split_length: chunked.split.length,
        })
    }
}

/// What the table of contents `packed` says.
fn table(chunked: &Chunked, packed: &[u8]) -> Result<Toc, Doubt> {
    verify(packed, &chunked.toc_digest).map_err(Doubt::TocDigest)?;
    let json = plain(packed, chunked.toc.length).map_err(Doubt::Toc)?;
    let toc = Toc::read(json, chunked.span().start).map_err(io::Error::from);
    toc.map_err(Doubt::Toc)
}

/// What the table of contents of a layer that came as a whole says of each file that is not empty, in
/// the archive's order. One that is not what was announced says nothing: nobody needs it yet.
pub(super) fn known(chunked: &Chunked, packed: &[u8]) -> Option<Vec<Sha256>> {
    let toc = table(chunked, packed).ok()?;
    Some(sums(&toc.contents))
}

fn sums(contents: &[Content]) -> Vec<Sha256> {
    contents.iter().map(|content| content.sha256).collect()
}

/// What is compressed in `packed`, no more than was announced.
fn plain(packed: &[u8], length: u64) -> io::Result<impl io::BufRead> {
    let decoder = zstd_decoder(packed)?;
    Ok(BufReader::new(decoder.take(length)))
}

/// Blocking: puts the archive together, unpacks it and commits it.
fn receive(
    store: &Store,
    layer: &Layer,
    prepared: &Prepared,
    arrivals: Arrivals,
) -> Result<Result<PathBuf, Doubt>, Failure> {
    let staging = store.stage().map_err(Failure::Store)?;
    let mut list = staging.list().map_err(Failure::Store)?;
    let mut files = Checked {
        list: &mut list,
        prepared,
        next: 0,
        opener: LayerFiles::new(),
        size: 0,
        hasher: Hasher::sha256(),
        wrong: None,
    };
    let parts = (&*prepared.contents, &*prepared.plan.sources);
    let written = plain(&prepared.split, prepared.split_length)
        .and_then(|framing| Archive::new(framing, parts, arrivals))
        .map_err(|source| UnpackError::Read { entries: 0, source })
        .and_then(|archive| write(archive, &staging, &layer.diff_id, &mut files));
    if let Some(wrong) = files.wrong {
        return Ok(Err(Doubt::Content(wrong)));
    }
    let (diff_id, unpacked) = match written {
        Ok(written) => written,
        Err(error) if error.is_content() => return Ok(Err(Doubt::Parts(error))),
        Err(error) => return Err(Failure::Unpack(error)),
    };
    match check_diff_id(&layer.diff_id, diff_id) {
        Err(Failure::Verify(error)) => return Ok(Err(Doubt::DiffId(error))),
        other => other?,
    }
    list.set_known(sums(&prepared.contents));
    let committed = staging.commit(&layer.diff_id, &unpacked, Some(list));
    committed.map(Ok).map_err(Failure::Store)
}

/// The archive that any bytes describe: empty where they do not even do that.
#[cfg(any(test, fuzzing))]
pub(crate) fn hostile(toc: &[u8], split: &[u8], blob: &[u8]) -> impl Read {
    let toc = Toc::read(toc, blob.len() as u64).unwrap_or_default();
    let plan = Plan::new(&toc.contents, &std::collections::HashMap::new());
    let (sender, pieces) = mpsc::channel(plan.ranges.len() + 1);
    let place = |at: u64| usize::try_from(at).expect("invariant: within the blob");
    for range in &plan.ranges {
        let bytes = &blob[place(range.start)..place(range.end)];
        let _ = sender.try_send(Piece::Data(bytes.into()));
    }
    drop(sender);
    let parts = (&*toc.contents, &*plan.sources);
    let mut archive = Vec::new();
    if let Ok(stream) = Archive::new(split, parts, Arrivals::new(pieces)) {
        let _ = stream.take(4 << 20).read_to_end(&mut archive);
    }
    io::Cursor::new(archive)
}

impl Checked<'_> {
    /// Where the next of the table's files comes from.
    fn source(&self) -> Option<&Source> {
        self.prepared.plan.sources.get(self.next)
    }

    /// Whether what came is what the table says. What was here was that when it was read or unpacked,
    /// and the digest of the archive counts in the end; a file that was fetched is called by its name.
    fn is_right(&mut self) -> bool {
        let hasher = std::mem::replace(&mut self.hasher, Hasher::sha256());
        let content = self.prepared.contents.get(self.next);
        content.is_some_and(|content| {
            let is_here = matches!(self.source(), Some(Source::Here(_)));
            content.size == self.size && (is_here || content.sha256 == hasher.finish_sha256())
        })
    }
}

impl Files for Checked<'_> {
    fn content(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        if let Some(Source::Fetched { .. }) = self.source() {
            self.hasher.update(bytes);
        }
        self.list.content(bytes);
    }

    fn end(&mut self, path: &[u8], has_holes: bool) -> io::Result<()> {
        // Empty files are in no table; of those with holes none is known to say what it means.
        if self.size > 0 || has_holes {
            if has_holes || !self.is_right() {
                self.wrong = Some(String::from_utf8_lossy(path).into_owned());
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.next += 1;
            self.size = 0;
        }
        self.list.end(path, has_holes)
    }

    fn donor(&mut self) -> Option<File> {
        match self.prepared.plan.sources.get(self.next)? {
            Source::Here(place) => place.open(&mut self.opener).ok(),
            Source::Fetched { .. } => None,
        }
    }
}
