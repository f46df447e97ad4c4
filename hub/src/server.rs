//! The listeners: MQTT over TLS on one port; REST, and MQTT over WebSocket, on the other.

mod descriptors;
mod https;
mod patience;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::connection::{self, Ended, Framing, PacketStream, Peer};
use crate::event::Action;
use crate::handle::HubHandle;
use crate::moment::Moment;
use crate::portal::Portal;
use crate::record::Thumbprint;
use crate::tls::{AuthorityError, Certificate, server_config};
use descriptors::Complaint;
use patience::Patient;

/// How long a TLS handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// How long a peer may take nothing of what is sent to it.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// How often events that nobody waits for are written.
const WRITE_EVENTS_EVERY: Duration = Duration::from_secs(5);
/// How often the server's certificate is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(24 * 3600);

/// Both listeners, bound.
#[derive(Debug)]
pub(crate) struct Server {
    mqtt: TcpListener,
    https: TcpListener,
    certificate: Arc<Certificate>,
    hub: HubHandle,
    portal: Portal,
}

/// The server cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("listening on {address}")]
    Bind {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("setting up TLS")]
    Tls(#[source] AuthorityError),
}

#[derive(Debug, Clone)]
enum Port {
    Mqtt,
    Https(Portal),
}

impl Server {
    /// Listens on both addresses; from here on connections wait, and are served by
    /// [`Server::run`].
    pub(crate) async fn bind(
        mqtt: SocketAddr,
        https: SocketAddr,
        certificate: Arc<Certificate>,
        hub: HubHandle,
        portal: Portal,
    ) -> Result<Self, ServeError> {
        descriptors::raise();
        Ok(Self {
            mqtt: bind(mqtt).await?,
            https: bind(https).await?,
            certificate,
            hub,
            portal,
        })
    }

    /// Serves until the future is dropped.
    pub(crate) async fn run(self) -> Result<(), ServeError> {
        let config = |alpn| server_config(self.certificate.clone(), alpn).map_err(ServeError::Tls);
        let mqtt = TlsAcceptor::from(config(&[])?);
        let https = TlsAcceptor::from(config(&["http/1.1"])?);
        let portal = Port::Https(self.portal.clone());
        tokio::join!(
            accept(&self.mqtt, &mqtt, &self.hub, &Port::Mqtt),
            accept(&self.https, &https, &self.hub, &portal),
            renew(&self.certificate),
            keep_events(&self.hub),
        );
        Ok(())
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| ServeError::Bind { address, source })
}

async fn renew(certificate: &Certificate) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        if let Err(error) = certificate.renew(Moment::now()) {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "renewing the certificate"
            );
        }
    }
}

/// Has the event log say that the hub has started, and then what it was told in between.
async fn keep_events(hub: &HubHandle) {
    let version = concat!("version ", env!("CARGO_PKG_VERSION"));
    let started = hub.ask(|hub| hub.record_event(Action::HubStarted, version, Moment::now()));
    let mut kept = started.await;
    loop {
        if let Err(error) = kept {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "writing the event log");
        }
        tokio::time::sleep(WRITE_EVENTS_EVERY).await;
        kept = hub.ask(crate::core::Hub::write_events).await;
    }
}

async fn accept(listener: &TcpListener, tls: &TlsAcceptor, hub: &HubHandle, port: &Port) {
    let mut complaint = Complaint::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (tls, hub, port) = (tls.clone(), hub.clone(), port.clone());
                tokio::spawn(async move { serve(stream, peer, &tls, &hub, &port).await });
            }
            Err(error) => {
                // Out of descriptors, as a rule: others have to end first.
                complaint.about(&error);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    tls: &TlsAcceptor,
    hub: &HubHandle,
    port: &Port,
) {
    // What goes out is small and urgent, and already in whole packets.
    let _ = stream.set_nodelay(true);
    let stream = Patient::new(stream, TAKEN_WITHIN);
    let stream = match timeout(HANDSHAKE_WITHIN, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%peer, error = &error as &dyn std::error::Error, "TLS failed");
            return;
        }
        Err(_) => return,
    };
    let thumbprints = thumbprints(&stream);
    match port {
        Port::Mqtt => {
            let packets = PacketStream::new(stream, Framing::Bare, &[]);
            let client = Peer {
                address: peer.ip(),
                thumbprints: &thumbprints,
            };
            report(peer, connection::serve(packets, client, hub).await);
        }
        Port::Https(portal) => https::serve(stream, peer, thumbprints, hub, portal).await,
    }
}

fn thumbprints(stream: &TlsStream<Patient<TcpStream>>) -> Vec<Thumbprint> {
    let certificates = stream.get_ref().1.peer_certificates();
    let leaf = certificates.and_then(<[_]>::first);
    leaf.map_or_else(Vec::new, |leaf| Thumbprint::of_certificate(leaf))
}

fn report(peer: SocketAddr, ended: Result<(), Ended>) {
    match ended {
        Ok(()) => tracing::debug!(%peer, "the client took its leave"),
        Err(error) => {
            tracing::info!(%peer, error = &error as &dyn std::error::Error, "connection ended");
        }
    }
}
