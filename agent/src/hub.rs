//! The agent's side of Azure IoT Hub's wire: what the hub desires goes to the core, what
//! the core does is reported, and method calls are answered.
//!
//! Two tasks: [`run`] keeps a session with the hub, and a keeper makes and deletes the
//! identities of modules. Modules never wait for either: a device without its hub runs the
//! last deployment that it was given.

mod attempt;
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
pub mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kobune_runtime::Timestamp;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use crate::command::Handle;
use crate::error_chain::chain;
use crate::provisioning::{Credential, HubConfig, ManualIdentity, Source, Upstream};
use backoff::{Backoff, End, Retries};
use connection::Connection;
pub(crate) use device::is_plausible;
use device::{Device, KeyError};
use identity::{Identities, IdentityError};
use link::Link;
use methods::{Methods, Tasks};
pub(crate) use reach::reach;
use rest::ModuleRegistry;
use session::Ended;
use transport::{Carrier, ClientFiles, Dial, Network, TlsError};

/// Life of the agent's token. A token is only good for one identity of one device, and a
/// renewal costs a connection.
pub(crate) const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Wait after the hub could not be set up: a file may come, an enrolment may be made.
const SETUP_RETRY: Duration = Duration::from_secs(300);

/// What the hub's tasks work with.
pub(crate) struct HubParts {
    pub(crate) config: HubConfig,
    pub(crate) handle: Handle,
    /// The daemon's state directory.
    pub(crate) state_dir: PathBuf,
    /// Life of the agent's tokens.
    pub(crate) token_life: Duration,
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

struct Client {
    device: Device,
    network: Box<dyn Dial>,
    carriers: &'static [Carrier],
    registry: Arc<ModuleRegistry>,
    identities: Arc<Mutex<Identities>>,
    link: Link,
    /// The agent's key was set at the hub since the hub last took it.
    key_is_fresh: bool,
    token_life: Duration,
    /// Where the provisioning service said what the device is.
    registration: Option<dps::Registration>,
}

/// Why the client gave up its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Shutdown,
    /// The provisioning service has assigned the device to another hub, or as another one.
    Moved,
}

/// Keeps the connection with the hub until `shutdown`. What stands in the way is logged,
/// and tried again; the modules run on.
pub(crate) async fn run(parts: HubParts, mut shutdown: watch::Receiver<bool>) {
    loop {
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
        let left = client.run(&mut shutdown).await;
        keeper.abort();
        match left {
            Left::Shutdown => return,
            Left::Moved => tracing::info!("the device has another assignment"),
        }
    }
}

/// The client, as soon as it can be set up.
async fn ready(parts: &HubParts) -> (Client, keeper::Wanted) {
    let mut retries = Retries::new(SETUP_RETRY, SETUP_RETRY);
    loop {
        match set_up(parts).await {
            Ok(ready) => return ready,
            Err(error) => tracing::error!(error = chain(&error), "cannot set up the hub's client"),
        }
        tokio::time::sleep(retries.wait(None, random())).await;
    }
}

async fn set_up(parts: &HubParts) -> Result<(Client, keeper::Wanted), SetupError> {
    attempt::wait_for_clock().await;
    let config = &parts.config;
    let tls = transport::tls(
        config.trust_bundle.as_deref(),
        client_files(&config.source).as_ref(),
    )?;
    let http = http_client(tls.clone(), config.proxy.as_deref()).map_err(SetupError::Http)?;
    let state = parts.state_dir.join("state");
    let (device, registration) = match &config.source {
        Source::Manual(identity) => (Device::open(identity)?, None),
        Source::Dps(enrolment) => {
            let registration = dps::Registration {
                enrolment: enrolment.clone(),
                http: http.clone(),
                path: state.join("provisioning.json"),
            };
            (registration.device().await?, Some(registration))
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
        network: Box::new(network),
        carriers: carriers(config.upstream),
        registry: Arc::new(ModuleRegistry {
            http,
            device: device.clone(),
        }),
        identities: Arc::new(Mutex::new(identities)),
        link,
        device,
        key_is_fresh: false,
        token_life: parts.token_life,
        registration,
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

impl Client {
    async fn run(mut self, shutdown: &mut watch::Receiver<bool>) -> Left {
        let mut backoff = Backoff::default();
        loop {
            let mut down = shutdown.clone();
            let opened = tokio::select! {
                opened = self.open() => opened,
                () = ending(&mut down) => return Left::Shutdown,
            };
            let end = match opened {
                Ok(opened) => match self.session(opened, shutdown).await {
                    Some(end) => end,
                    None => return Left::Shutdown,
                },
                Err(error) => {
                    tracing::warn!(error = chain(&error), "cannot connect to the hub");
                    self.end_of(&error)
                }
            };
            let wait = backoff.wait(end, random());
            if backoff.is_contended() {
                tracing::warn!(
                    "the hub ends sessions soon after their begin: another agent seems to use this device's identity"
                );
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = ending(&mut down) => return Left::Shutdown,
            }
            if end == End::Refused && self.has_moved().await {
                return Left::Moved;
            }
        }
    }

    /// How the session ended; `None` where the agent ends.
    async fn session(
        &mut self,
        (connection, renew_at): (Connection, Instant),
        shutdown: &mut watch::Receiver<bool>,
    ) -> Option<End> {
        let started = Instant::now();
        tracing::info!(hub = self.device.hub, device = self.device.id, "connected");
        let ended = session::run(connection, &mut self.link, renew_at, shutdown).await;
        let lasted = started.elapsed();
        let error = match ended {
            Ok(Ended::Shutdown) => return None,
            Ok(Ended::Renewal) => return Some(End::Renewal),
            Err(error) => error,
        };
        tracing::warn!(error = chain(&error), "the hub is gone");
        Some(End::of_session(&error, lasted))
    }

    /// Asks the provisioning service, if there is one, whether it knows better than the hub
    /// that refused us.
    async fn has_moved(&self) -> bool {
        let Some(registration) = &self.registration else {
            return false;
        };
        match registration.renew(&self.device).await {
            Ok(moved) => moved,
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot register anew");
                false
            }
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
