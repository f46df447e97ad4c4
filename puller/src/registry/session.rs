//! Requests to one repository: authentication, and what a status means.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use oci_spec::distribution::Reference;
use oci_spec::image::Digest;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RANGE, RETRY_AFTER};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;

use super::client::Client;
use super::endpoint::Endpoint;
use crate::auth::token::{Grant, TokenCache};
use crate::digest::VerifyError;
use crate::error::PullError;
use crate::manifest::{self, MAX_DOCUMENT, ManifestError};

/// Attempts at one document before a transient failure is final.
const ATTEMPTS: u32 = 3;
/// Longest pause of our own before a repetition.
const MAX_DELAY: Duration = Duration::from_secs(30);
/// Longest pause that a server can ask for; with a longer one the pull fails and says so.
const MAX_PATIENCE: Duration = Duration::from_secs(300);
/// Most bytes of a server's complaint that are read.
const MAX_DETAIL: u64 = 8 << 10;
/// Most characters of it that are shown.
const SHOWN_DETAIL: usize = 200;

/// One repository of one registry, for the length of one pull.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) client: Arc<Client>,
    /// `https://host/v2/name`.
    pub(crate) base: String,
    pub(crate) reference: &'a Reference,
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) tokens: &'a TokenCache,
    /// Before the first repetition; doubled for each further one.
    pub(crate) delay: Duration,
}

/// What a request is about, for errors.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    Manifest(String),
    Referrers(Digest),
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
        client: Arc<Client>,
        tokens: &'a TokenCache,
        (reference, endpoint): (&'a Reference, &'a Endpoint),
        delay: Duration,
    ) -> Self {
        let base = client.base(&endpoint.host).await;
        Self {
            base: format!("{base}/v2/{}", endpoint.repository),
            client,
            reference,
            endpoint,
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

    /// Fetches the list of what refers to the manifest `digest`.
    pub(crate) async fn referrers(&self, digest: &Digest) -> Result<Served, PullError> {
        let subject = Subject::Referrers(digest.clone());
        let path = format!("referrers/{digest}");
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

    /// Asks for a blob from byte `from` on, up to `end` if that is given.
    pub(crate) async fn blob(
        &self,
        subject: &Subject,
        digest: &Digest,
        from: u64,
        end: Option<u64>,
    ) -> Result<Response, PullError> {
        let url = format!("{}/blobs/{digest}", self.base);
        let request = self.client.http.get(url);
        let request = match (from, end) {
            (0, None) => request,
            (from, None) => request.header(RANGE, format!("bytes={from}-")),
            (from, Some(end)) => request.header(RANGE, format!("bytes={from}-{}", end - 1)),
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
                    self.pause(attempt, error).await?;
                }
                other => return other,
            }
        }
    }

    /// Waits after the `failures`th failure in a row, as long as the server wants; gives the error
    /// back if that is too long to wait for.
    pub(super) async fn pause(&self, failures: u32, error: PullError) -> Result<(), PullError> {
        let own = (self.delay * 2_u32.pow(failures - 1)).min(MAX_DELAY);
        let pause = error.retry_after().map_or(own, |wanted| wanted.max(own));
        if pause > MAX_PATIENCE {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
        Ok(())
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
        let scope = self.endpoint.scope();
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

    pub(super) async fn judge(
        &self,
        subject: &Subject,
        response: Response,
    ) -> Result<Response, PullError> {
        let status = response.status();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(response);
        }
        let retry_after = retry_after(&response);
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
                retry_after,
            },
        })
    }
}

/// The seconds in a `Retry-After` header; registries send no dates in it.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// What a server says about its refusal, short and printable.
pub(super) async fn detail(response: Response) -> String {
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
pub(super) async fn limited(mut response: Response, limit: u64) -> Vec<u8> {
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
            Self::Referrers(digest) => write!(f, "referrers of {digest}"),
            Self::Config(digest) => write!(f, "configuration {digest}"),
            Self::Layer(digest) => write!(f, "layer {digest}"),
        }
    }
}
