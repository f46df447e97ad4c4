//! Shared access policies: who may use the service's side.

use kobune_iothub_auth::SharedAccessKey;
use serde::{Deserialize, Serialize};

use crate::record::Key;

/// What a policy allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permission {
    /// Read devices and modules.
    RegistryRead,
    /// Change devices and modules, and deploy to them.
    RegistryWrite,
    /// Twins, methods and messages.
    ServiceConnect,
    /// Act as any device.
    DeviceConnect,
}

/// A policy with its two keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Policy {
    pub(crate) name: String,
    primary: Key,
    secondary: Key,
}

/// Names of the policies that every hub has.
pub(crate) const NAMES: [&str; 5] = [
    "iothubowner",
    "service",
    "device",
    "registryRead",
    "registryReadWrite",
];

impl Policy {
    pub(crate) fn new(name: &str, primary: Key, secondary: Key) -> Self {
        Self {
            name: name.to_owned(),
            primary,
            secondary,
        }
    }

    /// Primary first.
    pub(crate) fn keys(&self) -> [&SharedAccessKey; 2] {
        [&self.primary.0, &self.secondary.0]
    }

    /// What the policy allows, by its name.
    pub(crate) fn permissions(&self) -> &'static [Permission] {
        use Permission::{DeviceConnect, RegistryRead, RegistryWrite, ServiceConnect};
        match self.name.as_str() {
            "iothubowner" => &[RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect],
            "service" => &[ServiceConnect],
            "device" => &[DeviceConnect],
            "registryRead" => &[RegistryRead],
            "registryReadWrite" => &[RegistryRead, RegistryWrite],
            _ => &[],
        }
    }
}
