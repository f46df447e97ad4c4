//! The service's REST, and the module identities' REST of devices.
//!
//! | request | who | answer |
//! |---|---|---|
//! | `GET /devices?top=N` | registryRead | 200 array of devices |
//! | `POST /devices/query` | registryRead or serviceConnect | 200 array, see `query` |
//! | `GET`, `PUT`, `DELETE /devices/{d}` | registryRead, registryWrite | 200, 200, 204 |
//! | `GET /devices/{d}/modules` | registryRead, the device | 200 array of modules |
//! | `GET`, `PUT`, `DELETE /devices/{d}/modules/{m}` | the same | 200, 200, 204 |
//! | `POST /devices/{d}/applyConfigurationContent` | registryWrite | 204 |
//! | `GET`, `PATCH`, `PUT /twins/{d}[/modules/{m}]` | serviceConnect | 200 the whole twin |
//! | `POST /twins/{d}[/modules/{m}]/methods` | serviceConnect, modules of `{d}` | 200 |
//! | `GET /configurations?top=N`, `POST /configurations/testQueries` | registryRead | 200 |
//! | `GET`, `PUT`, `DELETE /configurations/{c}` | registryRead, registryWrite | 200, 200, 204 |
//! | `GET /statistics/devices`, `/statistics/service` | registryRead | 200 |
//! | `GET /events?before=N&top=N&device=D` | registryRead | 200 the event log (this hub's own) |
//! | `GET /backup` | iothubowner | 200 all that the store keeps (this hub's own) |
//! | `GET /messages/events?after=N` | serviceConnect | 200 the last messages (this hub's own) |
//!
//! `PUT` without `If-Match` makes and does not change: 409 if it is there. Whoever shows no
//! valid token or certificate gets 401 for any path.

pub(crate) mod backup;
mod body;
mod configurations;
pub(crate) mod counts;
mod error;
mod events;
mod identities;
mod methods;
mod query;
mod route;
mod scan;
mod twins;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, IF_MATCH};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use crate::connection::Peer;
use crate::core::{Caller, Precondition, Proof};
use crate::handle::HubHandle;
use crate::identity::{Id, Identity};
use crate::moment::Moment;

pub(crate) use error::ApiError;

type Answer = Result<Response<Full<Bytes>>, ApiError>;

/// A request, taken apart.
#[derive(Debug)]
struct Call {
    method: Method,
    /// Decoded.
    segments: Vec<String>,
    /// The segments again, in one piece, as tokens name it.
    path: String,
    query: String,
    headers: hyper::HeaderMap,
    body: Bytes,
    caller: Caller,
}

/// Answers one request of `peer`.
pub(crate) async fn answer(
    request: Request<Incoming>,
    peer: Peer<'_>,
    hub: &HubHandle,
) -> Response<Full<Bytes>> {
    let numeric = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .is_none_or(|token| !token.contains("skn="));
    let answered = match receive(request, peer, hub).await {
        Ok(call) => route::route(&call, hub).await,
        Err(error) => Err(error),
    };
    answered.unwrap_or_else(|error| error.response(numeric))
}

/// Answers a request of someone who was let in elsewhere.
pub(crate) async fn answer_as(
    request: Request<Bytes>,
    caller: Caller,
    hub: &HubHandle,
) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let segments = segments(&parts);
    let call = Call {
        body,
        method: parts.method,
        path: format!("/{}", segments.join("/")),
        segments,
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        caller,
    };
    let answered = route::route(&call, hub).await;
    answered.unwrap_or_else(|error| error.response(false))
}

/// The parts of the path, decoded.
fn segments(parts: &hyper::http::request::Parts) -> Vec<String> {
    parts
        .uri
        .path()
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect()
}

async fn receive(
    request: Request<Incoming>,
    peer: Peer<'_>,
    hub: &HubHandle,
) -> Result<Call, ApiError> {
    let (parts, incoming) = request.into_parts();
    let segments = segments(&parts);
    let token = parts.headers.get(AUTHORIZATION);
    let token = token
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let claimed = claimed(&segments, &parts.headers);
    let (thumbprints, peer) = (peer.thumbprints.to_vec(), peer.address);
    let admitted = hub.run(move |hub| {
        let proof = match &token {
            Some(token) => Some(Proof::Token(token)),
            None if thumbprints.is_empty() => None,
            None => Some(Proof::Certificate(&thumbprints)),
        };
        hub.caller(proof, &claimed, peer, Moment::now())
    });
    let caller = match admitted.await {
        Some(Ok(caller)) => caller,
        Some(Err(denied)) => return Err(ApiError::denied(&denied)),
        None => return Err(crate::core::HubError::Stopped.into()),
    };
    Ok(Call {
        body: body::read(incoming).await?,
        method: parts.method,
        path: format!("/{}", segments.join("/")),
        segments,
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers,
        caller,
    })
}

/// Devices and modules that may have sent the request, by its path and by the header that
/// modules send.
fn claimed(segments: &[String], headers: &hyper::HeaderMap) -> Vec<Identity> {
    let mut claimed = Vec::new();
    let header = headers.get("x-ms-edge-moduleid");
    if let Some(text) = header.and_then(|value| value.to_str().ok()) {
        let text = percent_decode_str(text).decode_utf8_lossy();
        claimed.extend(Identity::from_client_id(&text).ok());
    }
    if let [_, device, ..] = segments {
        claimed.extend(Id::try_from(device.as_str()).ok().map(Identity::device));
    }
    claimed
}

impl Call {
    /// The value of a parameter of the query, decoded.
    fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(own, _)| *own == name)?;
        Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `If-Match`; `absent` is what its lack means.
    fn precondition(&self, absent: Precondition) -> Precondition {
        let value = self
            .headers
            .get(IF_MATCH)
            .map(hyper::http::HeaderValue::to_str);
        match value {
            None => absent,
            Some(Ok(text)) => match text.trim().trim_start_matches("W/").trim_matches('"') {
                "*" => Precondition::Present,
                etag => Precondition::Etag(etag.to_owned()),
            },
            Some(Err(_)) => Precondition::Etag(String::new()),
        }
    }
}

fn json(value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    let kind = hyper::header::HeaderValue::from_static("application/json; charset=utf-8");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, kind);
    response
}

fn no_content() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
