//! `GET /modules/{name}/logs`: a module's log from the disk, past the core.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use hyper::Response;
use hyper::body::Bytes;
use kobune_runtime::log::{self, Follow, LogError, LogLine, LogQuery, LogStream};
use kobune_runtime::{ContainerId, Timestamp};

use super::body::{self, Body, Chunks};
use super::query;
use super::route::Context;
use super::wire::{ErrorCode, LogRecord};
use crate::command::CommandError;
use crate::error_chain::chain;
use crate::moment;

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(200);
/// Bytes that are sent at once where there are that many.
const CHUNK: usize = 16 << 10;

/// What a client asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct LogRequest {
    query: LogQuery,
    follow: bool,
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Format {
    #[default]
    Text,
    Ndjson,
}

/// Lines on their way to a chunk.
#[derive(Debug)]
struct Encoder {
    format: Format,
    chunk: Vec<u8>,
    /// Begin of a character that a module's message was cut in, for stdout and stderr.
    cut: [Vec<u8>; 2],
}

/// Answers with the log of `module`. It ends with the log, or for a followed one when
/// the client leaves, the module is removed, `until` has passed or the server ends.
pub(super) async fn stream(
    context: &Context,
    module: &str,
    parameters: &str,
) -> Result<Response<Body>, CommandError> {
    let request = LogRequest::parse(parameters, Timestamp::now())?;
    let id = ContainerId::try_from(module).map_err(|_| CommandError::no_module(module))?;
    if !has_module(context, module) {
        return Err(CommandError::no_module(module));
    }
    let dir = context.state_dir.join("modules").join(&id).join("log");
    let (chunks, response) = body::stream(match request.format {
        Format::Text => "text/plain; charset=utf-8",
        Format::Ndjson => "application/x-ndjson",
    });
    if request.follow {
        let follow = blocking(move || Follow::open(&dir, &request.query)).await;
        let follow = follow.map_err(|error| {
            let message = format!(
                "cannot read the log of module {module:?}: {}",
                chain(&error)
            );
            CommandError::new(ErrorCode::Failed, message)
        })?;
        tokio::spawn(send_followed(context.clone(), id, follow, request, chunks));
    } else {
        tokio::task::spawn_blocking(move || send_all(&dir, &request, &chunks));
    }
    Ok(response)
}

fn has_module(context: &Context, name: &str) -> bool {
    context
        .handle
        .modules()
        .iter()
        .any(|view| view.name == name)
}

fn send_all(dir: &Path, request: &LogRequest, chunks: &Chunks) {
    let mut encoder = Encoder::new(request.format);
    let read = log::read(dir, &request.query, &mut |line| encoder.push(line, chunks));
    let _ = encoder.flush(chunks);
    break_off(read, chunks);
}

async fn send_followed(
    mut context: Context,
    module: ContainerId,
    mut follow: Follow,
    request: LogRequest,
    chunks: Chunks,
) {
    let mut encoder = Encoder::new(request.format);
    loop {
        // Before the poll, so that what came until then is sent.
        let over = request
            .query
            .until
            .is_some_and(|until| Timestamp::now() > until)
            || !has_module(&context, module.as_str());
        let sender = chunks.clone();
        let polled;
        (follow, encoder, polled) = blocking(move || {
            let polled = follow.poll(&mut |line| encoder.push(line, &sender));
            let polled = polled.map(|flow| flow.is_break() || encoder.flush(&sender).is_break());
            (follow, encoder, polled)
        })
        .await;
        match polled {
            Ok(false) if !over => {}
            Ok(_) => return,
            Err(error) => {
                let _ = chunks.send(Err(io::Error::other(error))).await;
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = chunks.closed() => return,
            () = context.closed() => return,
        }
    }
}

fn break_off(read: Result<(), LogError>, chunks: &Chunks) {
    if let Err(error) = read {
        let _ = chunks.blocking_send(Err(io::Error::other(error)));
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    done.expect("invariant: reading a log does not panic and is not cancelled")
}

impl LogRequest {
    fn parse(parameters: &str, now: Timestamp) -> Result<Self, CommandError> {
        let invalid = |message: String| CommandError::new(ErrorCode::Invalid, message);
        let pairs = query::pairs(parameters)
            .ok_or_else(|| invalid(format!("invalid query {parameters:?}")))?;
        let mut request = Self::default();
        for (name, value) in pairs {
            request
                .set(&name, &value, now)
                .map_err(|reason| invalid(format!("query parameter {name:?}: {reason}")))?;
        }
        Ok(request)
    }

    fn set(&mut self, name: &str, value: &str, now: Timestamp) -> Result<(), String> {
        let refused = || format!("unknown value {value:?}");
        let moment = || moment::parse(value, now).map_err(|error| error.to_string());
        match (name, value) {
            ("tail", "all") => self.query.tail = None,
            ("tail", _) => self.query.tail = Some(value.parse().map_err(|_| refused())?),
            ("since", _) => self.query.since = Some(moment()?),
            ("until", _) => self.query.until = Some(moment()?),
            ("follow", _) => self.follow = value.parse().map_err(|_| refused())?,
            ("format", "text") => self.format = Format::Text,
            ("format", "ndjson") => self.format = Format::Ndjson,
            ("format", _) => return Err(refused()),
            _ => return Err("unknown parameter".to_owned()),
        }
        Ok(())
    }
}

impl Encoder {
    fn new(format: Format) -> Self {
        Self {
            format,
            chunk: Vec::new(),
            cut: Default::default(),
        }
    }

    /// Breaks when the client has left.
    fn push(&mut self, line: LogLine<'_>, chunks: &Chunks) -> ControlFlow<()> {
        match self.format {
            Format::Text => {
                self.chunk.extend_from_slice(line.message);
                if !line.partial {
                    self.chunk.push(b'\n');
                }
            }
            Format::Ndjson => {
                let record = self.record(line);
                serde_json::to_writer(&mut self.chunk, &record)
                    .expect("invariant: a record is JSON and a vector takes all");
                self.chunk.push(b'\n');
            }
        }
        if self.chunk.len() >= CHUNK {
            return self.flush(chunks);
        }
        ControlFlow::Continue(())
    }

    fn flush(&mut self, chunks: &Chunks) -> ControlFlow<()> {
        if self.chunk.is_empty() {
            return ControlFlow::Continue(());
        }
        let bytes = Bytes::from(std::mem::take(&mut self.chunk));
        match chunks.blocking_send(Ok(bytes)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// The line with a character that was cut in two kept for the piece that completes it.
    fn record(&mut self, line: LogLine<'_>) -> LogRecord {
        let cut = &mut self.cut[usize::from(line.stream == LogStream::Stderr)];
        let mut bytes = std::mem::take(cut);
        bytes.extend_from_slice(line.message);
        if line.partial
            && let Err(error) = std::str::from_utf8(&bytes)
            && error.error_len().is_none()
        {
            *cut = bytes.split_off(error.valid_up_to());
        }
        LogRecord {
            timestamp: line.timestamp,
            stream: line.stream.as_str().to_owned(),
            message: String::from_utf8_lossy(&bytes).into_owned(),
            partial: line.partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_read() {
        let now = Timestamp::from_unix(1000, 0);
        let request =
            LogRequest::parse("tail=5&since=10m&until=900&follow=true&format=ndjson", now);
        let expected = LogRequest {
            query: LogQuery {
                tail: Some(5),
                since: Some(Timestamp::from_unix(400, 0)),
                until: Some(Timestamp::from_unix(900, 0)),
            },
            follow: true,
            format: Format::Ndjson,
        };
        assert_eq!(request, Ok(expected));
        assert_eq!(
            LogRequest::parse("tail=all", now),
            Ok(LogRequest::default())
        );
        for bad in [
            "tail=-1",
            "tail=x",
            "since=x",
            "follow=1",
            "format=xml",
            "lines=3",
            "tail=%",
        ] {
            let error = LogRequest::parse(bad, now).unwrap_err();
            assert_eq!(error.code, ErrorCode::Invalid, "{bad}");
        }
    }

    #[test]
    fn a_character_cut_in_two_arrives_whole() {
        let mut encoder = Encoder::new(Format::Ndjson);
        let line = |message, partial| LogLine {
            timestamp: Timestamp::from_unix(0, 0),
            stream: LogStream::Stdout,
            partial,
            message,
        };
        assert_eq!(encoder.record(line(b"a\xe2\x82", true)).message, "a");
        assert_eq!(encoder.record(line(b"\xac!", false)).message, "\u{20ac}!");
        assert_eq!(
            encoder.record(line(b"\xff\xe2", false)).message,
            "\u{fffd}\u{fffd}"
        );
    }
}
