//! The device as the hub knows it.

use std::path::PathBuf;
use std::time::Duration;

use kobune_iothub_auth::{InvalidKey, SasToken, SharedAccessKey};
use kobune_runtime::Timestamp;

use crate::provisioning::{Credential, KeySource, ManualIdentity};

/// Before this moment (2026-01-01) a clock is wrong: it was not set since the device
/// booted. A token that is made then is refused at best.
const PLAUSIBLE: u64 = 1_767_225_600;
const HTTPS: u16 = 443;

/// A device identity with its credentials at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// Host name of the hub, which is part of tokens and user names.
    pub(crate) hub: String,
    /// Where to connect.
    pub(crate) server: Server,
    pub(crate) id: String,
    /// Absent where a certificate authenticates.
    pub(crate) key: Option<SharedAccessKey>,
}

/// A host to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) host: String,
    /// Of HTTPS and WebSockets; MQTT has its own.
    pub(crate) port: u16,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("cannot read the key in {}", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot use the key in {}", path.display())]
    Invalid { path: PathBuf, source: InvalidKey },
}

impl Device {
    /// Reads the key where it is in a file. Blocks.
    pub(crate) fn open(identity: &ManualIdentity) -> Result<Self, KeyError> {
        let key = match &identity.credential {
            Credential::Key(source) => Some(read_key(source)?),
            Credential::X509 { .. } => None,
        };
        let server = identity.gateway.as_deref().unwrap_or(&identity.hub);
        Ok(Self {
            hub: Server::parse(&identity.hub).host,
            server: Server::parse(server),
            id: identity.device_id.clone(),
            key,
        })
    }

    /// A token of the device itself.
    pub(crate) fn token(&self, now: Timestamp, life: Duration) -> Option<SasToken> {
        let resource = format!("{}/devices/{}", self.hub, self.id);
        let expiry = now.unix_seconds() + life.as_secs();
        let key = self.key.as_ref()?;
        Some(SasToken::sign(key, &resource, expiry, None))
    }

    /// A token of one of the device's modules.
    pub(crate) fn module_token(
        &self,
        module: &str,
        key: &SharedAccessKey,
        expiry: u64,
    ) -> SasToken {
        let resource = format!("{}/devices/{}/modules/{module}", self.hub, self.id);
        SasToken::sign(key, &resource, expiry, None)
    }
}

impl Server {
    /// Reads `host` or `host:port`.
    pub(crate) fn parse(text: &str) -> Self {
        let split = text.rsplit_once(':');
        let split = split.and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = split.unwrap_or((text, HTTPS));
        Self {
            host: host.to_owned(),
            port,
        }
    }
}

pub(crate) fn read_key(source: &KeySource) -> Result<SharedAccessKey, KeyError> {
    let path = match source {
        KeySource::Value(key) => return Ok(key.clone()),
        KeySource::File(path) => path,
    };
    let bytes = std::fs::read(path).map_err(|source| KeyError::Read {
        path: path.clone(),
        source,
    })?;
    let text = std::str::from_utf8(&bytes).ok();
    let decoded = text.and_then(|text| SharedAccessKey::from_base64(text).ok());
    match decoded {
        Some(key) => Ok(key),
        None => SharedAccessKey::from_bytes(bytes).map_err(|source| KeyError::Invalid {
            path: path.clone(),
            source,
        }),
    }
}

/// Whether the clock was set.
pub(crate) fn is_plausible(now: Timestamp) -> bool {
    now.unix_seconds() >= PLAUSIBLE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_files_are_text_or_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let read = |content: &[u8]| {
            std::fs::write(&path, content).unwrap();
            read_key(&KeySource::File(path.clone()))
        };
        let key = SharedAccessKey::from_bytes(vec![1, 2, 0xff]).unwrap();
        assert_eq!(read(b"AQL/\n").unwrap(), key);
        assert_eq!(read(&[1, 2, 0xff]).unwrap(), key);
        let error = read(b"").unwrap_err();
        assert!(error.to_string().contains("key"), "{error}");
    }

    #[test]
    fn a_port_is_for_connecting_and_no_part_of_the_name() {
        let server = |host: &str, port| Server {
            host: host.to_owned(),
            port,
        };
        assert_eq!(Server::parse("h.net"), server("h.net", 443));
        assert_eq!(Server::parse("h:8443"), server("h", 8443));
    }

    #[test]
    fn a_clock_of_1970_is_not_plausible() {
        assert!(!is_plausible(Timestamp::from_unix(86_400, 0)));
        assert!(is_plausible(Timestamp::from_unix(1_800_000_000, 0)));
    }
}
