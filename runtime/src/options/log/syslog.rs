//! A syslog server, and how it is spoken to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Tag;

/// Port of syslog over UDP and TCP.
const PORT: u16 = 514;
/// Bytes of a path that fit into a socket's address, with the zero behind it.
const MAX_PATH: usize = 107;

/// A syslog server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Syslog {
    /// Program that the lines are from.
    pub tag: Tag,
    /// Where it is.
    pub address: SyslogAddress,
    /// Form of a message.
    pub format: SyslogFormat,
    /// Number of the facility, 0 to 23.
    pub facility: u8,
}

/// Where a syslog server is; written as a URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SyslogAddress {
    /// A socket on this device.
    Unix(PathBuf),
    /// Over UDP.
    Udp(SocketAddr),
    /// Over TCP, a line feed behind each message.
    Tcp(SocketAddr),
}

/// Form of a syslog message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyslogFormat {
    /// As programs of the device itself write it: RFC 3164 without the device's name.
    Local,
    /// RFC 3164.
    Rfc3164,
    /// RFC 5424, times in whole seconds.
    Rfc5424,
    /// RFC 5424, times in microseconds.
    Rfc5424Micro,
}

/// Text that is no address of a syslog server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// It has no known scheme before `://`.
    #[error("must begin with unix://, unixgram://, udp:// or tcp://")]
    Scheme,
    /// It asks for TLS.
    #[error("asks for TLS, which is not supported")]
    Tls,
    /// It has a path that is not absolute, or too long.
    #[error("must have an absolute path of at most {MAX_PATH} bytes")]
    Path,
    /// It has no IP address, or a port that is none.
    #[error("must have an IP address, and a port if it is not {PORT}: names are not looked up")]
    Host,
}

impl SyslogAddress {
    /// The socket to which programs of the device itself send their log.
    pub const LOCAL: &str = "/dev/log";
}

impl FromStr for SyslogAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let (scheme, rest) = text.split_once("://").ok_or(InvalidAddress::Scheme)?;
        match scheme {
            "unix" | "unixgram" => {
                let fits = rest.starts_with('/') && rest.len() <= MAX_PATH && !rest.contains('\0');
                fits.then(|| Self::Unix(rest.into()))
                    .ok_or(InvalidAddress::Path)
            }
            "udp" => socket(rest).map(Self::Udp),
            "tcp" => socket(rest).map(Self::Tcp),
            "tcp+tls" => Err(InvalidAddress::Tls),
            _ => Err(InvalidAddress::Scheme),
        }
    }
}

/// `address`, `address:port`, `[address]` or `[address]:port`.
fn socket(text: &str) -> Result<SocketAddr, InvalidAddress> {
    let alone = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let alone = alone.unwrap_or(text).parse().ok();
    let alone = alone.map(|address: IpAddr| SocketAddr::new(address, PORT));
    let found = alone.or_else(|| text.parse().ok());
    found
        .filter(|found| found.port() != 0)
        .ok_or(InvalidAddress::Host)
}

impl fmt::Display for SyslogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

impl TryFrom<String> for SyslogAddress {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<SyslogAddress> for String {
    fn from(address: SyslogAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_urls_with_ip_addresses_or_paths() {
        let cases = [
            ("unix:///dev/log", Ok("unix:///dev/log")),
            ("unixgram:///run/log", Ok("unix:///run/log")),
            ("udp://192.0.2.1", Ok("udp://192.0.2.1:514")),
            ("tcp://192.0.2.1:601", Ok("tcp://192.0.2.1:601")),
            ("tcp://[2001:db8::1]:601", Ok("tcp://[2001:db8::1]:601")),
            ("udp://[2001:db8::1]", Ok("udp://[2001:db8::1]:514")),
            ("tcp+tls://192.0.2.1", Err(InvalidAddress::Tls)),
            ("tcp://logs.example.com:514", Err(InvalidAddress::Host)),
            ("udp://192.0.2.1:0", Err(InvalidAddress::Host)),
            ("udp://", Err(InvalidAddress::Host)),
            ("unix://log", Err(InvalidAddress::Path)),
            ("/dev/log", Err(InvalidAddress::Scheme)),
            ("http://192.0.2.1", Err(InvalidAddress::Scheme)),
        ];
        for (text, expected) in cases {
            let parsed = text.parse::<SyslogAddress>();
            let shown = parsed.map(|address| address.to_string());
            assert_eq!(shown.as_deref(), expected.as_ref().map(|t| *t), "{text}");
        }
        let long = format!("unix:///{}", "x".repeat(MAX_PATH));
        assert_eq!(long.parse::<SyslogAddress>(), Err(InvalidAddress::Path));
    }
}
