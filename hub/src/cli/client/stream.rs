//! An answer that is too long to be held: its body as it comes.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};

use super::{ANSWER, CONNECT, Client, Request};
use crate::cli::refusal::ClientError;

/// Pieces that may wait for the reader.
const WAITING: usize = 4;

/// The body of an answer.
#[derive(Debug)]
pub(in crate::cli) struct Stream {
    chunks: Receiver<io::Result<Bytes>>,
    chunk: Bytes,
}

impl Client {
    /// The body of the answer as it comes, from a thread of its own that ends with it.
    ///
    /// # Errors
    /// [`ClientError`]; later ones are those of the reader, where its body ends too early.
    pub(in crate::cli) fn stream(self, request: Request) -> Result<Stream, ClientError> {
        let unreachable = |client: &Self, source| ClientError::Unreachable {
            action: request.action.clone(),
            hub: client.service.host_name.clone(),
            source,
        };
        let begun = self.runtime.block_on(async {
            let begun = tokio::time::timeout(CONNECT + request.wait, self.begin(&request)).await;
            begun.unwrap_or_else(|_| Err("there was no answer in time".into()))
        });
        let (parts, body) = match begun {
            Ok(response) => response.into_parts(),
            Err(source) => return Err(unreachable(&self, source)),
        };
        if !parts.status.is_success() {
            let whole = self.runtime.block_on(body.collect());
            let whole = whole.map_or_else(|_| Bytes::new(), |body| body.to_bytes());
            let action = request.action;
            return Err(ClientError::refused(
                action,
                parts.status,
                &parts.headers,
                &whole,
            ));
        }
        let (sender, chunks) = sync_channel(WAITING);
        std::thread::spawn(move || self.runtime.block_on(pass_on(body, &sender)));
        let chunk = Bytes::new();
        Ok(Stream { chunks, chunk })
    }
}

/// Hands on what comes, each piece within [`ANSWER`] of the one before.
async fn pass_on(mut body: Incoming, to: &SyncSender<io::Result<Bytes>>) {
    loop {
        let piece = match tokio::time::timeout(ANSWER, body.frame()).await {
            Ok(None) => return,
            Ok(Some(Ok(frame))) => Ok(frame.into_data().unwrap_or_default()),
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let is_last = piece.is_err();
        if to.send(piece).is_err() || is_last {
            return;
        }
    }
}

impl io::Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.chunks.recv() {
                Ok(chunk) => self.chunk = chunk?,
                Err(_) => return Ok(0),
            }
        }
        let size = self.chunk.len().min(buffer.len());
        buffer[..size].copy_from_slice(&self.chunk.split_to(size));
        Ok(size)
    }
}
