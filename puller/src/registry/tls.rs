//! Whom to trust, and how to prove who we are.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::client::failed;
use crate::config::RegistryOptions;
use crate::error::PullError;

/// ring instead of rustls's default provider: it builds for 32-bit ARM with a plain C compiler.
pub(super) fn config(options: &RegistryOptions) -> Result<ClientConfig, PullError> {
    let mut roots = RootCertStore::empty();
    // Certificates that cannot be read are as good as absent: connections that need one fail. Those
    // somebody configured are another matter.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &options.ca {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(failed)?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .with_root_certificates(roots);
    let Some(own) = &options.client_certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let key =
        PrivateKeyDer::from_pem_file(&own.key).map_err(|error| unreadable(&own.key, error))?;
    let chain = certificates(&own.certificate)?;
    builder.with_client_auth_cert(chain, key).map_err(failed)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PullError> {
    let found =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(certificates) if certificates.is_empty() => Err(unreadable(path, "it holds none")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unreadable(path, error)),
    }
}

fn unreadable(path: &Path, why: impl std::fmt::Display) -> PullError {
    PullError::Client {
        source: format!("read certificates or key from {}: {why}", path.display()).into(),
    }
}
