//! Which hub the device belongs to and how it proves to be itself, as the configuration
//! has it: IoT Edge's keys, read without touching the disk.

use std::path::PathBuf;

use kobune_iothub_auth::SharedAccessKey;

/// How the hub is reached and what the device is to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubConfig {
    /// Where the device's identity comes from.
    pub source: Source,
    /// PEM file of certificates to trust beside the system's (`trust_bundle_cert`).
    pub trust_bundle: Option<PathBuf>,
    /// `http://[user:password@]host[:port]`; the environment's `https_proxy` where absent.
    pub proxy: Option<String>,
    /// What MQTT is carried by.
    pub upstream: Upstream,
}

/// Where the device's identity comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// It is written down.
    Manual(ManualIdentity),
    /// The Device Provisioning Service assigns it.
    Dps(Enrolment),
}

/// A device identity that is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManualIdentity {
    /// Host name of the hub.
    pub hub: String,
    /// Where to connect instead, if not to the hub itself.
    pub gateway: Option<String>,
    /// Id of the device.
    pub device_id: String,
    /// How the device authenticates.
    pub credential: Credential,
}

/// An enrolment at the Device Provisioning Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Base URL of the service.
    pub endpoint: String,
    /// The service's id scope.
    pub id_scope: String,
    /// Id that the device registers under.
    pub registration_id: String,
    /// The device's own key; that of a group has been turned into it before.
    pub key: KeySource,
}

/// How a device authenticates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// With a symmetric key.
    Key(KeySource),
    /// With a certificate.
    X509 {
        /// PEM file of the certificate and its chain.
        certificate: PathBuf,
        /// PEM file of its private key.
        private_key: PathBuf,
    },
}

/// Where a symmetric key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In the configuration.
    Value(SharedAccessKey),
    /// In a file of its own: base64 text, or the key's bare bytes.
    File(PathBuf),
}

/// What MQTT is carried by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Upstream {
    /// TLS on port 8883 and, where that cannot be reached, a WebSocket on port 443.
    #[default]
    Any,
    /// TLS on port 8883 only.
    Mqtt,
    /// A WebSocket on port 443 only.
    MqttWs,
}
