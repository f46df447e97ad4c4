//! Requests to a running hub.

use std::path::Path;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use kobune_iothub_auth::{ConnectionString, SasToken};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio_rustls::TlsConnector;

use super::Failure;
use super::serve::{CA_FILE, CONNECTION_STRING_FILE};
use crate::moment::Moment;

/// Seconds for which a token is good.
const TOKEN_SECONDS: u64 = 300;

/// A hub, by what lies in its state directory.
#[derive(Debug)]
pub(super) struct Client {
    service: ConnectionString,
    tls: Arc<ClientConfig>,
}

impl Client {
    pub(super) fn open(state: &Path) -> Result<Self, Failure> {
        let path = state.join(CONNECTION_STRING_FILE);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("reading {}: {error}", path.display()))?;
        let service: ConnectionString = text.parse()?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(state.join(CA_FILE))?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = Arc::new(tls);
        Ok(Self { service, tls })
    }

    /// The hub's name, without a port.
    pub(super) fn host(&self) -> &str {
        let host = &self.service.host_name;
        host.split(':').next().unwrap_or(host)
    }

    /// The body of the answer to one request; an error if it is refused.
    pub(super) fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        unconditional: bool,
    ) -> Result<Value, Failure> {
        let key = self
            .service
            .key()
            .ok_or("the connection string has no key")?;
        let policy = self.service.shared_access_key_name.as_deref();
        let expiry = Moment::now().unix() + TOKEN_SECONDS;
        let token = SasToken::sign(key, &self.service.host_name, expiry, policy);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{path}?api-version=2021-04-12"))
            .header(HOST, &self.service.host_name)
            .header(AUTHORIZATION, token.to_text())
            .header(CONTENT_TYPE, "application/json");
        if unconditional {
            request = request.header("if-match", "*");
        }
        let body = body.map_or_else(String::new, Value::to_string);
        let request = request.body(Full::new(Bytes::from(body)))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (status, bytes) = runtime.block_on(self.exchange(request))?;
        if !status.is_success() {
            let text = String::from_utf8_lossy(&bytes);
            return Err(format!("the hub answered {status}: {text}").into());
        }
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_slice(&bytes)?)
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(hyper::StatusCode, Bytes), Failure> {
        let authority = &self.service.host_name;
        let address = match authority.contains(':') {
            true => authority.clone(),
            false => format!("{authority}:443"),
        };
        let stream = tokio::net::TcpStream::connect(&address)
            .await
            .map_err(|error| format!("connecting to {address}: {error}"))?;
        let name = ServerName::try_from(self.host().to_owned())?;
        let stream = TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}
