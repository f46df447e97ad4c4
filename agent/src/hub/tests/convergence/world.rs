//! A hub with a temper, in simulated time: a day of it takes a moment.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::hub::codec::publish_packet;
use crate::hub::device::Server;
use crate::hub::transport::{Carrier, Dial, Dialling, TransportError};
use crate::hub::twin::merge;

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Temper {
    Well,
    Unreachable,
    /// CONNACK with this code.
    Refuse(u8),
    /// The link drops when so many packets of both sides have passed.
    Cut(usize),
    /// Nothing passes any more when so many packets of both sides have.
    Mute(usize),
    /// SUBACK takes this long; a change and a call come before it.
    LateSubAck(Duration),
    /// A notice of the newest change comes before the twin, which does not have it yet.
    PatchBeforeTwin,
    /// The twin is asked for in vain.
    NoTwin(u16),
    /// Reports are not taken.
    NoReport(u16),
}

/// What passed.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    pub(super) dials: Vec<Instant>,
    pub(super) twins: usize,
    pub(super) reports: usize,
    pub(super) pings: usize,
    pub(super) answers: Vec<String>,
}

struct State {
    /// Of connections to come, the first first; the last stays.
    tempers: Vec<Temper>,
    seen: Seen,
    version: i64,
    reported: Value,
    /// Ends the connection that is there.
    end: Option<watch::Sender<bool>>,
    /// Changes for the connection that is there.
    changes: watch::Sender<i64>,
}

#[derive(Clone)]
pub(super) struct World(Arc<Mutex<State>>);

impl Dial for World {
    fn dial<'a>(&'a self, _: &'a Server, _: Carrier) -> Dialling<'a> {
        Box::pin(async {
            let temper = self.next_temper();
            if temper == Temper::Unreachable {
                return Err(TransportError::Connect {
                    address: "h".to_owned(),
                    source: std::io::ErrorKind::ConnectionRefused.into(),
                });
            }
            let (near, far) = tokio::io::duplex(1 << 20);
            tokio::spawn(self.clone().serve(far, temper));
            Ok(Box::new(near) as _)
        })
    }
}

impl World {
    pub(super) fn new(tempers: &[Temper]) -> Self {
        Self(Arc::new(Mutex::new(State {
            tempers: tempers.to_vec(),
            seen: Seen::default(),
            version: 1,
            reported: json!({}),
            end: None,
            changes: watch::Sender::new(1),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn next_temper(&self) -> Temper {
        let mut state = self.state();
        state.seen.dials.push(Instant::now());
        match state.tempers.len() {
            1 => state.tempers[0],
            _ => state.tempers.remove(0),
        }
    }

    pub(super) fn seen(&self) -> Seen {
        self.state().seen.clone()
    }

    /// From now on, for connections to come.
    pub(super) fn become_(&self, temper: Temper) {
        self.state().tempers = vec![temper];
    }

    /// The desired properties change.
    pub(super) fn change(&self) {
        let mut state = self.state();
        state.version += 1;
        state.changes.send_replace(state.version);
    }

    /// The connection that is there ends, as when the hub does.
    pub(super) fn drop_connection(&self) {
        self.state().end = None;
    }

    pub(super) fn has_converged(&self) -> bool {
        let state = self.state();
        state.reported["lastDesiredVersion"] == state.version
            && state.reported["lastDesiredStatus"]["code"] == 200
    }

    /// Waits until the device does and reports what is desired; how long that took.
    pub(super) async fn converged(&self, within: Duration) -> Duration {
        let started = Instant::now();
        let done = async {
            while !self.has_converged() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(within, done).await.is_err() {
            panic!("not within {within:?}: {:?}", self.seen());
        }
        started.elapsed()
    }

    async fn serve(self, stream: DuplexStream, temper: Temper) {
        let (end, mut ended) = watch::channel(false);
        let changes = self.state().changes.subscribe();
        let left = match temper {
            Temper::Cut(left) | Temper::Mute(left) => left,
            _ => usize::MAX,
        };
        let peer = Peer {
            world: self.clone(),
            stream,
            temper,
            left,
            told: 0,
            end: Some(end),
        };
        tokio::select! {
            _ = peer.run(changes) => {}
            // The sender is gone: another connection is there, or the hub is not.
            _ = ended.changed() => {}
        }
    }
}

struct Peer {
    world: World,
    stream: DuplexStream,
    temper: Temper,
    left: usize,
    /// Newest version that this connection was told of.
    told: i64,
    end: Option<watch::Sender<bool>>,
}

impl Peer {
    async fn run(mut self, mut changes: watch::Receiver<i64>) -> Option<()> {
        let (first, _) = self.read().await?;
        assert_eq!(first, 0x10, "CONNECT");
        let code = match self.temper {
            Temper::Refuse(code) => code,
            _ => 0,
        };
        // The newer connection of an identity ends the older one.
        self.world.state().end = self.end.take();
        self.send(&[0x20, 2, 0, code]).await?;
        if code != 0 {
            return None;
        }
        loop {
            let (first, body) = tokio::select! {
                packet = self.read() => packet?,
                Ok(()) = changes.changed() => {
                    let version = *changes.borrow_and_update();
                    if version > self.told {
                        self.notice(version).await?;
                    }
                    continue;
                }
            };
            match first >> 4 {
                8 => self.sub_ack().await?,
                3 => self.publish(&body).await?,
                12 => {
                    self.world.state().seen.pings += 1;
                    self.send(&[0xd0, 0]).await?;
                }
                14 => return None,
                other => panic!("a packet of type {other}"),
            }
        }
    }

    /// Waits for a packet. Cancelled only between packets: the other end writes them whole.
    async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        self.pass().await?;
        let first = self.stream.read_u8().await.ok()?;
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.stream.read_u8().await.ok()?;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await.ok()?;
        self.left -= 1;
        Some((first, body))
    }

    async fn send(&mut self, packet: &[u8]) -> Option<()> {
        self.pass().await?;
        self.left -= 1;
        self.stream.write_all(packet).await.ok()
    }

    /// `None` where nothing more passes, as soon as that can be noticed.
    async fn pass(&mut self) -> Option<()> {
        if self.left > 0 {
            return Some(());
        }
        // What is desired changes while nobody can be told.
        self.world.change();
        if matches!(self.temper, Temper::Mute(_)) {
            std::future::pending::<()>().await;
        }
        None
    }

    async fn sub_ack(&mut self) -> Option<()> {
        if let Temper::LateSubAck(late) = self.temper {
            self.world.change();
            let version = self.world.state().version;
            self.notice(version).await?;
            let call = publish_packet("$iothub/methods/POST/ping/?$rid=7", b"null");
            self.send(&call).await?;
            sleep(late).await;
        }
        self.send(&[0x90, 5, 0, 1, 0, 0, 0]).await
    }

    async fn notice(&mut self, version: i64) -> Option<()> {
        self.told = version;
        let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
        let patch = json!({"modules": module(version), "$version": version});
        let packet = publish_packet(&topic, patch.to_string().as_bytes());
        self.send(&packet).await
    }

    async fn publish(&mut self, body: &[u8]) -> Option<()> {
        let end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..end].to_vec()).unwrap();
        let (path, rid) = topic.split_once("/?$rid=").unwrap();
        if path == "$iothub/twin/GET" {
            return self.twin(rid).await;
        }
        if path.starts_with("$iothub/methods/res/") {
            self.world.state().seen.answers.push(topic);
            return Some(());
        }
        assert_eq!(path, "$iothub/twin/PATCH/properties/reported");
        self.world.state().seen.reports += 1;
        let status = match self.temper {
            Temper::NoReport(status) => status,
            _ => 204,
        };
        if status == 204 {
            let patch = serde_json::from_slice(&body[end..]).unwrap();
            merge(&mut self.world.state().reported, patch);
        }
        self.respond(status, rid, "").await
    }

    async fn twin(&mut self, rid: &str) -> Option<()> {
        let twins = {
            let mut state = self.world.state();
            state.seen.twins += 1;
            state.seen.twins
        };
        if let Temper::NoTwin(status) = self.temper {
            return self.respond(status, rid, "{}").await;
        }
        let (mut version, reported) = {
            let state = self.world.state();
            (state.version, state.reported.clone())
        };
        if self.temper == Temper::PatchBeforeTwin && twins == 1 {
            self.world.change();
            self.notice(version + 1).await?;
        } else {
            version = self.world.state().version;
            self.told = version;
        }
        let mut twin = json!({"desired": super::super::desired(&[]), "reported": reported});
        twin["desired"]["modules"] = module(version);
        twin["desired"]["$version"] = json!(version);
        self.respond(200, rid, &twin.to_string()).await
    }

    async fn respond(&mut self, status: u16, rid: &str, body: &str) -> Option<()> {
        let topic = format!("$iothub/twin/res/{status}/?$rid={rid}");
        let packet = publish_packet(&topic, body.as_bytes());
        self.send(&packet).await
    }
}

/// The modules of a version: one, whose image says which.
pub(super) fn module(version: i64) -> Value {
    json!({"led": {"type": "docker", "status": "running",
        "settings": {"image": format!("a.io/led:{version}")}}})
}
