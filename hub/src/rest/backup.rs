//! The store's backup, sent while it is read: neither is ever whole in memory.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::{Method, Request, Response};
use tokio::sync::mpsc;

use super::{ApiError, Call};
use crate::backup::{BackupError, Part, Writer};
use crate::connection::Peer;
use crate::handle::HubHandle;
use crate::moment::Moment;
use crate::policy::Permission::{DeviceConnect, RegistryRead, RegistryWrite, ServiceConnect};
use crate::store::Snapshot;

const PATH: &str = "/backup";
/// Bytes that are sent at a time.
const CHUNK: usize = 64 << 10;
/// Chunks that may wait to be sent.
const CHUNKS: usize = 4;

/// The body of an answer: there already, or made as it is taken.
#[derive(Debug)]
pub(crate) enum Content {
    Whole(Full<Bytes>),
    /// It ends with the sender; only its last line says that it is whole.
    Chunks(mpsc::Receiver<Bytes>),
}

/// Whether this asks for a backup.
pub(crate) fn is_asked(request: &Request<Incoming>) -> bool {
    request.method() == Method::GET && request.uri().path() == PATH
}

/// Answers with a backup, if `peer` may all that a hub knows.
pub(crate) async fn answer(
    request: Request<Incoming>,
    peer: Peer<'_>,
    hub: &HubHandle,
) -> Response<Content> {
    let answered = match super::receive(request, peer, hub).await {
        Ok(call) => begin(&call, hub).await,
        Err(error) => Err(error),
    };
    answered.unwrap_or_else(|error| error.response(false).map(Content::Whole))
}

async fn begin(call: &Call, hub: &HubHandle) -> Result<Response<Content>, ApiError> {
    for permission in [RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect] {
        call.need(&[permission])?;
    }
    let snapshot = hub.ask_as(call.caller.actor(), |hub| hub.back_up(Moment::now()));
    let snapshot = snapshot.await?;
    let (sender, chunks) = mpsc::channel(CHUNKS);
    // It waits for the disk and for the client. It ends when the connection does.
    tokio::task::spawn_blocking(move || match write(&snapshot, sender) {
        Ok(()) => {}
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "a backup was broken off");
        }
    });
    Ok(Response::new(Content::Chunks(chunks)))
}

fn write(snapshot: &Snapshot, sender: mpsc::Sender<Bytes>) -> Result<(), BackupError> {
    let buffer = Vec::with_capacity(CHUNK);
    let mut writer = Writer::new(Chunks { sender, buffer }, Moment::now())?;
    snapshot.each(|kept| writer.part(Part::Kept(kept)))?;
    writer.end().map(drop)
}

struct Chunks {
    sender: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let sent = self
            .sender
            .blocking_send(Bytes::from(std::mem::take(&mut self.buffer)));
        sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Self::Whole(body) => Pin::new(body).poll_frame(context),
            Self::Chunks(chunks) => {
                let chunk = chunks.poll_recv(context);
                chunk.map(|chunk| chunk.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(body) if body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Chunks(_) => SizeHint::default(),
        }
    }
}
