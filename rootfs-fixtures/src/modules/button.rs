//! `button`: asks the Qwiic Button once a second and tells the LED's module.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::{Stop, state};
use crate::qwiic::{Bus, Button};

/// Where the tutorial's LED listens.
pub const DEFAULT_LED_URL: &str = "http://led-acr/";
/// How often the button is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// How long connecting, sending and each read may take.
const TIMEOUT: Duration = Duration::from_secs(2);
/// An answer's head is within this.
const HEAD_LIMIT: u64 = 8 * 1024;

/// The LED's address: `http://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedUrl {
    host: String,
    port: u16,
    /// With a slash at its end.
    path: String,
}

/// The text is no address that can be posted to.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{url:?} is not http://HOST[:PORT][/PATH]")]
pub struct LedUrlError {
    /// The text as found.
    pub url: String,
}

impl std::str::FromStr for LedUrl {
    type Err = LedUrlError;

    fn from_str(url: &str) -> Result<Self, LedUrlError> {
        let wrong = || LedUrlError {
            url: url.to_owned(),
        };
        let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong())?),
            None => (authority, 80),
        };
        if host.is_empty() || url.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(wrong());
        }
        let path = format!("/{path}");
        let path = if path.ends_with('/') {
            path
        } else {
            path + "/"
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            path,
        })
    }
}

impl std::fmt::Display for LedUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            80 => write!(f, "http://{}{}", self.host, self.path),
            port => write!(f, "http://{}:{port}{}", self.host, self.path),
        }
    }
}

/// Asks `button` every second and posts to `url`, until `stop`; a line for each post.
///
/// A silent button or an LED that is away is said and tried again a second later.
///
/// # Errors
/// When waiting is not possible.
pub fn run<B: Bus>(
    button: &mut Button<B>,
    url: &LedUrl,
    stop: &Stop,
    log: fn(&str),
) -> io::Result<()> {
    let mut next = Instant::now();
    loop {
        match button.is_pressed() {
            Ok(pressed) => {
                let target = format!("{url}{}", state::spell(pressed));
                match post(url, pressed) {
                    Ok(status) => log(&format!("POST {target} {status}")),
                    Err(error) => log(&format!("POST {target} failed: {error}")),
                }
            }
            Err(error) => log(&format!("the button does not answer: {error}")),
        }
        next = (next + PERIOD).max(Instant::now());
        if stop.within(next.saturating_duration_since(Instant::now()))? {
            return Ok(());
        }
    }
}

/// Posts one state and gives the answer's status code.
fn post(url: &LedUrl, pressed: bool) -> io::Result<u16> {
    let mut stream = connect(url)?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let request = format!(
        "POST {}{} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        url.path,
        state::spell(pressed),
        url.host,
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(HEAD_LIMIT).read_to_end(&mut answer)?;
    parse_status(&answer)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

fn connect(url: &LedUrl) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (url.host.as_str(), url.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn parse_status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let (version, rest) = line.split_once(' ')?;
    version.starts_with("HTTP/1.").then_some(())?;
    rest.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_host_port_and_path() {
        for (text, host, port, path) in [
            ("http://led-acr/", "led-acr", 80, "/"),
            ("http://led-acr", "led-acr", 80, "/"),
            ("http://127.0.0.1:8080", "127.0.0.1", 8080, "/"),
            ("http://led:81/a/b", "led", 81, "/a/b/"),
        ] {
            let expected = LedUrl {
                host: host.to_owned(),
                port,
                path: path.to_owned(),
            };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "led-acr",
            "https://led-acr/",
            "http:///x",
            "http://led:x/",
            "http://a b/",
        ] {
            assert_eq!(
                text.parse::<LedUrl>(),
                Err(LedUrlError {
                    url: text.to_owned()
                })
            );
        }
    }

    #[test]
    fn answers_start_with_a_status() {
        for (answer, status) in [
            (&b"HTTP/1.1 200 OK\r\n\r\n"[..], Some(200)),
            (b"HTTP/1.0 404\r\n", Some(404)),
            (b"HTTP/2 200\r\n", None),
            (b"SSH-2.0-x\r\n", None),
            (b"", None),
        ] {
            assert_eq!(parse_status(answer), status);
        }
    }
}
