//! The agent's side of Azure IoT Hub's wire: what the hub desires goes to the core, what
//! the core does is reported, and method calls are answered.
//!
//! Two tasks: [`run`] keeps a session with the hub, and a keeper makes and deletes the
//! identities of modules. Modules never wait for either: a device without its hub runs the
//! last deployment that it was given.

mod backoff;
mod codec;
mod connection;
mod device;
mod dps;
mod http_head;
mod identity;
mod keeper;
mod link;
mod methods;
mod progress;
mod reach;
mod rest;
mod session;
mod topic;
mod transport;
pub(crate) mod twin;
mod websocket;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kobune_iothub_auth::SharedAccessKey;
use kobune_runtime::Timestamp;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::command::Handle;
use crate::error_chain::chain;
use crate::provisioning::{Credential, HubConfig, ManualIdentity, Source, Upstream};
use backoff::{Backoff, End};
use codec::Connect;
use connection::{Connection, ConnectionError};
pub(crate) use device::is_plausible;
use device::{Device, KeyError};
use identity::{AGENT, Identities, IdentityError};
use link::Link;
use methods::{Methods, Tasks};
pub(crate) use reach::reach;
use rest::ModuleRegistry;
use session::Ended;
use transport::{Carrier, ClientFiles, Network, TlsError, TransportError};

/// Life of the agent's token. A token is only good for one identity of one device, and a
/// renewal costs a connection.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Part of its life after which a token is renewed, in per cent.
const RENEW_AT: u32 = 85;
/// How often a clock that is wrong is looked at.
const CLOCK_POLL: Duration = Duration::from_secs(2);
/// Wait after the hub could not be set up: a file may come, an enrolment may be made.
const SETUP_RETRY: Duration = Duration::from_secs(300);

/// What the hub's tasks work with.
pub(crate) struct HubParts {
    pub(crate) config: HubConfig,
    pub(crate) handle: Handle,
    /// The daemon's state directory.
    pub(crate) state_dir: PathBuf,
}

/// Why the hub cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("cannot set up the HTTP client")]
    Http(#[source] reqwest::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("cannot register with the provisioning service")]
    Dps(#[from] dps::DpsError),
}

/// Why there is no session, or no longer one.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
}

struct Client {
    device: Device,
    network: Network,
    carriers: &'static [Carrier],
    registry: Arc<ModuleRegistry>,
    identities: Arc<Mutex<Identities>>,
    link: Link,
    /// The agent's key was set at the hub since the hub last took it.
    key_is_fresh: bool,
}

/// Keeps the connection with the hub until `shutdown`. What stands in the way is logged,
/// and tried again; the modules run on.
pub(crate) async fn run(parts: HubParts, mut shutdown: watch::Receiver<bool>) {
    let mut down = shutdown.clone();
    let (client, wanted) = tokio::select! {
        ready = ready(&parts) => ready,
        () = ending(&mut down) => return,
    };
    let keeper = tokio::spawn(keeper::keep_identities(
        Arc::clone(&client.registry),
        Arc::clone(&client.identities),
        wanted,
    ));
    client.run(&mut shutdown).await;
    keeper.abort();
}

/// The client, as soon as it can be set up.
async fn ready(parts: &HubParts) -> (Client, keeper::Wanted) {
    loop {
        match set_up(parts).await {
            Ok(ready) => return ready,
            Err(error) => tracing::error!(error = chain(&error), "cannot set up the hub's client"),
        }
        tokio::time::sleep(SETUP_RETRY).await;
    }
}

async fn set_up(parts: &HubParts) -> Result<(Client, keeper::Wanted), SetupError> {
    wait_for_clock().await;
    let config = &parts.config;
    let tls = transport::tls(
        config.trust_bundle.as_deref(),
        client_files(&config.source).as_ref(),
    )?;
    let http = http_client(tls.clone(), config.proxy.as_deref()).map_err(SetupError::Http)?;
    let state = parts.state_dir.join("state");
    let device = match &config.source {
        Source::Manual(identity) => Device::open(identity)?,
        Source::Dps(enrolment) => {
            dps::device(enrolment, &http, &state.join("provisioning.json")).await?
        }
    };
    let environment = |name: &str| std::env::var(name).ok();
    let network = Network {
        tls: Arc::new(tls),
        proxy: transport::proxy_for(config.proxy.as_deref(), environment, &device.server.host),
    };
    let identities = Identities::load(state.join("identities.json"), &device)?;
    let (wanted, receiver) = watch::channel(None);
    let link = Link {
        handle: parts.handle.clone(),
        methods: Methods {
            handle: parts.handle.clone(),
            state_dir: parts.state_dir.clone(),
            hub: device.hub.clone(),
            device_id: device.id.clone(),
            http: http.clone(),
            tasks: Arc::new(Tasks::default()),
        },
        started: Timestamp::now(),
        outcome: None,
        progress: progress::Progress::default(),
        wanted,
    };
    let client = Client {
        network,
        carriers: carriers(config.upstream),
        registry: Arc::new(ModuleRegistry {
            http,
            device: device.clone(),
        }),
        identities: Arc::new(Mutex::new(identities)),
        link,
        device,
        key_is_fresh: false,
    };
    Ok((client, receiver))
}

/// The certificate that authenticates the device, where one does.
fn client_files(source: &Source) -> Option<ClientFiles<'_>> {
    let Source::Manual(ManualIdentity { credential, .. }) = source else {
        return None;
    };
    match credential {
        Credential::X509 {
            certificate,
            private_key,
        } => Some(ClientFiles {
            certificate,
            private_key,
        }),
        Credential::Key(_) => None,
    }
}

fn http_client(tls: rustls::ClientConfig, proxy: Option<&str>) -> reqwest::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("kobune/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(30))
        .pool_idle_timeout(Duration::from_secs(30));
    if let Some(proxy) = proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy)?);
    }
    builder.build()
}

fn carriers(upstream: Upstream) -> &'static [Carrier] {
    match upstream {
        Upstream::Any => &[Carrier::Tls, Carrier::WebSocket],
        Upstream::Mqtt => &[Carrier::Tls],
        Upstream::MqttWs => &[Carrier::WebSocket],
    }
}

/// Tokens have a time in them, and certificates are valid at times: nothing works with a
/// clock that was not set.
async fn wait_for_clock() {
    let mut said = false;
    while !device::is_plausible(Timestamp::now()) {
        if !said {
            tracing::warn!("the clock is not set: the hub has to wait");
            said = true;
        }
        tokio::time::sleep(CLOCK_POLL).await;
    }
}

impl Client {
    async fn run(mut self, shutdown: &mut watch::Receiver<bool>) {
        let mut backoff = Backoff::default();
        loop {
            let mut down = shutdown.clone();
            let opened = tokio::select! {
                opened = self.open() => opened,
                () = ending(&mut down) => return,
            };
            let end = match opened {
                Ok((connection, renew_at)) => {
                    let started = Instant::now();
                    tracing::info!(hub = self.device.hub, device = self.device.id, "connected");
                    match session::run(connection, &mut self.link, renew_at, shutdown).await {
                        Ok(Ended::Shutdown) => return,
                        Ok(Ended::Renewal) => End::Renewal,
                        Err(error) => {
                            tracing::warn!(error = chain(&error), "the hub is gone");
                            End::Broken(started.elapsed())
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(error = chain(&error), "cannot connect to the hub");
                    self.end_of(&error)
                }
            };
            let wait = backoff.wait(end, random());
            if backoff.is_contended() {
                tracing::warn!(
                    "sessions end soon after their begin: another agent seems to use this device's identity"
                );
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = ending(shutdown) => return,
            }
        }
    }

    /// A connection, and when its token has to be renewed.
    async fn open(&mut self) -> Result<(Connection, Instant), AttemptError> {
        wait_for_clock().await;
        let key = self.agent_key().await?;
        match self.connect(&key).await {
            // The key that was remembered may be none any more: the hub can tell.
            Err(AttemptError::Connection(ConnectionError::Refused { .. }))
                if !self.key_is_fresh =>
            {
                let key = self.renew_agent_key().await?;
                self.connect(&key).await
            }
            result => result,
        }
    }

    async fn agent_key(&mut self) -> Result<SharedAccessKey, IdentityError> {
        let known = self.identities.lock().await.key(AGENT);
        match known {
            Some(key) => Ok(key),
            None => self.renew_agent_key().await,
        }
    }

    async fn renew_agent_key(&mut self) -> Result<SharedAccessKey, IdentityError> {
        let key = self
            .identities
            .lock()
            .await
            .obtain_agent(&self.registry)
            .await?;
        self.key_is_fresh = true;
        Ok(key)
    }

    async fn connect(
        &mut self,
        key: &SharedAccessKey,
    ) -> Result<(Connection, Instant), AttemptError> {
        let (server, device) = (&self.device.server, &self.device.id);
        let mut last = None;
        for carrier in self.carriers {
            let stream = match self.network.connect(server, *carrier).await {
                Ok(stream) => stream,
                Err(error) => {
                    if let Some(first) = last.replace(error) {
                        tracing::warn!(error = chain(&first), "cannot reach the hub");
                    }
                    continue;
                }
            };
            let expiry = Timestamp::now().unix_seconds() + TOKEN_LIFE.as_secs();
            let token = self.device.module_token(AGENT, key, expiry);
            let connect = Connect {
                client_id: &format!("{device}/{AGENT}"),
                username: &topic::username(&self.device.hub, device, AGENT),
                password: Some(&token.to_text()),
                keep_alive: u16::try_from(session::KEEP_ALIVE.as_secs()).unwrap_or(u16::MAX),
            };
            let connection = Connection::open(stream, &connect).await?;
            self.key_is_fresh = false;
            return Ok((connection, Instant::now() + TOKEN_LIFE / 100 * RENEW_AT));
        }
        Err(match last {
            Some(error) => error.into(),
            None => ConnectionError::Silent.into(),
        })
    }

    fn end_of(&self, error: &AttemptError) -> End {
        match error {
            AttemptError::Connection(ConnectionError::Refused { code: 4 | 5 }) => End::Refused,
            AttemptError::Identity(IdentityError::NoEdgeDevice(_)) => End::Refused,
            AttemptError::Identity(IdentityError::Rest(error)) if error.is_refusal() => {
                End::Refused
            }
            AttemptError::Identity(IdentityError::Rest(error)) if error.status() == Some(429) => {
                End::Throttled
            }
            _ => End::Unreachable,
        }
    }
}

/// Returns when the agent shall end.
async fn ending(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the end too.
    let _ = shutdown.wait_for(|down| *down).await;
}

fn random() -> u32 {
    let bytes = ring::rand::generate::<[u8; 4]>(&ring::rand::SystemRandom::new());
    // Without random numbers every device waits the longest: still no storm.
    bytes.map_or(u32::MAX, |bytes| u32::from_ne_bytes(bytes.expose()))
}

#[cfg(test)]
mod tests;
