//! A blob's bytes, each once and in order, across broken connections.

use std::ops::Range;

use oci_spec::image::Digest;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};

use super::session::{Session, Subject};
use crate::digest::VerifyError;
use crate::error::PullError;
use crate::manifest::Layer;

/// Interruptions without a new byte between them before they are final.
const MAX_FAILURES: u32 = 5;

/// A blob that is being received.
#[derive(Debug)]
pub(crate) struct Body<'a> {
    session: &'a Session<'a>,
    subject: Subject,
    digest: &'a Digest,
    /// Where it ends: the blob, or the part that is wanted.
    end: u64,
    is_part: bool,
    received: u64,
    response: Option<Response>,
    /// Bytes to drop from the response, received before from another one.
    repeated: u64,
    failures: u32,
}

impl<'a> Body<'a> {
    /// What `layer` has after its first `received` bytes.
    pub(crate) fn layer(session: &'a Session<'a>, layer: &'a Layer, received: u64) -> Self {
        Self {
            session,
            subject: Subject::Layer(layer.digest.clone()),
            digest: &layer.digest,
            end: layer.size,
            is_part: false,
            received,
            response: None,
            repeated: 0,
            failures: 0,
        }
    }

    /// Some bytes of `layer`. A server that would send all instead is refused.
    pub(crate) fn part(session: &'a Session<'a>, layer: &'a Layer, part: Range<u64>) -> Self {
        Self {
            end: part.end,
            is_part: true,
            ..Self::layer(session, layer, part.start)
        }
    }

    /// Bytes of the blob handed out so far, and those before.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// The next bytes, never empty; nothing when all have come. An interruption is followed by a
    /// request for the rest, more than [`MAX_FAILURES`] of them without progress are an error; so is
    /// a byte too many.
    pub(crate) async fn chunk(
        &mut self,
    ) -> Result<Option<impl AsRef<[u8]> + Send + 'static>, PullError> {
        loop {
            let Some(response) = &mut self.response else {
                if self.received == self.end {
                    return Ok(None);
                }
                self.open().await?;
                continue;
            };
            match response.chunk().await {
                Ok(Some(mut bytes)) => {
                    let skipped =
                        usize::try_from(self.repeated).map_or(bytes.len(), |n| n.min(bytes.len()));
                    self.repeated -= skipped as u64;
                    let bytes = bytes.split_off(skipped);
                    if bytes.is_empty() {
                        continue;
                    }
                    self.failures = 0;
                    self.received += bytes.len() as u64;
                    if self.received > self.end {
                        return Err(self.too_long());
                    }
                    return Ok(Some(bytes));
                }
                Ok(None) if self.received == self.end => return Ok(None),
                Ok(None) => self.interrupted(self.truncated()).await?,
                Err(error) => {
                    let error = self.session.broken(&self.subject, error);
                    self.interrupted(error).await?;
                }
            }
        }
    }

    /// Asks for what is missing.
    async fn open(&mut self) -> Result<(), PullError> {
        let end = self.is_part.then_some(self.end);
        let asked = self
            .session
            .blob(&self.subject, self.digest, self.received, end)
            .await;
        let response = match asked {
            Ok(response) => response,
            // There is nothing behind what was received.
            Err(PullError::Status { status: 416, .. }) => return Err(self.truncated()),
            Err(error) if error.is_transient() => return self.interrupted(error).await,
            Err(error) => return Err(error),
        };
        self.repeated = match (response.status(), start(&response)) {
            (StatusCode::PARTIAL_CONTENT, Some(start)) if start <= self.received => {
                self.received - start
            }
            (StatusCode::PARTIAL_CONTENT, _) => return self.interrupted(self.truncated()).await,
            _ if self.is_part => return Err(self.too_long()),
            // The server knows no ranges.
            _ => self.received,
        };
        self.response = Some(response);
        Ok(())
    }

    /// Waits before the next attempt, or makes `error` final.
    async fn interrupted(&mut self, error: PullError) -> Result<(), PullError> {
        self.response = None;
        self.failures += 1;
        if self.failures > MAX_FAILURES {
            return Err(error);
        }
        self.session.pause(self.failures, error).await
    }

    fn truncated(&self) -> PullError {
        self.unverified(VerifyError::Truncated {
            expected: self.end,
            received: self.received,
        })
    }

    fn too_long(&self) -> PullError {
        let expected = self.end;
        self.unverified(VerifyError::TooLong { expected })
    }

    fn unverified(&self, source: VerifyError) -> PullError {
        self.session.unverified(&self.subject, source)
    }
}

/// Where a partial response starts: `Content-Range: bytes 100-199/200`.
fn start(response: &Response) -> Option<u64> {
    let value = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    let range = value.strip_prefix("bytes ")?;
    range.split('-').next()?.trim().parse().ok()
}
