//! HTTP/1.1 of one TLS connection: REST, the portal, and the handshake of WebSocket.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::patience::Patient;
use crate::connection::{self, Framing, PacketStream, Peer};
use crate::handle::HubHandle;
use crate::portal::Portal;
use crate::record::Thumbprint;
use crate::rest::backup::{self, Content};
use crate::{rest, websocket};

/// Where MQTT over WebSocket is.
const PATH: &str = "/$iothub/websocket";
/// How long the head of a request may take.
const HEAD_WITHIN: Duration = Duration::from_secs(30);

pub(super) async fn serve(
    stream: TlsStream<Patient<TcpStream>>,
    peer: SocketAddr,
    thumbprints: Vec<Thumbprint>,
    hub: &HubHandle,
    portal: &Portal,
) {
    let thumbprints: Arc<[Thumbprint]> = thumbprints.into();
    let service = service_fn(|request: Request<Incoming>| {
        let (thumbprints, hub, portal) = (thumbprints.clone(), hub.clone(), portal.clone());
        async move {
            let client = Peer {
                address: peer.ip(),
                thumbprints: &thumbprints,
            };
            if backup::is_asked(&request) {
                return Ok::<_, Infallible>(backup::answer(request, client, &hub).await);
            }
            let answer = if is_websocket(&request) {
                upgrade(request, peer, thumbprints, hub)
            } else if Portal::serves(request.uri().path()) {
                portal.answer(request, peer.ip(), &hub).await
            } else {
                rest::answer(request, client, &hub).await
            };
            Ok(answer.map(Content::Whole))
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, error = &error as &dyn std::error::Error, "HTTP failed");
    }
}

fn is_websocket(request: &Request<Incoming>) -> bool {
    let path = request.uri().path().trim_end_matches('/');
    request.method() == Method::GET && path.eq_ignore_ascii_case(PATH)
}

/// Accepts a WebSocket of MQTT. Who it is is asked by MQTT.
fn upgrade(
    mut request: Request<Incoming>,
    peer: SocketAddr,
    thumbprints: Arc<[Thumbprint]>,
    hub: HubHandle,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let header = |name: &str| request.headers().get(name)?.to_str().ok();
    let upgrades = header("upgrade").is_some_and(|name| name.eq_ignore_ascii_case("websocket"));
    let speaks_mqtt = header("sec-websocket-protocol")
        .is_some_and(|names| names.split(',').any(|name| name.trim() == "mqtt"));
    let accept = header("sec-websocket-key").map(websocket::accept);
    let (Some(accept), true, true) = (accept, upgrades, speaks_mqtt) else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
    let accept = HeaderValue::from_str(&accept);
    headers.insert(
        "sec-websocket-accept",
        accept.expect("invariant: base64 is a header's value"),
    );
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else {
            return;
        };
        let packets = PacketStream::new(TokioIo::new(upgraded), Framing::WebSocket, &[]);
        let client = Peer {
            address: peer.ip(),
            thumbprints: &thumbprints,
        };
        super::report(peer, connection::serve(packets, client, &hub).await);
    });
    response
}
