//! The whole client against a small hub on a TLS port: identities over REST, then MQTT in
//! a WebSocket.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kobune_iothub_auth::{SasToken, SharedAccessKey};
use kobune_runtime::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::super::{HubParts, TOKEN_LIFE, run};
use super::core;
use crate::command;
use crate::provisioning::{Credential, HubConfig, KeySource, ManualIdentity, Source, Upstream};

/// What the hub was asked, and what it knows.
#[derive(Default)]
struct Known {
    requests: Vec<String>,
    /// Primary keys that were set.
    keys: BTreeMap<String, String>,
}

#[derive(Clone)]
struct Hub {
    device_key: SharedAccessKey,
    known: Arc<Mutex<Known>>,
    connects: mpsc::UnboundedSender<bool>,
    /// Version of the desired properties; it grows with every connection.
    version: Arc<AtomicI64>,
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ').map(str::to_owned);
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers: BTreeMap<_, _> = headers
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request {
        method: first.next()?,
        path: first.next()?,
        headers,
        body: String::from_utf8(body).unwrap(),
    })
}

impl Hub {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, mut stream: S) {
        while let Some(request) = read_request(&mut stream).await {
            if request.path == "/$iothub/websocket" {
                return self.websocket(stream, &request).await;
            }
            let (status, body) = self.rest(&request);
            let answer = format!(
                "HTTP/1.1 {status} x\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        }
    }

    fn rest(&self, request: &Request) -> (u16, String) {
        let token = SasToken::parse(&request.headers["authorization"]).unwrap();
        token
            .verify(&self.device_key, Timestamp::now().unix_seconds())
            .unwrap();
        assert_eq!(token.resource(), "localhost/devices/dev1");
        let (path, query) = request.path.split_once('?').unwrap();
        assert_eq!(query, "api-version=2017-11-08-preview");
        let module = path.rsplit('/').next().unwrap().replace("%24", "$");
        let mut known = self.known.lock().unwrap();
        let if_match = request.headers.get("if-match").map(String::as_str);
        known.requests.push(format!(
            "{} {module} {}",
            request.method,
            if_match.unwrap_or("-")
        ));
        let identity = json!({"moduleId": module, "generationId": "637"});
        if let ("PUT", Some(_)) = (request.method.as_str(), if_match) {
            let body: Value = serde_json::from_str(&request.body).unwrap();
            let key = &body["authentication"]["symmetricKey"]["primaryKey"];
            known.keys.insert(module, key.as_str().unwrap().to_owned());
        } else if request.method == "PUT" && module == "there" {
            return (
                409,
                json!({"errorCode": 409_301, "message": "exists"}).to_string(),
            );
        }
        (200, identity.to_string())
    }

    async fn websocket<S: AsyncRead + AsyncWrite + Unpin>(self, mut stream: S, request: &Request) {
        let accept = super::super::websocket::accept(&request.headers["sec-websocket-key"]);
        let head = format!("HTTP/1.1 101 x\r\nSec-WebSocket-Accept: {accept}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let connect = message(&mut stream).await.unwrap();
        let password = String::from_utf8_lossy(&connect);
        let password = &password[password.find("SharedAccessSignature").unwrap()..];
        let token = SasToken::parse(password).unwrap();
        assert_eq!(
            token.resource(),
            "localhost/devices/dev1/modules/$edgeAgent"
        );
        let key = self.known.lock().unwrap().keys.get("$edgeAgent").cloned();
        let right = key.is_some_and(|key| {
            let key = SharedAccessKey::from_base64(&key).unwrap();
            token.verify(&key, Timestamp::now().unix_seconds()).is_ok()
        });
        let code = if right { 0 } else { 5 };
        send(&mut stream, &[0x20, 2, 0, code]).await;
        self.connects.send(right).unwrap();
        while let Some(packet) = message(&mut stream).await {
            let now = Timestamp::now().unix_seconds();
            assert!(now < token.expiry(), "a token was used to its end");
            match packet.first().map_or(0, |first| first >> 4) {
                8 => send(&mut stream, &[0x90, 5, 0, 1, 0, 0, 0]).await,
                3 => self.publish(&mut stream, &packet).await,
                _ => {}
            }
        }
    }

    /// Answers the request for the twin, and takes every report.
    async fn publish<S: AsyncWrite + Unpin>(&self, stream: &mut S, packet: &[u8]) {
        let text = String::from_utf8_lossy(packet).into_owned();
        let (_, rid) = text.split_once("/?$rid=").unwrap();
        let rid: String = rid.chars().take_while(char::is_ascii_digit).collect();
        let twin = || {
            let mut desired = super::desired(&["led", "there"]);
            desired["$version"] = json!(self.version.fetch_add(1, Ordering::Relaxed));
            json!({"desired": desired, "reported": {}}).to_string()
        };
        let (status, body) = match text.contains("$iothub/twin/GET/") {
            true => (200, twin()),
            false => (204, String::new()),
        };
        let topic = format!("$iothub/twin/res/{status}/?$rid={rid}");
        let packet = super::publish_packet(&topic, body.as_bytes());
        send(stream, &packet).await;
    }
}

/// A message of a client, whose mask is taken off.
async fn message<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Vec<u8>> {
    stream.read_u8().await.ok()?;
    let length = match stream.read_u8().await.ok()? & 0x7f {
        126 => usize::from(stream.read_u16().await.ok()?),
        length => usize::from(length),
    };
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).await.ok()?;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.ok()?;
    let clear = payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b);
    Some(clear.collect())
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, packet: &[u8]) {
    let mut frame = vec![0x82];
    match u8::try_from(packet.len()) {
        Ok(length) if length < 126 => frame.push(length),
        _ => {
            frame.push(126);
            frame.extend(u16::try_from(packet.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend(packet);
    stream.write_all(&frame).await.unwrap();
    stream.flush().await.unwrap();
}

/// A listening hub; its port, and whether each CONNECT was accepted.
async fn listen(dir: &Path, hub: Hub) -> u16 {
    let acceptor = super::tls::acceptor(dir);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, hub) = (acceptor.clone(), hub.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    hub.serve(stream).await;
                }
            });
        }
    });
    port
}

async fn until(check: impl Fn() -> bool) {
    for _ in 0..500 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come to be");
}

type Client = (
    JoinHandle<()>,
    watch::Sender<bool>,
    mpsc::UnboundedReceiver<(String, i64)>,
);

/// A client of the hub at `port`, which keeps its state in `dir`.
fn start(dir: &Path, port: u16, device_key: &SharedAccessKey, token_life: Duration) -> Client {
    let (handle, channels) = command::channels();
    let (applied_by, applied) = mpsc::unbounded_channel();
    tokio::spawn(core(channels, applied_by));
    let identity = ManualIdentity {
        hub: format!("localhost:{port}"),
        gateway: None,
        device_id: "dev1".to_owned(),
        credential: Credential::Key(KeySource::Value(device_key.clone())),
    };
    let parts = HubParts {
        config: HubConfig {
            source: Source::Manual(identity),
            trust_bundle: Some(dir.join("ca.pem")),
            proxy: None,
            upstream: Upstream::MqttWs,
        },
        handle,
        state_dir: dir.to_owned(),
        token_life,
    };
    let (shutdown, down) = watch::channel(false);
    (tokio::spawn(run(parts, down)), shutdown, applied)
}

#[tokio::test]
async fn a_connection_string_is_all_that_a_device_needs() {
    let dir = tempfile::tempdir().unwrap();
    let device_key = SharedAccessKey::from_bytes(vec![7; 32]).unwrap();
    let (connects_by, mut connects) = mpsc::unbounded_channel();
    let known = Arc::new(Mutex::new(Known::default()));
    let hub = Hub {
        device_key: device_key.clone(),
        known: Arc::clone(&known),
        connects: connects_by,
        version: Arc::new(AtomicI64::new(3)),
    };
    let port = listen(dir.path(), hub).await;
    let start = || start(dir.path(), port, &device_key, TOKEN_LIFE);
    let requests = || std::mem::take(&mut known.lock().unwrap().requests);

    // The first start sets the agent's key, then those of the modules.
    let (running, shutdown, mut applied) = start();
    assert_eq!(connects.recv().await, Some(true));
    assert_eq!(applied.recv().await.unwrap().1, 3);
    until(|| known.lock().unwrap().keys.len() == 3).await;
    let expected = [
        "GET $edgeAgent -",
        "PUT $edgeAgent \"*\"",
        "PUT led -",
        "PUT led \"*\"",
        "PUT there -",
        "GET there -",
        "PUT there \"*\"",
    ];
    assert_eq!(requests(), expected);
    shutdown.send(true).unwrap();
    running.await.unwrap();

    // A later one has them, and asks for nothing.
    let (running, shutdown, mut applied) = start();
    assert_eq!(connects.recv().await, Some(true));
    applied.recv().await.unwrap();
    assert_eq!(requests(), [""; 0]);
    shutdown.send(true).unwrap();
    running.await.unwrap();

    // A hub that no longer knows the key is given it again, at once.
    known.lock().unwrap().keys.clear();
    let (running, shutdown, _applied) = start();
    assert_eq!(connects.recv().await, Some(false));
    assert_eq!(connects.recv().await, Some(true));
    shutdown.send(true).unwrap();
    running.await.unwrap();
}

#[tokio::test]
async fn a_renewed_token_costs_one_connection_and_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let device_key = SharedAccessKey::from_bytes(vec![7; 32]).unwrap();
    let (connects_by, mut connects) = mpsc::unbounded_channel();
    let hub = Hub {
        device_key: device_key.clone(),
        known: Arc::default(),
        connects: connects_by,
        version: Arc::new(AtomicI64::new(1)),
    };
    let port = listen(dir.path(), hub).await;
    let life = Duration::from_secs(4);
    let (running, shutdown, mut applied) = start(dir.path(), port, &device_key, life);
    // The desired properties change between any two connections, when nobody is told.
    for version in 1..=3 {
        assert_eq!(connects.recv().await, Some(true));
        assert_eq!(applied.recv().await.unwrap().1, version);
    }
    assert!(
        connects.try_recv().is_err(),
        "one connection for each token"
    );
    shutdown.send(true).unwrap();
    running.await.unwrap();
}
