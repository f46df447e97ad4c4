//! The hub's own certificate authority: a key and a certificate in the state directory, made
//! at the first start. Devices trust the certificate; the server's own ones come and go.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::CertifiedKey;

use crate::moment::Moment;

/// Days for which a server's certificate is good; it is renewed long before.
const LEAF_DAYS: i64 = 90;
/// Days for which the authority's certificate is good.
const AUTHORITY_DAYS: i64 = 30 * 365;

/// Signs the server's certificates.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    names: Vec<String>,
}

/// Certificates cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    #[error("{operation} {path}")]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("making a certificate")]
    Certificate(#[source] rcgen::Error),
    #[error("reading the key {path}")]
    Key {
        path: PathBuf,
        #[source]
        source: rcgen::Error,
    },
    #[error("setting up TLS")]
    Tls(#[source] rustls::Error),
}

impl Authority {
    /// Opens the authority in `dir`, or makes one: `ca.key` for its owner only, and `ca.pem`
    /// for everyone. `names` are what the server is called: host names and addresses. A crash
    /// between the two files is made good at the next start.
    pub(crate) fn open(dir: &Path, names: &[String], now: Moment) -> Result<Self, AuthorityError> {
        let (key_path, path) = (dir.join("ca.key"), dir.join("ca.pem"));
        let key = match fs::read_to_string(&key_path) {
            Ok(pem) => KeyPair::from_pem(&pem).map_err(|source| AuthorityError::Key {
                path: key_path,
                source,
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = KeyPair::generate().map_err(AuthorityError::Certificate)?;
                write_atomic(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
                key
            }
            Err(source) => {
                return Err(AuthorityError::File {
                    operation: "reading",
                    path: key_path,
                    source,
                });
            }
        };
        let params = authority_params(now);
        if !path.exists() {
            let certificate = params.self_signed(&key);
            let certificate = certificate.map_err(AuthorityError::Certificate)?;
            write_atomic(&path, certificate.pem().as_bytes(), 0o644)?;
        }
        Ok(Self {
            issuer: Issuer::new(params, key),
            names: names.to_vec(),
        })
    }

    /// A new key and certificate for the server, from a day ago on, for clocks that are late.
    pub(super) fn leaf(&self, now: Moment) -> Result<CertifiedKey, AuthorityError> {
        let key = KeyPair::generate().map_err(AuthorityError::Certificate)?;
        let mut params = CertificateParams::new(self.names.clone());
        if let Ok(params) = &mut params {
            params.not_before = now.plus_days(-1);
            params.not_after = now.plus_days(LEAF_DAYS);
            let name = self.names.first().map_or("kobune-hub", String::as_str);
            params.distinguished_name.push(DnType::CommonName, name);
            params.use_authority_key_identifier_extension = true;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }
        let leaf = params.and_then(|params| params.signed_by(&key, &self.issuer));
        let leaf = leaf.map_err(AuthorityError::Certificate)?;
        let der = PrivatePkcs8KeyDer::from(key.serialize_der());
        let signer = rustls::crypto::ring::sign::any_ecdsa_type(&der.into());
        let signer = signer.map_err(AuthorityError::Tls)?;
        Ok(CertifiedKey::new(vec![leaf.der().clone()], signer))
    }
}

/// The same name and key identifier each time, so that the certificate on disk need not be
/// read to sign in its name.
fn authority_params(now: Moment) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = now.plus_days(-1);
    params.not_after = now.plus_days(AUTHORITY_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = "Kobune hub";
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// Writes a file of `mode` that is there whole or not at all, and on the disk on return.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let failed = |operation| {
        move |source| AuthorityError::File {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    let next = path.with_extension("new");
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("replacing")(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&next)
        .map_err(failed("creating"))?;
    file.write_all(bytes).map_err(failed("writing"))?;
    file.sync_all().map_err(failed("writing"))?;
    fs::rename(&next, path).map_err(failed("renaming"))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    let synced = fs::File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(failed("syncing the directory of"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_stays_and_a_lost_certificate_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["hub.example".to_owned(), "127.0.0.1".to_owned()];
        let open = || Authority::open(dir.path(), &names, Moment::now()).unwrap();
        open();
        let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
        let (key, certificate) = (read("ca.key"), read("ca.pem"));
        open().leaf(Moment::now()).unwrap();
        assert_eq!((&key, &certificate), (&read("ca.key"), &read("ca.pem")));

        fs::remove_file(dir.path().join("ca.pem")).unwrap();
        fs::write(dir.path().join("ca.new"), "half").unwrap();
        open();
        assert_eq!(key, read("ca.key"));
        assert!(read("ca.pem").starts_with(b"-----BEGIN CERTIFICATE-----"));
    }

    #[test]
    fn a_damaged_key_is_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.key"), "no key").unwrap();
        let error = Authority::open(dir.path(), &[], Moment::now()).unwrap_err();
        assert!(error.to_string().contains("ca.key"), "{error}");
        assert_eq!(fs::read(dir.path().join("ca.key")).unwrap(), b"no key");
    }
}
