//! `led`: an HTTP server that lights the button's LED.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Stop, state};
use crate::qwiic::{Bus, Button};

/// How long a client may take over each read and write.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest request head, and longest body that is read and thrown away.
const LIMIT: usize = 16 * 1024;

/// The LED and what it was last set to.
pub struct Led<B> {
    button: Button<B>,
    on: bool,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Set(bool),
    Show,
    /// A path that is no boolean.
    BadState(String),
    NoSuchPath,
    NoSuchMethod,
}

/// A status code and a JSON body.
type Answer = (u16, String);

impl<B: Bus> Led<B> {
    /// Puts the LED out, so that what is known of it is true.
    ///
    /// # Errors
    /// What the bus says.
    pub fn new(mut button: Button<B>) -> io::Result<Self> {
        button.set_led(false)?;
        Ok(Self { button, on: false })
    }

    fn perform(&mut self, action: &Action) -> Answer {
        match action {
            Action::Set(on) => match self.button.set_led(*on) {
                Ok(()) => {
                    self.on = *on;
                    (200, self.show())
                }
                Err(error) => (500, problem(&format!("the LED does not answer: {error}"))),
            },
            Action::Show => (200, self.show()),
            Action::BadState(text) => (
                400,
                problem(&format!("{text:?} is no state: use true or false")),
            ),
            Action::NoSuchPath => (404, problem("use POST /true, POST /false or GET /")),
            Action::NoSuchMethod => (405, problem("use POST or GET")),
        }
    }

    fn show(&self) -> String {
        format!("{{\"led\":{}}}", self.on)
    }
}

impl<B> std::fmt::Debug for Led<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Led")
            .field("on", &self.on)
            .finish_non_exhaustive()
    }
}

/// Serves on `listener` until `stop`; a line for each request.
///
/// # Errors
/// When waiting or accepting is not possible.
pub fn run<B: Bus + 'static>(
    led: Led<B>,
    listener: &TcpListener,
    stop: &Stop,
    log: fn(&str),
) -> io::Result<()> {
    let led = Arc::new(Mutex::new(led));
    listener.set_nonblocking(true)?;
    while !stop.before_readable(listener.as_fd())? {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            // The client went away between the two calls, or another one is still possible later.
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(error),
        };
        let led = Arc::clone(&led);
        std::thread::Builder::new().spawn(move || match serve(stream, &led) {
            Ok(line) => log(&line),
            Err(error) => log(&format!("a client was lost: {error}")),
        })?;
    }
    Ok(())
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionAborted)
}

/// Answers one request; gives the line to log.
fn serve<B: Bus>(mut stream: TcpStream, led: &Mutex<Led<B>>) -> io::Result<String> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let head = read_request(&mut stream)?;
    let (method, path) = request_line(&head)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP request"))?;
    let action = Action::parse(method, path);
    let (status, body) = led
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .perform(&action);
    let answer = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        reason(status),
        body.len(),
    );
    stream.write_all(answer.as_bytes())?;
    Ok(match action {
        Action::Set(on) if status == 200 => {
            format!(
                "{method} {path} {status} LED {}",
                if on { "on" } else { "off" }
            )
        }
        _ => format!("{method} {path} {status}"),
    })
}

/// Reads head and body; gives the head.
fn read_request(stream: &mut impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let length = stream.read(&mut piece)?;
        bytes.extend_from_slice(&piece[..length]);
        if let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let mut rest = content_length(&bytes[..head]).saturating_sub(bytes.len() - head - 4);
            while rest > 0 {
                match stream.read(&mut piece)? {
                    0 => break,
                    length => rest = rest.saturating_sub(length),
                }
            }
            bytes.truncate(head);
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        if length == 0 || bytes.len() > LIMIT {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not an HTTP request",
            ));
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head);
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .map_or(0, |length: usize| length.min(LIMIT))
}

/// Method and path of a request; control characters are not let through, for they would end up in
/// the log.
fn request_line(head: &str) -> Option<(&str, &str)> {
    let line = head.lines().next()?;
    let mut words = line.split(' ');
    let (method, path, version) = (words.next()?, words.next()?, words.next()?);
    let clean = !line.contains(char::is_control) && words.next().is_none();
    (clean && version.starts_with("HTTP/1.")).then_some((method, path))
}

impl Action {
    fn parse(method: &str, path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        let Some(name) = path.strip_prefix('/') else {
            return Self::NoSuchPath;
        };
        match (method, name) {
            ("GET", "") => Self::Show,
            ("POST", "") | ("GET", _) => Self::NoSuchPath,
            ("POST", name) if name.contains('/') => Self::NoSuchPath,
            ("POST", name) => {
                state::parse(name).map_or_else(|| Self::BadState(name.to_owned()), Self::Set)
            }
            _ => Self::NoSuchMethod,
        }
    }
}

/// A JSON object with a message; the text has no control characters.
fn problem(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("{{\"error\":\"{escaped}\"}}")
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests;
