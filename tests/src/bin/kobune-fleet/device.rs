//! One simulated device: connects, takes its twin, and acknowledges what is desired, with
//! the agent's own half of the wire.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kobune::wire::{Account, Heard, Line, LineError, Waits};
use kobune_iothub_auth::{SasToken, SharedAccessKey};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Map, Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::service::token_end;
use crate::tally::Tally;

/// How long a connection may take until it is there, as the agent has it.
const DIAL: Duration = Duration::from_secs(30);
/// Source addresses, so that ports never run out.
const SOURCES: usize = 16;

/// What all devices share.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) tally: Tally,
    pub(crate) tls: Arc<ClientConfig>,
    /// What the hub is called.
    pub(crate) hub: String,
    pub(crate) port: u16,
    /// Bounds first attempts; later ones wait as agents do.
    pub(crate) first: Semaphore,
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) number: usize,
    /// Of its agent.
    pub(crate) key: SharedAccessKey,
}

impl Device {
    pub(crate) fn id(&self) -> String {
        format!("fleet-{:05}", self.number)
    }

    /// Connects, again and again, for as long as the process lives.
    pub(crate) async fn live(self, fleet: Arc<Fleet>) {
        let mut waits = Waits::default();
        let mut turn = fleet.first.acquire().await.ok();
        loop {
            let tally = &fleet.tally;
            tally.attempts.more();
            let opened = self.open(&fleet).await;
            drop(turn.take());
            let wait = match opened {
                Ok(line) => {
                    let started = Instant::now();
                    tally.connected.more();
                    let error = session(line, tally).await;
                    tally.connected.less();
                    waits.after_session(&error, started.elapsed())
                }
                Err(error) => {
                    tally.failed.more();
                    waits.after_attempt(error.as_ref())
                }
            };
            sleep(wait).await;
        }
    }

    /// An error of `None` means that the hub was not reached.
    async fn open(&self, fleet: &Fleet) -> Result<Line, Option<LineError>> {
        let dialled = timeout(DIAL, self.dial(fleet)).await;
        let stream = dialled.map_err(|_| None)?.map_err(|_| None)?;
        let (hub, id) = (&fleet.hub, self.id());
        let resource = format!("{hub}/devices/{id}/modules/$edgeAgent");
        let token = SasToken::sign(&self.key, &resource, token_end(), None).to_text();
        let account = Account {
            hub,
            device: &id,
            token: &token,
        };
        Ok(Line::open(stream, account).await?)
    }

    async fn dial(&self, fleet: &Fleet) -> Result<TlsStream<TcpStream>, std::io::Error> {
        let socket = TcpSocket::new_v4()?;
        let last = u8::try_from(2 + self.number % SOURCES).unwrap_or(2);
        socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into())?;
        let address = (Ipv4Addr::LOCALHOST, fleet.port).into();
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(fleet.hub.clone()).map_err(std::io::Error::other)?;
        TlsConnector::from(Arc::clone(&fleet.tls))
            .connect(name, stream)
            .await
    }
}

/// Runs a session to its end, which is always an error's.
async fn session(mut line: Line, tally: &Tally) -> LineError {
    loop {
        if let Err(error) = talk(&mut line, tally).await {
            return error;
        }
    }
}

/// Takes the twin and acknowledges it, as often as it changes.
async fn talk(line: &mut Line, tally: &Tally) -> Result<(), LineError> {
    line.ask_for_twin().await?;
    loop {
        match line.hear().await? {
            Heard::Changed => return Ok(()),
            Heard::Taken => tally.reports.more(),
            Heard::Pong => tally.pings.more(),
            Heard::Failed(_) => tally.failed.more(),
            Heard::Twin {
                desired,
                version,
                reported,
            } => {
                tally.twins.more();
                if reported["lastDesiredVersion"] != version {
                    line.report(&acknowledgement(&desired, version)).await?;
                }
            }
        }
    }
}

/// What an agent reports that has carried out the desired properties.
fn acknowledgement(desired: &Value, version: i64) -> Value {
    let modules = desired["modules"].as_object();
    let modules: Map<String, Value> = modules.into_iter().flatten().map(running).collect();
    let code = if desired["schemaVersion"].is_null() {
        417
    } else {
        200
    };
    json!({
        "schemaVersion": "1.0",
        "version": { "version": env!("CARGO_PKG_VERSION") },
        "lastDesiredVersion": version,
        "lastDesiredStatus": { "code": code, "description": "" },
        "runtime": desired["runtime"],
        "modules": modules,
    })
}

fn running((name, module): (&String, &Value)) -> (String, Value) {
    let mut module = module.clone();
    module["runtimeStatus"] = json!("running");
    module["statusDescription"] = json!("running");
    module["exitCode"] = json!(0);
    module["restartCount"] = json!(0);
    module["lastStartTimeUtc"] = json!("2025-01-01T00:00:00Z");
    module["lastRestartTimeUtc"] = json!("0001-01-01T00:00:00Z");
    (name.clone(), module)
}
