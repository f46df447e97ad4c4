//! The stream that MQTT runs on: TCP, perhaps through a proxy, TLS, perhaps a WebSocket.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::device::Server;
use super::{http_head, websocket};

/// How long a connection may take to be made, up to the end of its TLS handshake.
const CONNECT: Duration = Duration::from_secs(30);
const MQTT_PORT: u16 = 8883;
const WEBSOCKET_PATH: &str = "/$iothub/websocket";

/// A stream in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// What MQTT is carried by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Tls,
    WebSocket,
}

/// A stream under way.
pub(super) type Dialling<'a> =
    Pin<Box<dyn Future<Output = Result<Box<dyn Duplex>, TransportError>> + Send + 'a>>;

/// What makes streams to the hub.
pub(super) trait Dial: Send + Sync {
    /// Connects to `server`, within a bounded time.
    fn dial<'a>(&'a self, server: &'a Server, carrier: Carrier) -> Dialling<'a>;
}

/// How to reach the hub.
pub(super) struct Network {
    pub(super) tls: Arc<ClientConfig>,
    pub(super) proxy: Option<Url>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    #[error("cannot connect to {address}")]
    Connect { address: String, source: io::Error },
    #[error("cannot reach {address} through the proxy")]
    Proxy { address: String, source: io::Error },
    #[error("cannot open a TLS session with {host}")]
    Tls { host: String, source: io::Error },
    #[error("cannot open a WebSocket at {host}")]
    WebSocket { host: String, source: io::Error },
    #[error("cannot use {host:?} as the name of a TLS server")]
    Name { host: String },
    #[error("{address} did not answer in time")]
    Timeout { address: String },
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot read the certificates in {}", path.display())]
    Pem {
        path: PathBuf,
        source: rustls::pki_types::pem::Error,
    },
    #[error("cannot use the certificates in {}", path.display())]
    Certificate {
        path: PathBuf,
        source: rustls::Error,
    },
    #[error("cannot set up TLS")]
    Setup(#[source] rustls::Error),
}

/// Files of a certificate of ours and its private key.
pub(super) struct ClientFiles<'a> {
    pub(super) certificate: &'a Path,
    pub(super) private_key: &'a Path,
}

/// Trusts the system's certificates and those of `bundle`. Blocks.
pub(super) fn tls(
    bundle: Option<&Path>,
    client: Option<&ClientFiles<'_>>,
) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    // What cannot be read is not trusted; a hub that needs it says so at its handshake.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = bundle {
        for certificate in certificates(path)? {
            let added = roots.add(certificate);
            added.map_err(|source| TlsError::Certificate {
                path: path.to_owned(),
                source,
            })?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Setup)?
        .with_root_certificates(roots);
    let Some(client) = client else {
        return Ok(builder.with_no_client_auth());
    };
    let pem = |source| TlsError::Pem {
        path: client.private_key.to_owned(),
        source,
    };
    let key = PrivateKeyDer::from_pem_file(client.private_key).map_err(pem)?;
    let chain = certificates(client.certificate)?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|source| TlsError::Certificate {
            path: client.certificate.to_owned(),
            source,
        })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |source| TlsError::Pem {
        path: path.to_owned(),
        source,
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(pem)?.collect();
    found.map_err(pem)
}

impl Dial for Network {
    fn dial<'a>(&'a self, server: &'a Server, carrier: Carrier) -> Dialling<'a> {
        Box::pin(self.connect(server, carrier))
    }
}

impl Network {
    async fn connect(
        &self,
        server: &Server,
        carrier: Carrier,
    ) -> Result<Box<dyn Duplex>, TransportError> {
        let port = match carrier {
            Carrier::Tls => MQTT_PORT,
            Carrier::WebSocket => server.port,
        };
        let host = &server.host;
        let address = format!("{host}:{port}");
        let attempt = self.open(host, &address, carrier);
        match tokio::time::timeout(CONNECT, attempt).await {
            Ok(result) => result,
            Err(_) => Err(TransportError::Timeout { address }),
        }
    }

    async fn open(
        &self,
        host: &str,
        address: &str,
        carrier: Carrier,
    ) -> Result<Box<dyn Duplex>, TransportError> {
        let tcp = self.tcp(address).await?;
        // Small packets and few: none shall wait for another.
        let _ = tcp.set_nodelay(true);
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| TransportError::Name {
            host: host.to_owned(),
        })?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, tcp).await;
        let stream = stream.map_err(|source| TransportError::Tls {
            host: host.to_owned(),
            source,
        })?;
        if carrier == Carrier::Tls {
            return Ok(Box::new(stream));
        }
        let opened = websocket::open(stream, host, WEBSOCKET_PATH).await;
        let opened = opened.map_err(|source| TransportError::WebSocket {
            host: host.to_owned(),
            source,
        })?;
        Ok(Box::new(opened))
    }

    async fn tcp(&self, address: &str) -> Result<TcpStream, TransportError> {
        let Some(proxy) = &self.proxy else {
            let connected = TcpStream::connect(address).await;
            return connected.map_err(|source| TransportError::Connect {
                address: address.to_owned(),
                source,
            });
        };
        let through = through_proxy(proxy, address).await;
        through.map_err(|source| TransportError::Proxy {
            address: address.to_owned(),
            source,
        })
    }
}

async fn through_proxy(proxy: &Url, address: &str) -> io::Result<TcpStream> {
    let host = proxy.host_str().unwrap_or_default();
    let port = proxy.port_or_known_default().unwrap_or(80);
    let mut stream = TcpStream::connect((host, port)).await?;
    stream
        .write_all(connect_request(proxy, address).as_bytes())
        .await?;
    let answer = http_head::read(&mut stream).await?;
    match answer.status {
        200..=299 => Ok(stream),
        status => Err(io::Error::other(format!("the proxy answered {status}"))),
    }
}

fn connect_request(proxy: &Url, address: &str) -> String {
    let mut request = format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n");
    if !proxy.username().is_empty() {
        let decode = |text: &str| super::topic::percent_decode(text).unwrap_or_default();
        let (user, password) = (proxy.username(), proxy.password().unwrap_or_default());
        let login = STANDARD.encode(format!("{}:{}", decode(user), decode(password)));
        request += &format!("Proxy-Authorization: Basic {login}\r\n");
    }
    request + "\r\n"
}

/// The proxy for `host`: the configured one, or the environment's.
pub(super) fn proxy_for(
    configured: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
    host: &str,
) -> Option<Url> {
    if let Some(proxy) = configured {
        return Url::parse(proxy).ok();
    }
    let either = |lower: &str, upper: &str| variable(lower).or_else(|| variable(upper));
    let exempt = either("no_proxy", "NO_PROXY").is_some_and(|list| {
        let mut entries = list
            .split(',')
            .map(|entry| entry.trim().trim_start_matches('.'));
        entries.any(|entry| entry == "*" || is_below(host, entry))
    });
    if exempt {
        return None;
    }
    let proxy = either("https_proxy", "HTTPS_PROXY").filter(|proxy| !proxy.is_empty())?;
    Url::parse(&proxy)
        .ok()
        .filter(|proxy| proxy.scheme() == "http")
}

/// Whether `host` is `domain` or in it.
fn is_below(host: &str, domain: &str) -> bool {
    let rest = host.strip_suffix(domain);
    !domain.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_asked_for_a_tunnel_with_its_login() {
        let proxy = Url::parse("http://user:p%40ss@proxy:3128").unwrap();
        let request = connect_request(&proxy, "h:8883");
        let expected = "CONNECT h:8883 HTTP/1.1\r\nHost: h:8883\r\nProxy-Authorization: Basic dXNlcjpwQHNz\r\n\r\n";
        assert_eq!(request, expected);
        let open = Url::parse("http://proxy").unwrap();
        assert!(!connect_request(&open, "h:443").contains("Authorization"));
    }

    #[test]
    fn the_configured_proxy_outranks_the_environments() {
        let environment = |name: &str| match name {
            "https_proxy" => Some("http://env:1".to_owned()),
            "NO_PROXY" => Some("localhost, .lan".to_owned()),
            _ => None,
        };
        let found = |configured, host| {
            proxy_for(configured, environment, host).map(|url| url.host_str().unwrap().to_owned())
        };
        assert_eq!(found(None, "hub.net").as_deref(), Some("env"));
        assert_eq!(
            found(Some("http://own:2"), "hub.lan").as_deref(),
            Some("own")
        );
        for exempt in ["localhost", "lan", "hub.lan"] {
            assert_eq!(found(None, exempt), None);
        }
        assert!(found(None, "notlan").is_some());
    }
}
