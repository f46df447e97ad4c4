//! Requests to a hub's service REST: one of `kobune-hub`, or Azure's.

mod stream;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, IF_MATCH, RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use kobune_iothub_auth::{ConnectionString, SasToken};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio_rustls::TlsConnector;

use super::Failure;
use super::line::Line;
use super::refusal::ClientError;
use super::serve::{CA_FILE, CONNECTION_STRING_FILE};
use crate::moment::Moment;

/// Where a hub of this machine keeps its state, unless told otherwise.
pub(super) const DEFAULT_STATE: &str = "/var/lib/kobune-hub";
/// Variable with the connection string.
const CONNECTION_STRING_VARIABLE: &str = "KOBUNE_HUB_CONNECTION_STRING";
/// Variable that names a file of certificates to trust.
const CA_VARIABLE: &str = "KOBUNE_HUB_CA";
const API_VERSION: &str = "2021-04-12";
/// Seconds for which a token is good.
const TOKEN_SECONDS: u64 = 900;
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(30);
/// How long an answer may take that waits for no device.
const ANSWER: Duration = Duration::from_secs(60);
/// How often a hub is asked again that says it has too much to do: it has done nothing then.
const BUSY_TRIES: u32 = 6;
/// The first wait for such a hub, doubled each time, where it says none.
const BUSY_WAIT: Duration = Duration::from_secs(1);
/// The longest one.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(30);

/// Which hub, and how to get in, as the command line says it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Access {
    connection_string: Option<Secret>,
    state: Option<PathBuf>,
    ca: Option<PathBuf>,
}

/// Text that cannot be printed.
#[derive(PartialEq, Eq)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Access {
    /// That of the hub with the state directory `state`.
    pub(super) fn of_state(state: &Path) -> Self {
        Self {
            state: Some(state.to_owned()),
            ..Self::default()
        }
    }

    pub(super) fn take(line: &mut Line) -> Result<Self, lexopt::Error> {
        let access = Self {
            connection_string: line.value::<String>("connection-string")?.map(Secret),
            state: line.path("state")?,
            ca: line.path("ca")?,
        };
        if access.connection_string.is_some() && access.state.is_some() {
            return Err("either --connection-string or --state".into());
        }
        Ok(access)
    }

    /// The connection string, and the file of what to trust; without one the system's
    /// certificates are trusted.
    fn resolve(&self) -> Result<(ConnectionString, Option<PathBuf>), Failure> {
        let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let ca = self.ca.clone();
        let ca = ca.or_else(|| variable(CA_VARIABLE).map(PathBuf::from));
        let given = match (&self.connection_string, &self.state) {
            (Some(Secret(text)), _) => Some((text.clone(), "--connection-string")),
            (None, Some(_)) => None,
            (None, None) => {
                variable(CONNECTION_STRING_VARIABLE).map(|text| (text, CONNECTION_STRING_VARIABLE))
            }
        };
        if let Some((text, name)) = given {
            let parsed = text.parse();
            let parsed = parsed.map_err(|error| format!("{name} is not valid: {error}"))?;
            return Ok((parsed, ca));
        }
        let state = self.state.as_deref().unwrap_or(Path::new(DEFAULT_STATE));
        let path = state.join(CONNECTION_STRING_FILE);
        let text = std::fs::read_to_string(&path).map_err(|error| {
            let path = path.display();
            format!(
                "cannot read {path}: {error}; for a hub elsewhere give --connection-string or set {CONNECTION_STRING_VARIABLE}"
            )
        })?;
        let parsed = text.parse();
        let parsed = parsed.map_err(|error| format!("{} is not valid: {error}", path.display()))?;
        Ok((parsed, Some(ca.unwrap_or_else(|| state.join(CA_FILE)))))
    }
}

/// A hub, and what it takes to be let in.
pub(super) struct Client {
    service: ConnectionString,
    tls: Arc<ClientConfig>,
    runtime: tokio::runtime::Runtime,
}

/// A request to be sent.
#[derive(Debug)]
pub(super) struct Request {
    /// What is done by it, as in "cannot ...".
    action: String,
    method: Method,
    path: String,
    body: Option<Value>,
    headers: Vec<(&'static str, String)>,
    wait: Duration,
}

impl Request {
    pub(super) fn new(method: Method, path: impl Into<String>, action: impl Into<String>) -> Self {
        Self {
            action: action.into(),
            method,
            path: path.into(),
            body: None,
            headers: Vec::new(),
            wait: ANSWER,
        }
    }

    pub(super) fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Only if the etag is this; `*` is any.
    pub(super) fn if_match(mut self, etag: &str) -> Self {
        let quoted = match etag {
            "*" => etag.to_owned(),
            etag => format!("\"{etag}\""),
        };
        self.headers.push((IF_MATCH.as_str(), quoted));
        self
    }

    /// Waits so much longer for the answer than usual.
    pub(super) fn patient(mut self, longer: Duration) -> Self {
        self.wait += longer;
        self
    }
}

impl Client {
    pub(super) fn open(access: &Access) -> Result<Self, Failure> {
        let (service, ca) = access.resolve()?;
        if service.shared_access_key_name.is_none() || service.key().is_none() {
            let what = "a service's has SharedAccessKeyName and SharedAccessKey";
            return Err(format!("the connection string is a device's: {what}").into());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots(ca.as_deref())?)
            .with_no_client_auth();
        let runtime = tokio::runtime::Builder::new_current_thread();
        Ok(Self {
            service,
            tls: Arc::new(tls),
            runtime: { runtime }.enable_all().build()?,
        })
    }

    /// The hub's name, without a port.
    pub(super) fn host(&self) -> &str {
        let host = &self.service.host_name;
        host.split(':').next().unwrap_or(host)
    }

    /// The body of the answer, `Null` where it has none. Blocks, also while the hub is too busy.
    ///
    /// # Errors
    /// [`ClientError`], also if the request is refused.
    pub(super) fn send(&self, request: Request) -> Result<Value, ClientError> {
        Ok(self.exchange(request)?.1)
    }

    /// All results of a query, page by page. Blocks.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub(super) fn query(&self, text: &str, action: &str) -> Result<Vec<Value>, ClientError> {
        let mut all = Vec::new();
        let mut more = None;
        loop {
            let mut request = Request::new(Method::POST, "/devices/query", action)
                .body(serde_json::json!({ "query": text }));
            if let Some(token) = more {
                request.headers.push(("x-ms-continuation", token));
            }
            let (headers, body) = self.exchange(request)?;
            if let Value::Array(items) = body {
                all.extend(items);
            }
            let token = headers.get("x-ms-continuation");
            more = token
                .and_then(|token| token.to_str().ok())
                .filter(|token| !token.is_empty())
                .map(str::to_owned);
            if more.is_none() {
                return Ok(all);
            }
        }
    }

    fn exchange(&self, request: Request) -> Result<(HeaderMap, Value), ClientError> {
        let mut waits = (0..BUSY_TRIES).map(|n| BUSY_WAIT * 2_u32.pow(n));
        let (status, headers, bytes) = loop {
            let answer = self.once(&request)?;
            let (StatusCode::TOO_MANY_REQUESTS, Some(wait)) = (answer.0, waits.next()) else {
                break answer;
            };
            let wait = retry_after(&answer.1).unwrap_or(wait);
            std::thread::sleep(wait.min(BUSY_WAIT_MAX));
        };
        let action = request.action;
        if !status.is_success() {
            return Err(ClientError::refused(action, status, &headers, &bytes));
        }
        let body = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes)
                .map_err(|source| ClientError::Malformed { action, source })?,
        };
        Ok((headers, body))
    }

    fn once(&self, request: &Request) -> Result<(StatusCode, HeaderMap, Bytes), ClientError> {
        let carried = self.runtime.block_on(async {
            let exchange = tokio::time::timeout(CONNECT + request.wait, self.carry(request));
            exchange
                .await
                .unwrap_or_else(|_| Err("there was no answer in time".into()))
        });
        carried.map_err(|source| ClientError::Unreachable {
            action: request.action.clone(),
            hub: self.service.host_name.clone(),
            source,
        })
    }

    async fn carry(&self, request: &Request) -> Result<(StatusCode, HeaderMap, Bytes), Failure> {
        let (parts, body) = self.begin(request).await?.into_parts();
        Ok((
            parts.status,
            parts.headers,
            body.collect().await?.to_bytes(),
        ))
    }

    /// Sends the request, and is back with the head of the answer.
    async fn begin(&self, request: &Request) -> Result<hyper::Response<Incoming>, Failure> {
        let authority = &self.service.host_name;
        let address = match authority.contains(':') {
            true => authority.clone(),
            false => format!("{authority}:443"),
        };
        let name = ServerName::try_from(self.host().to_owned())?;
        let connecting = async {
            let stream = tokio::net::TcpStream::connect(&address).await?;
            TlsConnector::from(self.tls.clone())
                .connect(name, stream)
                .await
        };
        let connected = tokio::time::timeout(CONNECT, connecting).await;
        let stream = connected.map_err(|_| "no connection was made in time")??;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender.send_request(self.signed(request)?).await?)
    }

    fn signed(&self, request: &Request) -> Result<hyper::Request<Full<Bytes>>, Failure> {
        let service = &self.service;
        let key = service.key().ok_or("the connection string has no key")?;
        let policy = service.shared_access_key_name.as_deref();
        let expiry = Moment::now().unix() + TOKEN_SECONDS;
        let token = SasToken::sign(key, &service.host_name, expiry, policy);
        let mut builder = hyper::Request::builder()
            .method(request.method.clone())
            .uri(format!("{}?api-version={API_VERSION}", request.path))
            .header(HOST, &service.host_name)
            .header(AUTHORIZATION, token.to_text())
            .header(
                USER_AGENT,
                concat!("kobune-hub/", env!("CARGO_PKG_VERSION")),
            )
            .header(CONTENT_TYPE, "application/json; charset=utf-8");
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        let body = request.body.as_ref();
        let body = body.map_or_else(String::new, Value::to_string);
        Ok(builder.body(Full::new(Bytes::from(body)))?)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("hub", &self.service.host_name)
            .finish_non_exhaustive()
    }
}

/// How long the hub says that it wants to be left alone.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca else {
        // What cannot be read is not trusted; a hub that needs it says so at its handshake.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let failed = |error: &dyn std::error::Error| {
        format!("cannot use the certificates in {}: {error}", path.display())
    };
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| failed(&e))? {
        let certificate = certificate.map_err(|e| failed(&e))?;
        roots.add(certificate).map_err(|e| failed(&e))?;
    }
    if roots.is_empty() {
        return Err(format!("{} has no certificate", path.display()).into());
    }
    Ok(roots)
}
