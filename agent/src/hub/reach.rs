//! Whether the hub can be reached at all, for `kobune check`.

use std::sync::Arc;

use super::device::Server;
use super::transport::{self, Network, TlsError, TransportError};
use super::{carriers, client_files, http_client};
use crate::provisioning::{Enrolment, HubConfig, ManualIdentity, Source};

/// Why the hub, or the provisioning service, cannot be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReachError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("cannot reach the provisioning service")]
    Http(#[source] reqwest::Error),
}

/// Opens a connection as the daemon would, up to the end of the TLS handshake, and closes it.
/// Who this device is is not told. For a device that is yet to be provisioned the provisioning
/// service is asked instead.
///
/// # Errors
/// That of the last way that was tried.
pub(crate) async fn reach(config: &HubConfig) -> Result<(), ReachError> {
    let files = client_files(&config.source);
    let tls = transport::tls(config.trust_bundle.as_deref(), files.as_ref())?;
    let identity = match &config.source {
        Source::Manual(identity) => identity,
        Source::Dps(enrolment) => {
            let http = http_client(tls, config.proxy.as_deref()).map_err(ReachError::Http)?;
            // Any answer will do.
            let answer = http.get(&enrolment.endpoint).send().await;
            return answer.map(drop).map_err(ReachError::Http);
        }
    };
    let server = Server::parse(server(identity));
    let environment = |name: &str| std::env::var(name).ok();
    let network = Network {
        tls: Arc::new(tls),
        proxy: transport::proxy_for(config.proxy.as_deref(), environment, &server.host),
    };
    let mut result = Ok(());
    for carrier in carriers(config.upstream) {
        result = network.connect(&server, *carrier).await.map(drop);
        if result.is_ok() {
            break;
        }
    }
    Ok(result?)
}

fn server(identity: &ManualIdentity) -> &str {
    identity.gateway.as_deref().unwrap_or(&identity.hub)
}

impl HubConfig {
    /// The server that the device connects to first.
    pub(crate) fn server(&self) -> &str {
        match &self.source {
            Source::Manual(identity) => server(identity),
            Source::Dps(Enrolment { endpoint, .. }) => endpoint,
        }
    }
}
