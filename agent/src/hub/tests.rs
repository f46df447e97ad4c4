//! Sessions against a scripted hub at the other end of a pipe.

mod convergence;
pub(super) mod tls;
mod wire;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::codec::{Connect, publish_packet};
use super::connection::{Connection, ConnectionError};
use super::link::Link;
use super::methods::{Methods, Tasks};
use super::progress::Progress;
use super::session::{self, Ended};
use crate::api::wire::{Accepted, DeploymentState};
use crate::command::{self, Command, CoreChannels, Snapshot};
use crate::deployment::{self, Strictness};
use kobune_runtime::Timestamp;

/// The hub's end of the pipe.
struct Hub {
    stream: DuplexStream,
    shutdown: watch::Sender<bool>,
    applied: mpsc::UnboundedReceiver<(String, i64)>,
    session: JoinHandle<Result<Ended, ConnectionError>>,
    wanted: watch::Receiver<Option<BTreeSet<String>>>,
    _dir: tempfile::TempDir,
}

fn desired(modules: &[&str]) -> Value {
    let module = json!({"type": "docker", "status": "running", "settings": {"image": "a.io/m:1"}});
    let modules = modules
        .iter()
        .map(|name| ((*name).to_owned(), module.clone()));
    json!({
        "schemaVersion": "1.1",
        "runtime": {"type": "docker", "settings": {}},
        "systemModules": {"edgeAgent": {"type": "docker", "settings": {"image": "a"}}},
        "modules": modules.collect::<serde_json::Map<_, _>>(),
    })
}

/// A core that takes every deployment and says that it is carried out.
async fn core(mut channels: CoreChannels, applied: mpsc::UnboundedSender<(String, i64)>) {
    while let Some(command) = channels.commands.recv().await {
        let Command::ApplyDesired {
            manifest,
            version,
            reply,
        } = command
        else {
            continue;
        };
        let parsed = deployment::parse(&manifest, Strictness::Twin).unwrap();
        let _ = applied.send((manifest, version));
        let _ = reply.send(Ok(Accepted {
            revision: 1,
            modules: Vec::new(),
            warnings: Vec::new(),
        }));
        channels.snapshot.send_replace(Arc::new(Snapshot {
            desired_version: Some(version),
            state: DeploymentState::Applied,
            desired: Some(parsed),
            ..Snapshot::default()
        }));
    }
}

/// The way to a core that [`core`] is, and what comes out of it.
struct Linked {
    link: Link,
    applied: mpsc::UnboundedReceiver<(String, i64)>,
    wanted: watch::Receiver<Option<BTreeSet<String>>>,
}

fn linked(state_dir: &Path) -> Linked {
    let (handle, channels) = command::channels();
    let (applied_by, applied) = mpsc::unbounded_channel();
    channels.snapshot.send_replace(Arc::new(Snapshot {
        desired: Some(deployment::parse(&desired(&[]).to_string(), Strictness::Twin).unwrap()),
        ..Snapshot::default()
    }));
    tokio::spawn(core(channels, applied_by));
    let (wanted_by, wanted) = watch::channel(None);
    let link = Link {
        methods: Methods {
            handle: handle.clone(),
            state_dir: state_dir.to_owned(),
            hub: "h".to_owned(),
            device_id: "d".to_owned(),
            http: reqwest::Client::builder()
                .tls_backend_preconfigured(super::transport::tls(None, None).unwrap())
                .build()
                .unwrap(),
            tasks: Arc::new(Tasks::default()),
        },
        handle,
        started: Timestamp::from_unix(0, 0),
        outcome: None,
        progress: Progress::default(),
        wanted: wanted_by,
    };
    Linked {
        link,
        applied,
        wanted,
    }
}

impl Hub {
    /// A session after its CONNECT, whose token ends after `life`.
    async fn start(life: Duration) -> Self {
        let (client, mut stream) = tokio::io::duplex(1 << 20);
        let dir = tempfile::tempdir().unwrap();
        let Linked {
            mut link,
            applied,
            wanted,
        } = linked(dir.path());
        let (shutdown, mut down) = watch::channel(false);
        let session = tokio::spawn(async move {
            let connect = Connect {
                client_id: "d/$edgeAgent",
                username: "u",
                password: Some("p"),
                keep_alive: 60,
            };
            let connection = Connection::open(Box::new(client), &connect).await?;
            session::run(connection, &mut link, Instant::now() + life, &mut down).await
        });
        assert_eq!(packet(&mut stream).await.0 >> 4, 1, "CONNECT");
        stream.write_all(&[0x20, 2, 0, 0]).await.unwrap();
        assert_eq!(packet(&mut stream).await.0 >> 4, 8, "SUBSCRIBE");
        stream.write_all(&[0x90, 5, 0, 1, 0, 0, 0]).await.unwrap();
        Self {
            stream,
            shutdown,
            applied,
            session,
            wanted,
            _dir: dir,
        }
    }

    /// The next message, pings answered on the way.
    async fn message(&mut self) -> (String, Vec<u8>) {
        loop {
            let (first, body) = packet(&mut self.stream).await;
            match first >> 4 {
                12 => self.stream.write_all(&[0xd0, 0]).await.unwrap(),
                3 => {
                    let end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
                    let topic = String::from_utf8(body[2..end].to_vec()).unwrap();
                    return (topic, body[end..].to_vec());
                }
                other => panic!("a packet of type {other}"),
            }
        }
    }

    async fn send(&mut self, topic: &str, payload: &[u8]) {
        let packet = publish_packet(topic, payload);
        self.stream.write_all(&packet).await.unwrap();
    }

    /// Waits for the request for the twin and answers it.
    async fn give_twin(&mut self, desired: &Value, version: i64, reported: &Value) {
        let (topic, _) = self.message().await;
        let rid = topic
            .strip_prefix("$iothub/twin/GET/?$rid=")
            .expect("a GET")
            .to_owned();
        let mut twin = json!({"desired": desired, "reported": reported});
        twin["desired"]["$version"] = json!(version);
        twin["reported"]["$version"] = json!(1);
        let topic = format!("$iothub/twin/res/200/?$rid={rid}");
        self.send(&topic, twin.to_string().as_bytes()).await;
    }

    /// Waits for a report and answers with `status`.
    async fn take_report(&mut self, status: u16) -> Value {
        let (topic, payload) = self.message().await;
        let rid = topic
            .strip_prefix("$iothub/twin/PATCH/properties/reported/?$rid=")
            .unwrap_or_else(|| panic!("a report, not {topic}"))
            .to_owned();
        let topic = format!("$iothub/twin/res/{status}/?$rid={rid}&$version=2");
        self.send(&topic, &[]).await;
        serde_json::from_slice(&payload).unwrap()
    }
}

async fn packet(stream: &mut DuplexStream) -> (u8, Vec<u8>) {
    let first = stream.read_u8().await.unwrap();
    let (mut length, mut shift) = (0, 0);
    loop {
        let byte = stream.read_u8().await.unwrap();
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.unwrap();
    (first, body)
}

const LONG: Duration = Duration::from_secs(86_400);

#[tokio::test(start_paused = true)]
async fn desired_properties_reach_the_core_and_its_state_is_reported_once() {
    let mut hub = Hub::start(LONG).await;
    hub.give_twin(&desired(&["led"]), 7, &json!({"stale": 1}))
        .await;
    let (manifest, version) = hub.applied.recv().await.unwrap();
    assert_eq!(version, 7);
    assert!(!manifest.contains("$version"), "{manifest}");
    let report = hub.take_report(204).await;
    assert_eq!(report["lastDesiredVersion"], 7);
    assert_eq!(report["lastDesiredStatus"]["code"], 200);
    assert_eq!(report["stale"], Value::Null);
    let wanted = hub.wanted.borrow().clone().unwrap();
    assert_eq!(wanted, BTreeSet::from(["led".to_owned()]));
    // Nothing changes, so nothing is sent until the twin is fetched again.
    let (topic, _) = hub.message().await;
    assert!(topic.starts_with("$iothub/twin/GET/"), "{topic}");
}

#[tokio::test(start_paused = true)]
async fn patches_are_applied_and_a_missed_one_is_fetched() {
    let mut hub = Hub::start(LONG).await;
    hub.give_twin(&desired(&["led"]), 7, &json!({})).await;
    hub.take_report(204).await;
    let patch =
        json!({"modules": {"led": null, "button": desired(&["b"])["modules"]["b"]}, "$version": 8});
    hub.send(
        "$iothub/twin/PATCH/properties/desired/?$version=8",
        patch.to_string().as_bytes(),
    )
    .await;
    assert_eq!(hub.take_report(204).await["lastDesiredVersion"], 8);
    let wanted = hub.wanted.borrow().clone().unwrap();
    assert_eq!(wanted, BTreeSet::from(["button".to_owned()]));
    hub.send("$iothub/twin/PATCH/properties/desired/?$version=11", b"{}")
        .await;
    hub.give_twin(&desired(&[]), 11, &json!({})).await;
    hub.take_report(204).await;
    let versions: Vec<i64> = std::iter::from_fn(|| hub.applied.try_recv().ok())
        .map(|(_, v)| v)
        .collect();
    assert_eq!(versions, [7, 8, 11]);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_crosses_the_twin_on_its_way_is_not_lost() {
    let mut hub = Hub::start(LONG).await;
    let patch = desired(&["led"]).to_string();
    hub.send(
        "$iothub/twin/PATCH/properties/desired/?$version=8",
        patch.as_bytes(),
    )
    .await;
    hub.give_twin(&desired(&[]), 7, &json!({})).await;
    hub.give_twin(&desired(&["led"]), 8, &json!({})).await;
    assert_eq!(hub.take_report(204).await["lastDesiredVersion"], 8);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_valid_is_refused_with_its_code_and_changes_nothing() {
    let mut bad_options = desired(&["led"]);
    bad_options["modules"]["led"]["settings"]["createOptions"] = json!("{");
    let mut other_schema = desired(&[]);
    other_schema["schemaVersion"] = json!("2.0");
    for (desired, code) in [(json!({}), 417), (bad_options, 400), (other_schema, 412)] {
        let mut hub = Hub::start(LONG).await;
        let before =
            json!({"lastDesiredVersion": 3, "lastDesiredStatus": {"code": 200, "description": ""}});
        hub.give_twin(&desired, 9, &before).await;
        let report = hub.take_report(204).await;
        assert_eq!(report["lastDesiredStatus"]["code"], code);
        assert_ne!(report["lastDesiredStatus"]["description"], "");
        assert_eq!(report.get("lastDesiredVersion"), None, "the version stays");
        hub.applied.try_recv().unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_that_was_not_taken_is_sent_again() {
    let mut hub = Hub::start(LONG).await;
    hub.give_twin(&desired(&[]), 1, &json!({})).await;
    let first = hub.take_report(429).await;
    assert_eq!(hub.take_report(204).await, first);
}

#[tokio::test(start_paused = true)]
async fn calls_are_answered_also_those_that_make_no_sense() {
    let mut hub = Hub::start(LONG).await;
    hub.give_twin(&desired(&[]), 1, &json!({})).await;
    hub.take_report(204).await;
    for (name, payload, status, body) in [
        ("ping", "null", 200, ""),
        (
            "GetModuleLogs",
            r#"{"schemaVersion":"1.0","items":{"id":"all"}}"#,
            200,
            "[]",
        ),
        (
            "GetTaskStatus",
            r#"{"schemaVersion":"1.0","correlationId":"x"}"#,
            200,
            "Unknown",
        ),
        ("RestartModule", "{", 400, "no JSON object"),
        (
            "nothing",
            "{}",
            400,
            "not found. The supported commands are - ping",
        ),
    ] {
        hub.send(
            &format!("$iothub/methods/POST/{name}/?$rid=a7"),
            payload.as_bytes(),
        )
        .await;
        let (topic, answer) = hub.message().await;
        assert_eq!(
            topic,
            format!("$iothub/methods/res/{status}/?$rid=a7"),
            "{name}"
        );
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.contains(body) && (!body.is_empty() || answer.is_empty()),
            "{name}: {answer}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_token_is_renewed_before_it_ends() {
    let mut hub = Hub::start(Duration::from_secs(600)).await;
    hub.give_twin(&desired(&[]), 1, &json!({})).await;
    hub.take_report(204).await;
    let started = Instant::now();
    loop {
        let (first, _) = packet(&mut hub.stream).await;
        match first {
            0xc0 => hub.stream.write_all(&[0xd0, 0]).await.unwrap(),
            0xe0 => break,
            other => panic!("a packet {other:x}"),
        }
    }
    assert!(started.elapsed() <= Duration::from_secs(600));
    assert_eq!(hub.session.await.unwrap().unwrap(), Ended::Renewal);
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_falls_silent_is_given_up() {
    let mut hub = Hub::start(LONG).await;
    hub.give_twin(&desired(&[]), 1, &json!({})).await;
    hub.take_report(204).await;
    let started = Instant::now();
    let ended = hub.session.await.unwrap();
    assert!(matches!(ended, Err(ConnectionError::Silent)), "{ended:?}");
    assert!(started.elapsed() <= session::KEEP_ALIVE);
}

#[tokio::test(start_paused = true)]
async fn the_hub_is_told_when_the_agent_ends() {
    let mut hub = Hub::start(LONG).await;
    hub.give_twin(&desired(&[]), 1, &json!({})).await;
    hub.take_report(204).await;
    hub.shutdown.send(true).unwrap();
    let report = hub.take_report(204).await;
    assert_eq!(report["lastDesiredStatus"]["code"], 406);
    assert_eq!(packet(&mut hub.stream).await.0, 0xe0, "DISCONNECT");
    assert_eq!(hub.session.await.unwrap().unwrap(), Ended::Shutdown);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_and_a_denied_subscription_end_the_attempt() {
    for (answers, text) in [
        (vec![0x20, 2, 0, 5], "not authorized"),
        (
            vec![0x20, 2, 0, 0, 0x90, 5, 0, 1, 0, 0x80, 0],
            "refuses a subscription",
        ),
        (vec![0x20, 2, 0, 0, 0x10, 0], "only clients send"),
    ] {
        let (client, mut stream) = tokio::io::duplex(4096);
        stream.write_all(&answers).await.unwrap();
        let connect = Connect {
            client_id: "c",
            username: "u",
            password: None,
            keep_alive: 60,
        };
        let error = Connection::open(Box::new(client), &connect)
            .await
            .err()
            .unwrap();
        assert!(error.to_string().contains(text), "{error}");
    }
}
