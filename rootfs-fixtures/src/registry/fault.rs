//! Faults on demand: what goes wrong, for which request, how often.

use std::sync::Arc;
use std::time::Duration;

use super::http::Response;
use crate::Digest;

/// Something that goes wrong, for requests that are let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// One byte of the body is inverted; the length stays.
    FlipByte {
        /// Counted from the start of the whole body, whatever range is asked for.
        at: usize,
    },
    /// The body is shorter, and `Content-Length` says so.
    Truncate {
        /// The remaining length in bytes.
        to: usize,
    },
    /// The body is longer by so many zero bytes, and `Content-Length` says so.
    Extend {
        /// How many bytes follow.
        by: usize,
    },
    /// The connection closes in the middle of the body.
    DropAfter {
        /// So many bytes of this response's body are sent.
        bytes: usize,
    },
    /// The connection closes without an answer.
    NoAnswer,
    /// The body pauses once.
    Stall {
        /// So many bytes of this response's body are sent before.
        after: usize,
        /// How long.
        pause: Duration,
    },
    /// The body comes slowly.
    Throttle {
        /// Kept on the average, in 20 pieces a second.
        bytes_per_second: usize,
    },
    /// An error response instead.
    Status {
        /// Such as 401, 404, 429, 500.
        status: u16,
        /// Seconds for a `Retry-After` header.
        retry_after: Option<u32>,
    },
    /// 307 to the storage listener, which serves the blob to whoever knows its address and
    /// answers 400 to an `Authorization` header, as cloud storage does. For blobs only.
    Redirect,
    /// `Range` is ignored: 200 and the whole body.
    NoRange,
    /// Chunked transfer, no `Content-Length`.
    Chunked,
    /// A header is added, or replaced.
    Header {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
}

/// Which requests a fault is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The blob with that digest, in any repository, on either listener.
    Blob(Digest),
    /// The manifest asked for by that tag or digest.
    Manifest(String),
    /// Exactly that path.
    Path(String),
    /// The token endpoint, before it looks at the password.
    Token,
    /// Any request for a manifest or blob.
    Content,
}

/// How often a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Until it is cleared.
    Always,
    /// For so many matching requests.
    First(u64),
}

/// Names a fault that was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultId(usize);

/// What a request is about, for matching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Subject<'a> {
    pub(crate) path: &'a str,
    pub(crate) what: What<'a>,
}

/// The kind of endpoint with its argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What<'a> {
    Blob(&'a str),
    Manifest(&'a str),
    Token,
    Other,
}

/// All faults that were set, with their counts.
#[derive(Debug, Default)]
pub(crate) struct Faults(Vec<Armed>);

#[derive(Debug)]
struct Armed {
    target: Target,
    fault: Fault,
    left: Times,
    fired: u64,
}

impl Faults {
    pub(crate) fn arm(&mut self, target: Target, fault: Fault, times: Times) -> FaultId {
        self.0.push(Armed {
            target,
            fault,
            left: times,
            fired: 0,
        });
        FaultId(self.0.len() - 1)
    }

    pub(crate) fn disarm_all(&mut self) {
        for armed in &mut self.0 {
            armed.left = Times::First(0);
        }
    }

    pub(crate) fn fired(&self, id: FaultId) -> u64 {
        self.0.get(id.0).map_or(0, |armed| armed.fired)
    }

    /// The faults that strike this request, each counted; only those that `eligible` admits.
    pub(crate) fn strike(
        &mut self,
        subject: &Subject<'_>,
        eligible: impl Fn(&Fault) -> bool,
    ) -> Vec<Fault> {
        let mut struck = Vec::new();
        for armed in &mut self.0 {
            if !armed.target.matches(subject) || !eligible(&armed.fault) {
                continue;
            }
            match &mut armed.left {
                Times::Always => {}
                Times::First(0) => continue,
                Times::First(left) => *left -= 1,
            }
            armed.fired += 1;
            struck.push(armed.fault.clone());
        }
        struck
    }
}

impl Target {
    fn matches(&self, subject: &Subject<'_>) -> bool {
        match (self, subject.what) {
            (Self::Blob(digest), What::Blob(asked)) => digest.as_str() == asked,
            (Self::Manifest(reference), What::Manifest(asked)) => reference == asked,
            (Self::Path(path), _) => path == subject.path,
            (Self::Token, What::Token) | (Self::Content, What::Blob(_) | What::Manifest(_)) => true,
            _ => false,
        }
    }
}

impl Fault {
    /// Changes the whole body, before any range is cut from it.
    pub(crate) fn damage(&self, body: Arc<[u8]>) -> Arc<[u8]> {
        match *self {
            Self::FlipByte { at } => {
                let mut bytes = body.to_vec();
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = !*byte;
                }
                bytes.into()
            }
            Self::Truncate { to } => body[..to.min(body.len())].into(),
            Self::Extend { by } => {
                let mut bytes = body.to_vec();
                bytes.resize(bytes.len() + by, 0);
                bytes.into()
            }
            _ => body,
        }
    }

    /// Changes the response, after its range was cut.
    pub(crate) fn afflict(&self, mut response: Response) -> Response {
        match self {
            Self::DropAfter { bytes } => response.delivery.drop_after = Some(*bytes),
            Self::Stall { after, pause } => response.delivery.stall = Some((*after, *pause)),
            Self::Throttle { bytes_per_second } => {
                response.delivery.throttle = Some(*bytes_per_second);
            }
            Self::NoAnswer => response.delivery.silent = true,
            Self::Chunked => response.delivery.chunked = true,
            Self::Header { name, value } => return response.header(name, value),
            Self::FlipByte { .. }
            | Self::Truncate { .. }
            | Self::Extend { .. }
            | Self::Status { .. }
            | Self::Redirect
            | Self::NoRange => {}
        }
        response
    }
}
