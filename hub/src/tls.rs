//! The hub's TLS: its certificate, renewed while it runs, and the certificates of clients.

mod authority;
mod client;

pub(crate) use authority::{Authority, AuthorityError, write_atomic};

use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, crypto};

use crate::moment::Moment;

/// The server's certificate of the day.
#[derive(Debug)]
pub(crate) struct Certificate {
    authority: Authority,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    pub(crate) fn issue(authority: Authority, now: Moment) -> Result<Arc<Self>, AuthorityError> {
        let current = RwLock::new(Arc::new(authority.leaf(now)?));
        Ok(Arc::new(Self { authority, current }))
    }

    /// Replaces the certificate by one that begins now; open connections keep theirs.
    pub(crate) fn renew(&self, now: Moment) -> Result<(), AuthorityError> {
        let next = Arc::new(self.authority.leaf(now)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read();
        Some(current.unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// TLS 1.2 and 1.3 (Microsoft's Python SDK speaks 1.2 only); clients may show a certificate.
///
/// # Errors
/// [`AuthorityError::Tls`].
pub(crate) fn server_config(
    certificate: Arc<Certificate>,
    alpn: &[&str],
) -> Result<Arc<ServerConfig>, AuthorityError> {
    let provider = Arc::new(crypto::ring::default_provider());
    let verifier = Arc::new(client::AnyCertificate::new(&provider));
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(AuthorityError::Tls)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}
