//! The hub's service side, with what lies in its state directory.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, IF_MATCH};
use hyper::http::request;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use kobune_iothub_auth::{ConnectionString, SasToken};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::Failure;

/// Seconds for which tokens are good.
const TOKEN_SECONDS: u64 = 4 * 3600;

/// The hub, as its owner sees it.
#[derive(Debug)]
pub(crate) struct Service {
    connection: ConnectionString,
    tls: Arc<ClientConfig>,
}

/// One connection to the service side.
pub(crate) struct Requests {
    sender: SendRequest<Full<Bytes>>,
    token: String,
    host: String,
}

/// Second since 1970 at which tokens made now end.
pub(crate) fn token_end() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs()) + TOKEN_SECONDS
}

impl Service {
    pub(crate) fn open(state: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(state.join("service.connection-string"))?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(state.join("ca.pem"))?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Devices are strangers to each other: none may resume another's session.
        tls.resumption = Resumption::disabled();
        Ok(Self {
            connection: text.trim().parse()?,
            tls: Arc::new(tls),
        })
    }

    pub(crate) fn tls(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.tls)
    }

    /// The hub's name without a port.
    pub(crate) fn host(&self) -> &str {
        let host = &self.connection.host_name;
        host.split(':').next().unwrap_or(host)
    }

    /// A connection to it, on loopback.
    pub(crate) async fn connect(&self) -> Result<Requests, Failure> {
        let host = self.connection.host_name.clone();
        let port = host
            .split_once(':')
            .map_or(Ok(443), |(_, port)| port.parse())?;
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let name = ServerName::try_from(self.host().to_owned())?;
        let stream = TlsConnector::from(self.tls()).connect(name, stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let key = self.connection.key();
        let key = key.ok_or("the connection string has no key")?;
        let policy = self.connection.shared_access_key_name.as_deref();
        let token = SasToken::sign(key, &host, token_end(), policy).to_text();
        Ok(Requests {
            sender,
            token,
            host,
        })
    }
}

impl Requests {
    /// The body of the answer; an error if it is refused. `fresh` is for what is not there.
    pub(crate) async fn put(
        &mut self,
        path: &str,
        body: &Value,
        fresh: bool,
    ) -> Result<Value, Failure> {
        let mut request = self.head(Method::PUT, path);
        if !fresh {
            request = request.header(IF_MATCH, "*");
        }
        let request = request.body(Full::new(Bytes::from(body.to_string())))?;
        self.send(path, request).await
    }

    /// The body of the answer; an error if it is refused.
    pub(crate) async fn get(&mut self, path: &str) -> Result<Value, Failure> {
        let request = self.head(Method::GET, path).body(Full::default())?;
        self.send(path, request).await
    }

    fn head(&self, method: Method, path: &str) -> request::Builder {
        Request::builder()
            .method(method)
            .uri(format!("{path}?api-version=2021-04-12"))
            .header(HOST, &self.host)
            .header(AUTHORIZATION, &self.token)
            .header(CONTENT_TYPE, "application/json")
    }

    async fn send(&mut self, path: &str, request: Request<Full<Bytes>>) -> Result<Value, Failure> {
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            let text = String::from_utf8_lossy(&bytes);
            return Err(format!("{path}: {status}: {text}").into());
        }
        Ok(serde_json::from_slice(&bytes)?)
    }
}
