//! Requests to one repository: authentication, and what a status means.

use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci_spec::distribution::Reference;
use oci_spec::image::Digest;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, RANGE, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use super::client::{Client, Schemes};
use crate::auth::challenge::{self, Challenge};
use crate::auth::token::{Grant, Scope, TokenCache, TokenResponse};
use crate::credentials::{Credentials, Secret};
use crate::digest::VerifyError;
use crate::error::PullError;
use crate::manifest::{self, MAX_DOCUMENT, ManifestError};

/// Attempts at one document before a transient failure is final.
const ATTEMPTS: u32 = 3;
/// Most bytes of a server's complaint that are read.
const MAX_DETAIL: u64 = 8 << 10;
/// Most characters of it that are shown.
const SHOWN_DETAIL: usize = 200;

/// One repository of one registry, for the length of one pull.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) client: Client,
    /// `https://host/v2/name`.
    pub(crate) base: String,
    pub(crate) reference: &'a Reference,
    pub(crate) credentials: Option<&'a Credentials>,
    pub(crate) tokens: &'a TokenCache,
    /// Before the first repetition; doubled for each further one.
    pub(crate) delay: Duration,
}

/// What a request is about, for errors.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    Manifest(String),
    Config(Digest),
    Layer(Digest),
}

/// A manifest or index as it was served.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) body: Vec<u8>,
    pub(crate) content_type: Option<String>,
    /// `Docker-Content-Digest`, if the server said it.
    pub(crate) digest: Option<String>,
}

/// The distribution API's error document.
#[derive(Deserialize)]
struct Complaint {
    errors: Vec<ComplaintItem>,
}

#[derive(Deserialize)]
struct ComplaintItem {
    code: String,
    #[serde(default)]
    message: String,
}

impl<'a> Session<'a> {
    pub(crate) async fn new(
        client: Client,
        schemes: &Schemes,
        tokens: &'a TokenCache,
        request: (&'a Reference, Option<&'a Credentials>),
        delay: Duration,
    ) -> Self {
        let (reference, credentials) = request;
        let base = client.base(reference.registry(), schemes).await;
        Self {
            base: format!("{base}/v2/{}", reference.repository()),
            client,
            reference,
            credentials,
            tokens,
            delay,
        }
    }

    /// Fetches a manifest or index by tag or digest.
    pub(crate) async fn manifest(&self, name: &str) -> Result<Served, PullError> {
        let subject = Subject::Manifest(name.to_owned());
        let path = format!("manifests/{name}");
        self.document(&subject, &path, MAX_DOCUMENT).await
    }

    /// Fetches a configuration of `size` bytes; its digest is the caller's to verify.
    pub(crate) async fn config(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, PullError> {
        let subject = Subject::Config(digest.clone());
        let served = self
            .document(&subject, &format!("blobs/{digest}"), size)
            .await;
        let body = match served {
            Err(PullError::Manifest { .. }) => Err(VerifyError::TooLong { expected: size }),
            other => Ok(other?.body),
        };
        let body = body.and_then(|body| match body.len() as u64 {
            received if received < size => Err(VerifyError::Truncated {
                expected: size,
                received,
            }),
            _ => Ok(body),
        });
        body.map_err(|source| self.unverified(&subject, source))
    }

    /// Asks for a blob from byte `from` on.
    pub(crate) async fn blob(
        &self,
        subject: &Subject,
        digest: &Digest,
        from: u64,
    ) -> Result<Response, PullError> {
        let url = format!("{}/blobs/{digest}", self.base);
        let request = self.client.http.get(url);
        let request = match from {
            0 => request,
            from => request.header(RANGE, format!("bytes={from}-")),
        };
        self.send(subject, request).await
    }

    pub(crate) fn unverified(&self, subject: &Subject, source: VerifyError) -> PullError {
        PullError::Verify {
            reference: self.reference.clone(),
            subject: subject.to_string(),
            source,
        }
    }

    pub(crate) fn unusable(&self, subject: &Subject, source: ManifestError) -> PullError {
        PullError::Manifest {
            reference: self.reference.clone(),
            subject: subject.to_string(),
            source,
        }
    }

    pub(crate) fn broken(&self, subject: &Subject, source: reqwest::Error) -> PullError {
        PullError::Transport {
            reference: self.reference.clone(),
            subject: subject.to_string(),
            // The address of cloud storage is signed: whoever has it can read the blob.
            source: source.without_url(),
        }
    }

    async fn document(
        &self,
        subject: &Subject,
        path: &str,
        limit: u64,
    ) -> Result<Served, PullError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.document_once(subject, path, limit).await {
                Err(error) if error.is_transient() && attempt < ATTEMPTS => {
                    tokio::time::sleep(self.delay * 2_u32.pow(attempt - 1)).await;
                }
                other => return other,
            }
        }
    }

    async fn document_once(
        &self,
        subject: &Subject,
        path: &str,
        limit: u64,
    ) -> Result<Served, PullError> {
        let request = self.client.http.get(format!("{}/{path}", self.base));
        let request = request.header(ACCEPT, manifest::ACCEPT);
        let mut response = self.send(subject, request).await?;
        let header = |name: &str| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let (content_type, digest) = (
            header(CONTENT_TYPE.as_str()),
            header("docker-content-digest"),
        );
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.broken(subject, error))?
        {
            if (body.len() + chunk.len()) as u64 > limit {
                let what = "size of a document";
                return Err(self.unusable(subject, ManifestError::Limit { what, limit }));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Served {
            body,
            content_type,
            digest,
        })
    }

    /// Sends a request with what grant there is, and once more after the registry asked for one.
    async fn send(
        &self,
        subject: &Subject,
        request: RequestBuilder,
    ) -> Result<Response, PullError> {
        let scope = self.scope();
        let attempt = |grant: Option<Grant>| async {
            let request = request.try_clone().expect("invariant: a GET has no body");
            let request = match grant {
                Some(grant) => request.header(AUTHORIZATION, grant.header.expose()),
                None => request,
            };
            let sent = request.send().await;
            sent.map_err(|error| self.broken(subject, error))
        };
        let first = attempt(self.tokens.get(&scope, Instant::now())).await?;
        if first.status() != StatusCode::UNAUTHORIZED {
            return self.judge(subject, first).await;
        }
        self.tokens.forget(&scope);
        let grant = self.authorize(subject, first.headers()).await?;
        self.tokens.put(scope, grant.clone(), Instant::now());
        let second = attempt(Some(grant)).await?;
        self.judge(subject, second).await
    }

    /// Turns a challenge into a grant.
    async fn authorize(&self, subject: &Subject, headers: &HeaderMap) -> Result<Grant, PullError> {
        let values = headers.get_all(WWW_AUTHENTICATE).into_iter();
        let challenges: Vec<Challenge> = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let of = |scheme: &str| challenges.iter().find(|found| found.scheme == scheme);
        if let Some(bearer) = of("bearer") {
            return self.token(subject, bearer).await;
        }
        if of("basic").is_none() {
            return Err(self.unauthorized("the registry asks for no kind of login known here"));
        }
        let Some(credentials) = self.credentials else {
            return Err(self.unauthorized("the registry wants credentials and none are given"));
        };
        if !Url::parse(&self.base).is_ok_and(|url| self.client.is_confidential(&url)) {
            return Err(self.unauthorized("the registry wants a password without TLS"));
        }
        Ok(Grant {
            header: basic(credentials),
            expires: None,
        })
    }

    /// Where and for what the challenge says to ask for a token.
    fn token_url(&self, bearer: &Challenge) -> Option<Url> {
        let mut url = Url::parse(bearer.parameter("realm")?).ok()?;
        if !self.client.is_confidential(&url) {
            return None;
        }
        let own = format!("repository:{}:pull", self.reference.repository());
        let mut query = url.query_pairs_mut();
        if let Some(service) = bearer.parameter("service") {
            query.append_pair("service", service);
        }
        query.append_pair("scope", bearer.parameter("scope").unwrap_or(&own));
        if let Some(credentials) = self.credentials {
            query.append_pair("account", &credentials.username);
        }
        drop(query);
        Some(url)
    }

    /// Asks the token server a challenge names (distribution, token authentication specification).
    async fn token(&self, subject: &Subject, bearer: &Challenge) -> Result<Grant, PullError> {
        let Some(url) = self.token_url(bearer) else {
            return Err(self.unauthorized("the registry names no token server that speaks TLS"));
        };
        let mut request = self.client.http.get(url);
        if let Some(credentials) = self.credentials {
            request = request.header(AUTHORIZATION, basic(credentials).expose());
        }
        let response = request
            .send()
            .await
            .map_err(|error| self.broken(subject, error))?;
        let response = match response.status() {
            StatusCode::OK => response,
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let detail = detail(response).await;
                return Err(self.unauthorized(&format!("the token server refuses: {detail}")));
            }
            _ => {
                return self
                    .judge(subject, response)
                    .await
                    .and(Err(self.unauthorized("no token")));
            }
        };
        let body = limited(response, MAX_DOCUMENT).await;
        let token = serde_json::from_slice::<TokenResponse>(&body).ok();
        let grant = token.and_then(|token| token.into_grant(Instant::now()));
        grant.ok_or_else(|| self.unauthorized("the token server's answer holds no token"))
    }

    async fn judge(&self, subject: &Subject, response: Response) -> Result<Response, PullError> {
        let status = response.status();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(response);
        }
        let detail = detail(response).await;
        let (reference, subject) = (self.reference.clone(), subject.to_string());
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                PullError::Unauthorized { reference, detail }
            }
            StatusCode::NOT_FOUND => PullError::NotFound {
                reference,
                subject,
                detail,
            },
            other => PullError::Status {
                reference,
                subject,
                status: other.as_u16(),
                detail,
            },
        })
    }

    fn unauthorized(&self, detail: &str) -> PullError {
        PullError::Unauthorized {
            reference: self.reference.clone(),
            detail: detail.to_owned(),
        }
    }

    fn scope(&self) -> Scope {
        Scope {
            registry: self.reference.registry().to_owned(),
            repository: self.reference.repository().to_owned(),
            username: self.credentials.map(|known| known.username.clone()),
        }
    }
}

/// The header of RFC 7617.
fn basic(credentials: &Credentials) -> Secret {
    let pair = format!("{}:{}", credentials.username, credentials.password.expose());
    Secret::new(format!("Basic {}", STANDARD.encode(pair)))
}

/// What a server says about its refusal, short and printable.
async fn detail(response: Response) -> String {
    let status = response.status();
    let body = limited(response, MAX_DETAIL).await;
    let text = match serde_json::from_slice::<Complaint>(&body) {
        Ok(complaint) => {
            let items = complaint.errors.iter();
            let items = items.map(|item| format!("{}: {}", item.code, item.message));
            items.collect::<Vec<_>>().join("; ")
        }
        Err(_) => String::from_utf8_lossy(&body).into_owned(),
    };
    let text: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(SHOWN_DETAIL)
        .collect();
    match text.trim() {
        "" => status.to_string(),
        text => text.to_owned(),
    }
}

/// The first bytes of a body; what breaks off is as good as its end here.
async fn limited(mut response: Response, limit: u64) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() as u64 >= limit {
            break;
        }
    }
    body
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest(name) => write!(f, "manifest {name}"),
            Self::Config(digest) => write!(f, "configuration {digest}"),
            Self::Layer(digest) => write!(f, "layer {digest}"),
        }
    }
}
