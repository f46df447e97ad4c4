//! Module identities: made at the hub, remembered on disk, so that a device that starts
//! offline has them.
//!
//! `identities.json` holds the master key, which is this device's own, and the generation
//! of every identity; the modules' keys follow from both. It is written whole after every
//! change. Losing it costs one round of setting keys anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use kobune_iothub_auth::SharedAccessKey;
use serde::{Deserialize, Serialize};

use super::device::Device;
use super::rest::{ModuleRegistry, RestError};
use crate::error_chain::chain;
use crate::store::{self, StoreError};

/// The agent's own module.
pub(crate) const AGENT: &str = "$edgeAgent";
const MASTER_LENGTH: usize = 32;

/// Why an identity could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error(transparent)]
    Rest(#[from] RestError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the hub has no module {AGENT} of device {0}: it is no IoT Edge device")]
    NoEdgeDevice(String),
    #[error("the system has no random numbers")]
    Random,
}

impl IdentityError {
    /// Whether it would be the same with another module.
    fn is_general(&self) -> bool {
        match self {
            Self::Rest(error) => error.is_general(),
            _ => true,
        }
    }

    /// How long the hub wants to be left alone, where it said so.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Rest(error) => error.retry_after(),
            _ => None,
        }
    }
}

/// `identities.json`.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    /// Base64.
    master_key: String,
    hub: String,
    device_id: String,
    /// Generation ids.
    modules: BTreeMap<String, String>,
}

pub(crate) struct Identities {
    path: PathBuf,
    master: SharedAccessKey,
    stored: Stored,
}

impl Identities {
    /// Reads what is remembered of `device`; what belongs to another one is forgotten.
    /// Blocks.
    pub(crate) fn load(path: PathBuf, device: &Device) -> Result<Self, IdentityError> {
        let found: Option<Stored> = store::read(&path).unwrap_or_else(|error| {
            tracing::error!(
                error = chain(&error),
                "the stored identities are unreadable: they are made anew"
            );
            None
        });
        let known = found.and_then(|stored| {
            let master = SharedAccessKey::from_base64(&stored.master_key).ok()?;
            Some((stored, master))
        });
        let (mut stored, master) = match known {
            Some(known) => known,
            None => fresh()?,
        };
        if stored.hub != device.hub || stored.device_id != device.id {
            stored.modules.clear();
            stored.hub.clone_from(&device.hub);
            stored.device_id.clone_from(&device.id);
        }
        let identities = Self {
            path,
            master,
            stored,
        };
        identities.save()?;
        Ok(identities)
    }

    /// The module's primary key, where its identity is known.
    pub(crate) fn key(&self, module: &str) -> Option<SharedAccessKey> {
        let generation = self.stored.modules.get(module)?;
        Some(self.master.derive_module(module, generation).0)
    }

    /// Sets the agent's own key at the hub, which made the identity together with the device.
    pub(crate) async fn obtain_agent(
        &mut self,
        registry: &ModuleRegistry,
    ) -> Result<SharedAccessKey, IdentityError> {
        let identity = registry.get(AGENT).await?;
        let device = || IdentityError::NoEdgeDevice(registry.device.id.clone());
        let generation = identity.ok_or_else(device)?.generation_id;
        self.give_keys(registry, AGENT, generation).await
    }

    /// Deletes the identities of modules that are no longer `wanted` and makes those that
    /// are missing. One that fails keeps no other from its turn, unless all would fail alike;
    /// the failures are returned.
    pub(crate) async fn reconcile(
        &mut self,
        registry: &ModuleRegistry,
        wanted: &BTreeSet<String>,
    ) -> Vec<IdentityError> {
        let mut errors = Vec::new();
        let known: BTreeSet<String> = self.stored.modules.keys().cloned().collect();
        let own = |name: &&String| !name.starts_with('$');
        for module in known.difference(wanted).filter(own) {
            if let Err(error) = self.delete(registry, module).await {
                errors.push(error);
            }
            if errors.last().is_some_and(IdentityError::is_general) {
                return errors;
            }
        }
        for module in wanted.difference(&known) {
            if let Err(error) = self.create(registry, module).await {
                errors.push(error);
            }
            if errors.last().is_some_and(IdentityError::is_general) {
                return errors;
            }
        }
        errors
    }

    async fn delete(
        &mut self,
        registry: &ModuleRegistry,
        module: &str,
    ) -> Result<(), IdentityError> {
        registry.delete(module).await?;
        self.stored.modules.remove(module);
        Ok(self.save()?)
    }

    async fn create(
        &mut self,
        registry: &ModuleRegistry,
        module: &str,
    ) -> Result<(), IdentityError> {
        let identity = match registry.create(module).await {
            Ok(identity) => identity,
            // Hubs answer a create without If-Match for what exists in more than one way.
            Err(error) if error.status() == Some(412) => match registry.get(module).await? {
                Some(identity) => identity,
                None => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        };
        self.give_keys(registry, module, identity.generation_id)
            .await
            .map(drop)
    }

    /// On disk only when the hub has the keys: until then they are no use.
    async fn give_keys(
        &mut self,
        registry: &ModuleRegistry,
        module: &str,
        generation: String,
    ) -> Result<SharedAccessKey, IdentityError> {
        let keys = self.master.derive_module(module, &generation);
        registry.set_keys(module, &keys).await?;
        self.stored.modules.insert(module.to_owned(), generation);
        self.save()?;
        Ok(keys.0)
    }

    /// A few hundred bytes: short enough to be written on the spot.
    fn save(&self) -> Result<(), StoreError> {
        store::write(&self.path, &self.stored)
    }
}

fn fresh() -> Result<(Stored, SharedAccessKey), IdentityError> {
    let random = ring::rand::SystemRandom::new();
    let bytes = ring::rand::generate::<[u8; MASTER_LENGTH]>(&random);
    let bytes = bytes.map_err(|_| IdentityError::Random)?.expose().to_vec();
    let master = SharedAccessKey::from_bytes(bytes).map_err(|_| IdentityError::Random)?;
    let stored = Stored {
        master_key: master.to_base64(),
        hub: String::new(),
        device_id: String::new(),
        modules: BTreeMap::new(),
    };
    Ok((stored, master))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str) -> Device {
        Device {
            hub: "h".to_owned(),
            server: super::super::device::Server::parse("h"),
            id: id.to_owned(),
            key: None,
        }
    }

    #[test]
    fn keys_survive_a_restart_and_not_a_change_of_device() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identities.json");
        let mut first = Identities::load(path.clone(), &device("d")).unwrap();
        assert_eq!(first.key(AGENT), None);
        first
            .stored
            .modules
            .insert(AGENT.to_owned(), "1".to_owned());
        first.save().unwrap();
        let again = Identities::load(path.clone(), &device("d")).unwrap();
        assert!(again.key(AGENT).is_some());
        assert_eq!(again.key(AGENT), first.key(AGENT));
        let other = Identities::load(path, &device("e")).unwrap();
        assert_eq!(other.key(AGENT), None);
        assert_eq!(other.master, first.master);
    }

    #[test]
    fn a_torn_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identities.json");
        std::fs::write(&path, "{").unwrap();
        let identities = Identities::load(path.clone(), &device("d")).unwrap();
        let again = Identities::load(path, &device("d")).unwrap();
        assert_eq!(identities.master, again.master);
    }
}
