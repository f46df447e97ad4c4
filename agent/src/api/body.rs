//! Bodies of answers: at once or as they come.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Bytes, Frame, SizeHint};
use hyper::{Response, StatusCode, header};
use serde::Serialize;
use tokio::sync::mpsc;

use super::wire::{ErrorBody, ErrorCode, ErrorView};
use crate::command::CommandError;

/// Chunks that may wait for a slow client; the producer waits beyond.
const CHUNK_BACKLOG: usize = 8;

/// Where a stream's producer puts its chunks. An error breaks the answer off, so that the
/// client does not take it for complete.
pub(super) type Chunks = mpsc::Sender<Result<Bytes, io::Error>>;

#[derive(Debug)]
pub(super) enum Body {
    Whole(Option<Bytes>),
    Stream(mpsc::Receiver<Result<Bytes, io::Error>>),
}

/// An answer with `value` as JSON.
pub(super) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    let mut text = serde_json::to_vec(value).expect("invariant: wire types have string keys");
    text.push(b'\n');
    with_type(status, "application/json", Body::Whole(Some(text.into())))
}

/// An answer without content.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::Whole(None));
    *response.status_mut() = status;
    response
}

/// An answer that a producer fills; it goes on for as long as the sender lives.
pub(super) fn stream(content_type: &'static str) -> (Chunks, Response<Body>) {
    let (chunks, receiver) = mpsc::channel(CHUNK_BACKLOG);
    let body = Body::Stream(receiver);
    (chunks, with_type(StatusCode::OK, content_type, body))
}

/// The answer that tells of a failure.
pub(super) fn failure(error: CommandError) -> Response<Body> {
    let status = match error.code {
        ErrorCode::Invalid => StatusCode::BAD_REQUEST,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::Timeout => StatusCode::REQUEST_TIMEOUT,
        ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    let error = ErrorView {
        code: error.code,
        message: error.message,
        problems: error.problems,
    };
    json(status, &ErrorBody { error })
}

fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let value = header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let chunk = match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(Ok)),
            Self::Stream(receiver) => receiver.poll_recv(context),
        };
        chunk.map(|chunk| chunk.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// What a service returns that answers every failure itself.
pub(super) type Answer = Result<Response<Body>, Infallible>;
