//! The portal: static pages, and the REST that they use, for people who have signed in.
//!
//! Pages are below `/portal/`, sign-in is `/portal/api/session`, and below `/portal/api/hub/`
//! is the service's REST with the rights of whoever has signed in. No key ever goes to the
//! browser, except a device's in the answer that makes it. What changes something needs
//! the session's cookie (which other sites cannot send) and a token that only the page knows.

mod assets;
mod limiter;
mod redact;
mod sessions;
mod users;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue, SET_COOKIE};
use hyper::{Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::core::Caller;
use crate::event::{Action, Actor, Occurrence};
use crate::handle::HubHandle;
use crate::moment::Moment;
use crate::rest;
use limiter::Limiter;
use sessions::{Session, Sessions};

pub(crate) use redact::hide;
pub(crate) use users::{Role, User, Users};

/// Where the pages are.
const PAGES: &str = "/portal/";
const API: &str = "/portal/api/session";
/// Before the path of a request to the service's REST.
const HUB: &str = "/portal/api/hub";
/// Largest body in bytes.
const BODY_MAX: usize = 4 << 20;
/// How long it may take until all of it is here.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// Of this name the browser sends it over TLS alone, and takes it from this host alone.
const COOKIE_NAME: &str = "__Host-kobune-portal";
const CSRF_HEADER: &str = "x-csrf-token";

type Answer = Response<Full<Bytes>>;

/// The portal's state: who has signed in, and who tried in vain.
#[derive(Debug, Clone)]
pub(crate) struct Portal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    users: Users,
    sessions: Sessions,
    limiter: Limiter,
}

#[derive(Deserialize)]
struct SignIn {
    user: String,
    password: String,
}

impl Portal {
    /// For the users that are kept in the state directory `state`.
    pub(crate) fn new(state: &Path) -> Self {
        let inner = Inner {
            users: Users::in_state(state),
            sessions: Sessions::default(),
            limiter: Limiter::default(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Whether the portal answers requests for `path`.
    pub(crate) fn serves(path: &str) -> bool {
        path == PAGES.trim_end_matches('/') || path.starts_with(PAGES)
    }

    /// Answers a request from `peer`.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        hub: &HubHandle,
    ) -> Answer {
        let path = request.uri().path().to_owned();
        let mut response = if path == API {
            self.session(request, peer, hub).await
        } else if path.starts_with(HUB) {
            self.hub(request, hub).await
        } else {
            assets::page(&path)
        };
        protect(response.headers_mut());
        response
    }

    async fn session(&self, request: Request<Incoming>, peer: IpAddr, hub: &HubHandle) -> Answer {
        let (parts, body) = request.into_parts();
        match parts.method {
            Method::GET => match self.current(&parts.headers) {
                Some(session) => json(StatusCode::OK, &session_json(&session)),
                None => refused(StatusCode::UNAUTHORIZED, "nobody has signed in"),
            },
            Method::POST if is_own_page(&parts.headers) => match read(body).await {
                Some(body) => self.sign_in(&body, peer, hub).await,
                None => refused(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "the body is too large or too slow",
                ),
            },
            Method::DELETE => {
                if let Some(session) = self.current(&parts.headers)
                    && has_token(&parts.headers, &session)
                {
                    self.inner.sessions.end(cookie(&parts.headers));
                    note(Some(session.user), peer, Action::UserSignedOut, "", hub).await;
                }
                let mut response = json(StatusCode::OK, &json!({}));
                set_cookie(&mut response, "", 0);
                response
            }
            _ => refused(
                StatusCode::FORBIDDEN,
                "the request is not from the portal's pages",
            ),
        }
    }

    async fn sign_in(&self, body: &[u8], peer: IpAddr, hub: &HubHandle) -> Answer {
        let Ok(SignIn { user, password }) = serde_json::from_slice(body) else {
            return refused(StatusCode::BAD_REQUEST, "user and password are missing");
        };
        let inner = self.inner.clone();
        if let Some(seconds) = inner.limiter.begin(&user, peer) {
            let known = self.known(user);
            note(known, peer, Action::UserRefused, "too many attempts", hub).await;
            let message = format!("too many attempts: try again in {seconds} s");
            return refused(StatusCode::TOO_MANY_REQUESTS, &message);
        }
        // It takes long by design, so not where all else is served.
        let name = user.clone();
        let checked =
            tokio::task::spawn_blocking(move || inner.users.check(&name, &password)).await;
        match checked {
            Ok(Ok(Some(found))) => {
                self.inner.limiter.succeeded(&user, peer);
                let Some((cookie, session)) = self.inner.sessions.start(&found) else {
                    return refused(StatusCode::SERVICE_UNAVAILABLE, "no session can be made");
                };
                tracing::info!(user, %peer, "signed in to the portal");
                note(Some(user), peer, Action::UserSignedIn, "", hub).await;
                let mut response = json(StatusCode::OK, &session_json(&session));
                set_cookie(&mut response, &cookie, sessions::LIFETIME.as_secs());
                response
            }
            Ok(Ok(None)) => {
                tracing::warn!(%peer, "sign-in to the portal refused");
                let known = self.known(user);
                note(known, peer, Action::UserRefused, "wrong password", hub).await;
                refused(StatusCode::UNAUTHORIZED, "user or password is wrong")
            }
            Ok(Err(error)) => {
                tracing::error!(error = &error as &dyn std::error::Error, "reading users");
                refused(StatusCode::INTERNAL_SERVER_ERROR, "the hub failed")
            }
            Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "the hub failed"),
        }
    }

    /// `name` if a user has it: what others type there may be a password.
    fn known(&self, name: String) -> Option<String> {
        let found = self.inner.users.find(&name).ok().flatten();
        found.map(|_| name)
    }

    /// The session of a request, if its user is still one and has the same role and password.
    fn current(&self, headers: &HeaderMap) -> Option<Session> {
        let session = self.inner.sessions.find(cookie(headers))?;
        let user = self.inner.users.find(&session.user).ok()??;
        session.is_of(&user).then_some(session)
    }

    /// The service's REST.
    async fn hub(&self, request: Request<Incoming>, hub: &HubHandle) -> Answer {
        let (parts, body) = request.into_parts();
        let Some(session) = self.current(&parts.headers) else {
            return refused(StatusCode::UNAUTHORIZED, "nobody has signed in");
        };
        if parts.method != Method::GET && !has_token(&parts.headers, &session) {
            return refused(StatusCode::FORBIDDEN, "the page's token is missing");
        }
        let Some(mut body) = read(body).await else {
            return refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is too large or too slow",
            );
        };
        let path = parts.uri.path().trim_start_matches(HUB).to_owned();
        if !session.role.may(&parts.method, &path, &body) {
            return refused(StatusCode::FORBIDDEN, "your role may only look");
        }
        if path.ends_with("/applyConfigurationContent") {
            match redact::put_back(&path, &body, hub).await {
                Ok(whole) => body = whole,
                Err(message) => return refused(StatusCode::BAD_REQUEST, &message),
            }
        }
        let made = redact::made_by(&parts.method, &parts.headers, &body);
        let mut inner = Request::new(body);
        *inner.method_mut() = parts.method.clone();
        let target = parts.uri.path_and_query().map_or("/", |all| all.as_str());
        if let Ok(uri) = target.trim_start_matches(HUB).parse() {
            *inner.uri_mut() = uri;
        }
        *inner.headers_mut() = parts.headers;
        let caller = Caller::User {
            name: session.user.clone(),
            permissions: session.role.permissions(),
        };
        let answer = rest::answer_as(inner, caller, hub).await;
        if parts.method != Method::GET && path != "/devices/query" {
            let status = answer.status().as_u16();
            tracing::info!(user = session.user, method = %parts.method, path, status, "portal");
        }
        redact::answer(answer, &made).await
    }
}

/// Has the event log say what `user`, or someone without a name, did from `peer`.
async fn note(user: Option<String>, peer: IpAddr, action: Action, reason: &str, hub: &HubHandle) {
    let from = match reason {
        "" => format!("from {peer}"),
        reason => format!("{reason}, from {peer}"),
    };
    let what = match (action, user) {
        (Action::UserRefused, user) => {
            let nobody = Actor::Unknown(peer.to_string());
            Occurrence::new(nobody, action, &user.unwrap_or_default(), reason)
        }
        (_, user) => {
            let user = user.unwrap_or_default();
            Occurrence::new(Actor::User(user.clone()), action, &user, &from)
        }
    };
    hub.run(move |hub| hub.note_access(what, Moment::now()))
        .await;
}

/// The body, if it is neither too large nor too slow.
async fn read(body: Incoming) -> Option<Bytes> {
    let whole = Limited::new(body, BODY_MAX).collect();
    let whole = tokio::time::timeout(BODY_WITHIN, whole).await.ok()?;
    Some(whole.ok()?.to_bytes())
}

fn session_json(session: &Session) -> Value {
    json!({ "user": session.user, "role": session.role, "csrf": session.token })
}

fn cookie(headers: &HeaderMap) -> &str {
    let all = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = all
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs
        .find(|(name, _)| *name == COOKIE_NAME)
        .map_or("", |(_, value)| value)
}

fn has_token(headers: &HeaderMap, session: &Session) -> bool {
    let token = headers.get(CSRF_HEADER).map(HeaderValue::as_bytes);
    token.is_some_and(|token| sessions::same(token, session.token.as_bytes()))
}

/// Whether a sign-in comes from the portal's own page: no form of another site can send JSON,
/// and browsers say where a request is from.
fn is_own_page(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let json = text("content-type").is_some_and(|kind| kind.starts_with("application/json"));
    json && text("sec-fetch-site").is_none_or(|site| site == "same-origin")
}

fn set_cookie(response: &mut Answer, value: &str, seconds: u64) {
    let text = format!(
        "{COOKIE_NAME}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Strict"
    );
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().insert(SET_COOKIE, value);
    }
}

/// Nothing of other sites, nothing written into the page, nothing kept.
fn protect(headers: &mut HeaderMap) {
    const FIXED: [(&str, &str); 6] = [
        (
            "content-security-policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
             img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("strict-transport-security", "max-age=31536000"),
        ("cache-control", "no-store"),
    ];
    for (name, value) in FIXED {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn json(status: StatusCode, value: &Value) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn refused(status: StatusCode, message: &str) -> Answer {
    json(status, &json!({ "Message": message }))
}
