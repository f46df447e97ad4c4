//! Between devices and their hub: passes MQTT packets and HTTP requests on, counts them, and
//! does on demand what links and busy hubs do.
//!
//! Both sides are TLS: the relay has a certificate of its own, which the agent is told to
//! trust, so that it sees packets and not only bytes.

mod mqtt;
mod tls;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{Device, Hub};

/// Ports of the hub behind the relay: of MQTT and of HTTPS.
const HUB_MQTT: u16 = 18883;
const HUB_HTTPS: u16 = 18443;

/// What happens to the next MQTT connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It ends when so many packets of both sides have passed.
    Cut(usize),
    /// CONNECT is answered with this code.
    Refuse(u8),
    /// SUBACK comes so much later.
    LateSubAck(Duration),
    /// The answers to so many reports are replaced by 429.
    Throttle(usize),
}

/// What passed.
#[derive(Debug, Default, Clone)]
pub struct Traffic {
    /// When connections of MQTT came to the relay.
    pub connections: Vec<Instant>,
    /// First lines of requests of HTTP, answered by either.
    pub requests: Vec<String>,
    /// Packets of MQTT that devices sent and that carry a message.
    pub published: usize,
    /// Answers of the hub that were replaced by 429.
    pub throttled: usize,
}

#[derive(Debug, Default)]
struct State {
    faults: VecDeque<Fault>,
    /// Requests of HTTP to be answered with 429.
    busy: usize,
    traffic: Traffic,
}

/// A relay on a device, in front of a hub there. Lives as long as the device.
#[derive(Debug, Clone)]
pub struct Relay {
    state: Arc<Mutex<State>>,
    trust: PathBuf,
}

impl Relay {
    /// A hub, and a relay at the ports that devices go to.
    ///
    /// # Panics
    /// Where one does not start.
    #[must_use]
    pub fn start(device: &Device) -> (Hub<'_>, Self) {
        let ports = [HUB_MQTT, HUB_HTTPS].map(|port| port.to_string());
        let hub = Hub::start_with(
            device,
            &["--mqtt-port", &ports[0], "--https-port", &ports[1]],
        );
        let (acceptor, certificate) = tls::acceptor();
        let connector = tls::connector(&hub.ca());
        let relay = Self {
            state: Arc::default(),
            trust: device.dir().join("relay.pem"),
        };
        std::fs::write(&relay.trust, certificate).expect("the relay's certificate");
        for (port, mqtt) in [(8883, true), (443, false)] {
            let side = Side {
                state: Arc::clone(&relay.state),
                acceptor: acceptor.clone(),
                connector: connector.clone(),
                mqtt,
            };
            device.in_network(move || side.listen(port));
        }
        (hub, relay)
    }

    /// The configuration of a device that is enrolled at `hub`, for the way through the relay.
    #[must_use]
    pub fn configuration(&self, hub: &Hub<'_>, enrolled: &str) -> String {
        let direct = hub.ca().display().to_string();
        let relayed = enrolled.replace(&format!("localhost:{HUB_HTTPS}"), "localhost");
        relayed.replace(&direct, &self.trust.display().to_string())
    }

    /// The certificate to trust.
    #[must_use]
    pub fn trust(&self) -> &Path {
        &self.trust
    }

    /// What happens to the MQTT connections to come, one each.
    pub fn arm(&self, faults: &[Fault]) {
        self.lock().faults = faults.iter().copied().collect();
    }

    /// So many requests of HTTP are answered with 429, and that a second shall be waited.
    pub fn busy(&self, requests: usize) {
        self.lock().busy = requests;
    }

    /// What passed so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.lock().traffic.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone)]
struct Side {
    state: Arc<Mutex<State>>,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    mqtt: bool,
}

impl Side {
    fn listen(self, port: u16) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = std::net::TcpListener::bind(address).expect("the relay's port");
        listener.set_nonblocking(true).expect("a socket");
        // The thread inherits the device's network.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a socket");
                while let Ok((stream, _)) = listener.accept().await {
                    let side = self.clone();
                    tokio::spawn(async move { side.serve(stream).await });
                }
            });
        });
    }

    /// Where anything goes wrong both ends are closed, as a link would.
    async fn serve(self, stream: TcpStream) -> Option<()> {
        let fault = match self.mqtt {
            true => {
                let mut state = lock(&self.state);
                state.traffic.connections.push(Instant::now());
                state.faults.pop_front()
            }
            false => None,
        };
        let mut near = self.acceptor.accept(stream).await.ok()?;
        let port = if self.mqtt { HUB_MQTT } else { HUB_HTTPS };
        let far = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
        let name = rustls::pki_types::ServerName::try_from("localhost").ok()?;
        let mut far = self.connector.connect(name, far).await.ok()?;
        if self.mqtt {
            return mqtt::relay(near, far, fault, &self.state).await;
        }
        let mut head = Vec::new();
        loop {
            // One request after the other; each is small.
            while !head.ends_with(b"\r\n\r\n") {
                head.push(near.read_u8().await.ok()?);
            }
            let body = length(&head);
            let mut request = std::mem::take(&mut head);
            request.resize(request.len() + body, 0);
            let start = request.len() - body;
            near.read_exact(&mut request[start..]).await.ok()?;
            let line = String::from_utf8_lossy(&request)
                .lines()
                .next()
                .map(str::to_owned);
            let busy = {
                let mut state = lock(&self.state);
                let busy = state.busy > 0;
                state.busy = state.busy.saturating_sub(1);
                busy
            };
            if busy {
                let answer = b"HTTP/1.1 429 x\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";
                lock(&self.state).traffic.requests.extend(line);
                near.write_all(answer).await.ok()?;
                near.flush().await.ok()?;
                continue;
            }
            far.write_all(&request).await.ok()?;
            far.flush().await.ok()?;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                answer.push(far.read_u8().await.ok()?);
            }
            let body = length(&answer);
            let start = answer.len();
            answer.resize(start + body, 0);
            far.read_exact(&mut answer[start..]).await.ok()?;
            // What the hub's idle connection did not take is sent again, and counts once.
            lock(&self.state).traffic.requests.extend(line);
            near.write_all(&answer).await.ok()?;
            near.flush().await.ok()?;
        }
    }
}

/// `Content-Length` of a head.
fn length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let line = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    line.and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}
