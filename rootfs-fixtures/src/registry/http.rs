//! HTTP/1.1 messages as the small servers here need them: whole requests in, one response out.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest request head and longest request body that are read.
const LIMIT: usize = 64 * 1024;
/// Largest piece written at once; pauses and throttles act between pieces.
const PIECE: usize = 64 * 1024;

/// A request with its body.
#[derive(Clone, Debug)]
pub(crate) struct HttpRequest {
    pub(crate) method: String,
    /// The path, without the query, as sent.
    pub(crate) path: String,
    /// What follows the question mark, as sent.
    pub(crate) query: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) keep_alive: bool,
}

/// A response, with how it is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Arc<[u8]>,
    /// The part of `body` that is sent.
    pub(crate) part: Range<usize>,
    pub(crate) delivery: Delivery,
}

/// How the body travels. The default is at once and whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// Close the connection instead of answering.
    pub(crate) silent: bool,
    /// Close the connection after so many body bytes.
    pub(crate) drop_after: Option<usize>,
    /// Pause once after so many body bytes.
    pub(crate) stall: Option<(usize, Duration)>,
    /// Bytes per second.
    pub(crate) throttle: Option<usize>,
    /// Chunked transfer, without a `Content-Length`.
    pub(crate) chunked: bool,
}

impl HttpRequest {
    /// Reads the next request; `None` when the client closed the connection between two.
    ///
    /// `spare` keeps what was read beyond this request.
    pub(crate) fn read(stream: &mut impl Read, spare: &mut Vec<u8>) -> io::Result<Option<Self>> {
        loop {
            if let Some((mut request, head)) = parse_head(spare)? {
                let length = request.content_length()?;
                while spare.len() < head + length {
                    if !fill(stream, spare)? {
                        return Err(invalid("the request's body ends early"));
                    }
                }
                request.body = spare[head..head + length].to_vec();
                spare.drain(..head + length);
                return Ok(Some(request));
            }
            if spare.len() > LIMIT {
                return Err(invalid("the request's head is too long"));
            }
            if !fill(stream, spare)? {
                return if spare.is_empty() {
                    Ok(None)
                } else {
                    Err(invalid("a head ends early"))
                };
            }
        }
    }

    /// The value of the first header of that name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        Some(&found.1)
    }

    fn content_length(&self) -> io::Result<usize> {
        if self.header("transfer-encoding").is_some() {
            return Err(invalid("chunked requests are not read"));
        }
        match self.header("content-length").map(str::parse) {
            None => Ok(0),
            Some(Ok(length)) if length <= LIMIT => Ok(length),
            Some(_) => Err(invalid("the request's body is too long")),
        }
    }
}

impl Response {
    /// A response with a body of the given type.
    pub(crate) fn new(status: u16, content_type: &str, body: impl Into<Arc<[u8]>>) -> Self {
        let body = body.into();
        let part = 0..body.len();
        Self {
            status,
            headers: Vec::new(),
            body,
            part,
            delivery: Delivery::default(),
        }
        .header("Content-Type", content_type)
    }

    /// A response in JSON.
    pub(crate) fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::new(status, "application/json", body.to_string().into_bytes())
    }

    /// Sets a header, replacing one of the same name.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends the response; `Ok(false)` when the connection is to be closed. `sent` counts the body
    /// bytes, also when sending fails; `stopping` ends pauses early.
    pub(crate) fn send(
        &self,
        stream: &mut impl Write,
        request: &HttpRequest,
        sent: &mut usize,
        stopping: &dyn Fn() -> bool,
    ) -> io::Result<bool> {
        if self.delivery.silent {
            return Ok(false);
        }
        stream.write_all(self.head(request.keep_alive).as_bytes())?;
        if request.method == "HEAD" || self.status == 304 {
            return Ok(request.keep_alive);
        }
        let body = &self.body[self.part.clone()];
        let end = self
            .delivery
            .drop_after
            .map_or(body.len(), |limit| limit.min(body.len()));
        let mut stall = self.delivery.stall;
        let begin = Instant::now();
        while *sent < end {
            let mut piece = PIECE.min(end - *sent);
            if let Some((at, pause)) = stall {
                if at <= *sent {
                    stall = None;
                    wait(pause, stopping);
                } else {
                    piece = piece.min(at - *sent);
                }
            }
            if let Some(rate) = self.delivery.throttle {
                let rate = rate.max(1);
                piece = piece.min(rate.div_ceil(20));
                let due = Duration::from_secs_f64((*sent + piece) as f64 / rate as f64);
                wait(due.saturating_sub(begin.elapsed()), stopping);
            }
            self.write_piece(stream, &body[*sent..*sent + piece])?;
            *sent += piece;
        }
        if self.delivery.drop_after.is_some() && end < body.len() {
            return Ok(false);
        }
        if self.delivery.chunked {
            stream.write_all(b"0\r\n\r\n")?;
        }
        Ok(request.keep_alive)
    }

    fn write_piece(&self, stream: &mut impl Write, piece: &[u8]) -> io::Result<()> {
        if !self.delivery.chunked {
            return stream.write_all(piece);
        }
        stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
        stream.write_all(piece)?;
        stream.write_all(b"\r\n")
    }

    fn head(&self, keep_alive: bool) -> String {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.delivery.chunked {
            head.push_str("Transfer-Encoding: chunked\r\n");
        } else {
            head.push_str(&format!("Content-Length: {}\r\n", self.part.len()));
        }
        if !keep_alive {
            head.push_str("Connection: close\r\n");
        }
        head.push_str("\r\n");
        head
    }
}

/// Undoes `%XX` and, as forms want it, turns `+` into a space.
pub(crate) fn percent_decode(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let pair = [bytes.next().unwrap_or(0), bytes.next().unwrap_or(0)];
                let digits = std::str::from_utf8(&pair).unwrap_or_default();
                out.push(u8::from_str_radix(digits, 16).unwrap_or(b'?'));
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// All values of `name` in a query or a form.
pub(crate) fn form_values(form: &str, name: &str) -> Vec<String> {
    form.split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, _)| percent_decode(key) == name)
        .map(|(_, value)| percent_decode(value))
        .collect()
}

/// Sleeps in short steps, so that a stopping server need not wait for it.
fn wait(time: Duration, stopping: &dyn Fn() -> bool) {
    let end = Instant::now() + time;
    while !stopping() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(20)));
    }
}

fn parse_head(bytes: &[u8]) -> io::Result<Option<(HttpRequest, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(invalid("not an HTTP/1 request")),
    };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = HttpRequest {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        headers: parsed
            .headers
            .iter()
            .map(|header| {
                (
                    header.name.to_owned(),
                    String::from_utf8_lossy(header.value).trim().to_owned(),
                )
            })
            .collect(),
        body: Vec::new(),
        keep_alive: parsed.version == Some(1),
    };
    if let Some(connection) = request.header("connection") {
        request.keep_alive &= !connection.eq_ignore_ascii_case("close");
    }
    Ok(Some((request, length)))
}

fn fill(stream: &mut impl Read, spare: &mut Vec<u8>) -> io::Result<bool> {
    let mut piece = [0; 4096];
    let length = stream.read(&mut piece)?;
    spare.extend_from_slice(&piece[..length]);
    Ok(length > 0)
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
