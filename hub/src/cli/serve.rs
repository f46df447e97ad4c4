//! `kobune-hub serve`.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use kobune_iothub_auth::{ConnectionString, Credential, SharedAccessKey};
use tokio::signal::unix::{SignalKind, signal};

use super::Failure;
use super::console::say;
use super::line::Line;
use crate::core::Hub;
use crate::handle::HubHandle;
use crate::moment::Moment;
use crate::portal::Portal;
use crate::server::Server;
use crate::store::Store;
use crate::tls::{Authority, Certificate, write_atomic};

/// File in the state directory with what the other commands connect with.
pub(super) const CONNECTION_STRING_FILE: &str = "service.connection-string";
/// File in the state directory with the certificate that clients have to trust.
pub(super) const CA_FILE: &str = "ca.pem";
/// The policy of the connection string.
const POLICY: &str = "iothubowner";

/// What to serve, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServeOptions {
    pub(super) state: PathBuf,
    pub(super) listen: IpAddr,
    pub(super) hostnames: Vec<String>,
    pub(super) mqtt_port: u16,
    pub(super) https_port: u16,
}

impl ServeOptions {
    /// Takes what stands behind `serve`.
    pub(super) fn take(line: &mut Line) -> Result<Self, lexopt::Error> {
        Ok(Self {
            state: line.path("state")?.ok_or("--state DIR is missing")?,
            listen: line.value("listen")?.unwrap_or([127, 0, 0, 1].into()),
            hostnames: line.values("hostname")?,
            mqtt_port: line.value("mqtt-port")?.unwrap_or(8883),
            https_port: line.value("https-port")?.unwrap_or(443),
        })
    }

    /// What the hub is called, the name for connection strings first.
    fn names(&self) -> Vec<String> {
        let mut names = self.hostnames.clone();
        names.extend(["localhost", "127.0.0.1"].map(str::to_owned));
        if !self.listen.is_unspecified() {
            names.push(self.listen.to_string());
        }
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(name.to_ascii_lowercase()));
        names
    }

    fn host_name(&self) -> String {
        let names = self.names();
        match self.https_port {
            443 => names[0].clone(),
            port => format!("{}:{port}", names[0]),
        }
    }
}

/// Serves until SIGTERM or SIGINT.
pub(super) fn run(options: &ServeOptions) -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .init();
    let store = Store::open(&options.state)?;
    let hub = Hub::new(store, &options.names())?;
    let authority = Authority::open(&options.state, &options.names(), Moment::now())?;
    let certificate = Certificate::issue(authority, Moment::now())?;
    let text = greeting(options, &hub)?;
    let (handle, thread) = HubHandle::spawn(hub)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        let (mut terminate, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        let mqtt = SocketAddr::new(options.listen, options.mqtt_port);
        let https = SocketAddr::new(options.listen, options.https_port);
        let portal = Portal::new(&options.state);
        let server = Server::bind(mqtt, https, certificate, handle.clone(), portal).await?;
        say(&text)?;
        // Whatever a crash left half carried out.
        drop(crate::rollout::start(&handle));
        tokio::select! {
            served = server.run() => served?,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = handle.stopped() => {}
        }
        Ok(())
    });
    drop(handle);
    // The connections end with the runtime, and the hub with the last of them.
    drop(runtime);
    match thread.join() {
        Ok(ended) => ended?,
        Err(_) => return Err("the hub's thread has failed".into()),
    }
    served
}

/// What the operator has to know. The connection string stays in its file; a person at a terminal
/// sees it once, when it is new. What a program reads may be a log, and that gets no keys.
fn greeting(options: &ServeOptions, hub: &Hub) -> Result<String, Failure> {
    let connection_string = connection_string(options, hub)?;
    let path = options.state.join(CONNECTION_STRING_FILE);
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    let mut text = String::new();
    if known.trim_end() != connection_string {
        let line = format!("{connection_string}\n");
        write_atomic(&path, line.as_bytes(), 0o600)?;
        if std::io::stdout().is_terminal() {
            writeln!(text, "service connection string: {connection_string}")?;
        }
    }
    writeln!(text, "service connection string in: {}", shown(&path))?;
    let ca = options.state.join(CA_FILE);
    writeln!(text, "CA certificate for devices: {}", shown(&ca))?;
    writeln!(
        text,
        "listening on {}, MQTT port {}, HTTPS port {}",
        options.listen, options.mqtt_port, options.https_port
    )?;
    Ok(text)
}

fn shown(path: &Path) -> String {
    let absolute = std::path::absolute(path);
    absolute
        .unwrap_or_else(|_| path.to_owned())
        .display()
        .to_string()
}

fn connection_string(options: &ServeOptions, hub: &Hub) -> Result<String, Failure> {
    let key = hub.policy_key(POLICY).ok_or("the store has no policies")?;
    let connection_string = ConnectionString {
        host_name: options.host_name(),
        device_id: None,
        module_id: None,
        shared_access_key_name: Some(POLICY.to_owned()),
        credential: Credential::Key(SharedAccessKey::from_base64(&key)?),
        gateway_host_name: None,
    };
    Ok(connection_string.to_text())
}
