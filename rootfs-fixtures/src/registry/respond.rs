//! From a request to its response, for both listeners.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};

use super::auth::{Auth, Refusal, TOKEN_PATH};
use super::fault::{Fault, Subject, What};
use super::http::{HttpRequest, Response};
use super::route::{Endpoint, Part};
use super::server::Handler;
use super::{Listener, Request, State, lock};
use crate::Digest;

/// Serves the distribution API and the token endpoint.
pub(crate) struct RegistryHandler {
    pub(crate) state: Arc<State>,
    pub(crate) addr: SocketAddr,
    pub(crate) storage_addr: SocketAddr,
}

/// Serves `/NAME/DIGEST` to whoever knows it, and refuses `Authorization` headers.
pub(crate) struct StorageHandler {
    pub(crate) state: Arc<State>,
}

/// A body found in the content.
struct Found {
    media_type: String,
    digest: Digest,
    body: Arc<[u8]>,
}

impl Handler for RegistryHandler {
    fn respond(&self, request: &HttpRequest) -> (Response, usize) {
        let (response, authorized) = if request.path == TOKEN_PATH {
            self.token(request)
        } else {
            self.distribution(request)
        };
        let token = self
            .state
            .record(Listener::Registry, request, authorized, response.status);
        (response, token)
    }

    fn sent(&self, token: usize, bytes: usize) {
        self.state.record_sent(token, bytes);
    }
}

impl Handler for StorageHandler {
    fn respond(&self, request: &HttpRequest) -> (Response, usize) {
        let authorized = request.header("authorization").is_none();
        let response = if authorized {
            self.blob(request)
        } else {
            error(
                400,
                "UNSUPPORTED",
                "storage takes no Authorization header",
                &request.path,
            )
        };
        let token = self
            .state
            .record(Listener::Storage, request, authorized, response.status);
        (response, token)
    }

    fn sent(&self, token: usize, bytes: usize) {
        self.state.record_sent(token, bytes);
    }
}

impl RegistryHandler {
    fn token(&self, request: &HttpRequest) -> (Response, bool) {
        let Auth::Token(auth) = &self.state.auth else {
            return (
                error(
                    404,
                    "UNSUPPORTED",
                    "this registry gives no tokens",
                    TOKEN_PATH,
                ),
                false,
            );
        };
        let subject = Subject {
            path: &request.path,
            what: What::Token,
        };
        let faults = self.state.strike(&subject, |_| true);
        if let Some(response) = status_fault(&faults) {
            return (response, false);
        }
        match auth.issue(request, &mut lock(&self.state.tokens), Instant::now()) {
            Ok(response) => {
                let whole = damage(&faults, Arc::clone(&response.body));
                let part = 0..whole.len();
                (
                    afflict(
                        &faults,
                        Response {
                            body: whole,
                            part,
                            ..response
                        },
                    ),
                    true,
                )
            }
            Err(refusal) => {
                let challenge = format!("Basic realm=\"{}\"", self.addr);
                (unauthorized(&challenge, refusal), false)
            }
        }
    }

    fn distribution(&self, request: &HttpRequest) -> (Response, bool) {
        let endpoint = Endpoint::parse(&request.path);
        let scope = endpoint.scope();
        let allowed = {
            let tokens = lock(&self.state.tokens);
            self.state
                .auth
                .check(request, scope.as_deref(), &tokens, Instant::now())
        };
        if let Err(refusal) = allowed {
            let challenge = self
                .state
                .auth
                .challenge(self.addr, scope.as_deref(), refusal);
            return (unauthorized(&challenge, refusal), false);
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return (
                error(
                    405,
                    "UNSUPPORTED",
                    "this registry is pull-only",
                    &request.path,
                ),
                true,
            );
        }
        (self.serve(request, &endpoint), true)
    }

    fn serve(&self, request: &HttpRequest, endpoint: &Endpoint<'_>) -> Response {
        let subject = Subject {
            path: &request.path,
            what: endpoint.what(),
        };
        if let Endpoint::Blob { name, digest } = endpoint
            && !self
                .state
                .strike(&subject, |fault| *fault == Fault::Redirect)
                .is_empty()
        {
            let location = format!(
                "http://{}/{name}/{digest}?signature=fixture",
                self.storage_addr
            );
            return error(307, "UNSUPPORTED", "the blob is elsewhere", digest)
                .header("Location", &location);
        }
        let faults = self
            .state
            .strike(&subject, |fault| *fault != Fault::Redirect);
        if let Some(response) = status_fault(&faults) {
            return response;
        }
        let response = match endpoint {
            Endpoint::Root => Response::json(200, &json!({})),
            Endpoint::Tags { name } => self.tags(name),
            Endpoint::Manifest { name, reference } => self.manifest(name, reference, &faults),
            Endpoint::Blob { name, digest } => self.state.blob(name, digest, request, &faults),
            Endpoint::Referrers { name, digest } => self.referrers(name, digest),
            Endpoint::Unknown => error(404, "UNSUPPORTED", "no such endpoint", &request.path),
        };
        afflict(
            &faults,
            response.header("Docker-Distribution-Api-Version", "registry/2.0"),
        )
    }

    /// The manifests whose `subject` is `digest`; an empty list for a digest that nobody has.
    fn referrers(&self, name: &str, digest: &str) -> Response {
        let content = lock(&self.state.content);
        let repository = content.repositories.get(name);
        let all = repository.into_iter().flat_map(|found| &found.manifests);
        let read = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap_or_default();
        let manifests: Vec<Value> = all
            .map(|(own, manifest)| (own, manifest, read(&manifest.body)))
            .filter(|(_, _, read)| read["subject"]["digest"] == digest)
            .map(|(own, manifest, read)| {
                json!({
                    "mediaType": manifest.media_type, "digest": own.as_str(),
                    "size": manifest.body.len(), "artifactType": read["artifactType"],
                })
            })
            .collect();
        let kind = "application/vnd.oci.image.index.v1+json";
        let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": manifests });
        let body: Arc<[u8]> = index.to_string().into_bytes().into();
        Response::new(200, kind, body)
    }

    fn tags(&self, name: &str) -> Response {
        match lock(&self.state.content).repositories.get(name) {
            Some(repository) => {
                let tags: Vec<_> = repository.tags.keys().collect();
                Response::json(200, &json!({ "name": name, "tags": tags }))
            }
            None => error(
                404,
                "NAME_UNKNOWN",
                "repository name not known to registry",
                name,
            ),
        }
    }

    fn manifest(&self, name: &str, reference: &str, faults: &[Fault]) -> Response {
        let content = lock(&self.state.content);
        let Some((digest, manifest)) = content.manifest(name, reference) else {
            return error(404, "MANIFEST_UNKNOWN", "manifest unknown", reference);
        };
        let body = damage(faults, Arc::clone(&manifest.body));
        Response::new(200, &manifest.media_type, body)
            .header("Docker-Content-Digest", digest.as_str())
            .header("ETag", &format!("\"{digest}\""))
    }
}

impl StorageHandler {
    fn blob(&self, request: &HttpRequest) -> Response {
        let Some((name, digest)) = request.path.trim_start_matches('/').rsplit_once('/') else {
            return error(404, "BLOB_UNKNOWN", "no such blob", &request.path);
        };
        let subject = Subject {
            path: &request.path,
            what: What::Blob(digest),
        };
        let faults = self
            .state
            .strike(&subject, |fault| *fault != Fault::Redirect);
        if let Some(response) = status_fault(&faults) {
            return response;
        }
        afflict(&faults, self.state.blob(name, digest, request, &faults))
    }
}

impl State {
    fn strike(&self, subject: &Subject<'_>, eligible: impl Fn(&Fault) -> bool) -> Vec<Fault> {
        lock(&self.faults).strike(subject, eligible)
    }

    fn blob(&self, name: &str, digest: &str, request: &HttpRequest, faults: &[Fault]) -> Response {
        let found = lock(&self.content)
            .blob(name, &Digest::claim(digest))
            .map(|body| Found {
                media_type: "application/octet-stream".to_owned(),
                digest: Digest::claim(digest),
                body: damage(faults, Arc::clone(body)),
            });
        match found {
            Some(found) if faults.contains(&Fault::NoRange) => found.whole(),
            Some(found) => found.part(request.header("range")),
            None => error(404, "BLOB_UNKNOWN", "blob unknown to registry", digest),
        }
    }

    fn record(
        &self,
        listener: Listener,
        request: &HttpRequest,
        let_in: bool,
        status: u16,
    ) -> usize {
        lock(&self.log).push(Request {
            listener,
            method: request.method.clone(),
            path: request.path.clone(),
            query: request.query.clone(),
            range: request.header("range").map(str::to_owned),
            authorization: request
                .header("authorization")
                .map(|value| value.split(' ').next().unwrap_or_default().to_owned()),
            authorized: let_in,
            status,
            sent: 0,
        })
    }

    fn record_sent(&self, token: usize, bytes: usize) {
        if let Some(request) = lock(&self.log).get_mut(token) {
            request.sent = bytes;
        }
    }
}

impl Found {
    fn whole(self) -> Response {
        Response::new(200, &self.media_type, self.body)
            .header("Docker-Content-Digest", self.digest.as_str())
    }

    fn part(self, range: Option<&str>) -> Response {
        let length = self.body.len();
        match Part::parse(range, length) {
            Part::Whole => self.whole().header("Accept-Ranges", "bytes"),
            Part::Bytes(part) => {
                let range = format!("bytes {}-{}/{length}", part.start, part.end - 1);
                let response = self.whole().header("Content-Range", &range);
                Response {
                    status: 206,
                    part,
                    ..response
                }
            }
            Part::Unsatisfiable => error(416, "UNSUPPORTED", "no such range", self.digest.as_str())
                .header("Content-Range", &format!("bytes */{length}")),
        }
    }
}

fn damage(faults: &[Fault], body: Arc<[u8]>) -> Arc<[u8]> {
    faults.iter().fold(body, |body, fault| fault.damage(body))
}

fn afflict(faults: &[Fault], response: Response) -> Response {
    faults
        .iter()
        .fold(response, |response, fault| fault.afflict(response))
}

fn status_fault(faults: &[Fault]) -> Option<Response> {
    faults.iter().find_map(|fault| match fault {
        Fault::Status {
            status,
            retry_after,
        } => {
            let code = match status {
                401 => "UNAUTHORIZED",
                403 => "DENIED",
                404 => "NOT_FOUND",
                429 => "TOOMANYREQUESTS",
                _ => "UNKNOWN",
            };
            let response = error(*status, code, "a fault on demand", "fault");
            Some(match retry_after {
                Some(seconds) => response.header("Retry-After", &seconds.to_string()),
                None => response,
            })
        }
        _ => None,
    })
}

fn unauthorized(challenge: &str, refusal: Refusal) -> Response {
    let reason = match refusal {
        Refusal::Missing => "authentication required",
        Refusal::WrongPassword => "wrong user name or password",
        Refusal::InvalidToken => "the token is unknown or expired",
        Refusal::InsufficientScope => "the token is for something else",
    };
    error(401, "UNAUTHORIZED", reason, "").header("WWW-Authenticate", challenge)
}

/// An error in the JSON of the distribution specification.
fn error(status: u16, code: &str, message: &str, detail: &str) -> Response {
    let body = json!({ "errors": [{ "code": code, "message": message, "detail": detail }] });
    Response::json(status, &body)
}
