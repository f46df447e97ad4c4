//! The hub itself: identities, twins, connections and calls, as a state machine over the
//! store. No sockets, no clock (`now` is a parameter), no tasks.
//!
//! What is written is on the disk before anyone is told of it; a change of several records
//! (a deployment) is one transaction, and so are changes of several requests that came at
//! the same time ([`Hub::begin`], [`Hub::flush`]). What a connection shall send goes into its bounded
//! outbox, in the order of the changes; a connection that does not empty it is closed, and
//! so is one whose identity is taken over, disabled, deleted or given other keys.

mod access;
mod configurations;
mod deployment;
mod error;
mod journal;
mod methods;
mod outbox;
mod registry;
mod sessions;
mod settings;
mod twins;

pub(crate) use access::{Caller, Proof};
pub(crate) use configurations::ConfigurationSpec;
pub(crate) use error::{Denied, HubError, Refusal};
pub(crate) use methods::{Invocation, MethodAnswer};
pub(crate) use registry::{AuthenticationSpec, IdentitySpec, Precondition, etag};
pub(crate) use sessions::{Activity, Attempt, Connected, Misuse, SessionId};
pub(crate) use twins::TwinUpdate;

use std::collections::HashMap;

use tokio::sync::watch;

use crate::configuration::Deployment;
use crate::identity::Identity;
use crate::policy::{self, Policy};
use crate::record::{Entry, Record};
use crate::store::{Change, Start, Store, StoreError};
use crate::telemetry::{Message, Telemetry};

/// Setting under which the policies are kept.
const POLICIES: &str = "policies";

/// The hub. One thread owns it.
#[derive(Debug)]
pub(crate) struct Hub {
    store: Store,
    /// Lower case.
    names: Vec<String>,
    policies: Vec<Policy>,
    /// By id.
    deployments: Vec<Deployment>,
    sessions: HashMap<Identity, sessions::Session>,
    activity: HashMap<Identity, Activity>,
    pending: HashMap<String, methods::Pending>,
    telemetry: Telemetry,
    journal: journal::Journal,
    outgoing: outbox::Outgoings,
    last_session: u64,
    last_call: u64,
    online: watch::Sender<u64>,
}

impl Hub {
    /// The hub over `store`, called by `names`. Makes the keys of the policies if there are
    /// none yet.
    pub(crate) fn new(store: Store, names: &[String]) -> Result<Self, HubError> {
        let policies = match store.setting(POLICIES)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|source| StoreError::Record {
                name: POLICIES.to_owned(),
                source,
            })?,
            None => make_policies(&store)?,
        };
        let mut deployments = Vec::new();
        for configuration in store.configurations()? {
            deployments.push(Deployment::try_from(configuration)?);
        }
        let journal = journal::Journal::open(&store)?;
        Ok(Self {
            store,
            journal,
            outgoing: outbox::Outgoings::default(),
            names: names.iter().map(|name| name.to_ascii_lowercase()).collect(),
            policies,
            deployments,
            sessions: HashMap::new(),
            activity: HashMap::new(),
            pending: HashMap::new(),
            telemetry: Telemetry::default(),
            last_session: 0,
            last_call: 0,
            online: watch::Sender::new(0),
        })
    }

    /// Gathers what is changed, and what connections shall be told, from here on.
    pub(crate) fn begin(&mut self) {
        self.store.begin();
        self.outgoing.hold();
    }

    /// Ends the gathering: what was changed is on the disk, and then connections are told.
    ///
    /// # Errors
    /// [`HubError::Store`]; nothing of it is on the disk then and nobody was told, and the
    /// hub has to be opened again, since it remembers what is not.
    pub(crate) fn flush(&mut self) -> Result<(), HubError> {
        self.store.flush()?;
        self.outgoing.release();
        Ok(())
    }

    /// Primary key of the policy `name`, in the open.
    pub(crate) fn policy_key(&self, name: &str) -> Option<String> {
        let policy = self.policies.iter().find(|policy| policy.name == name)?;
        Some(policy.keys()[0].to_base64())
    }

    /// Changes whenever a connection becomes able to take calls.
    pub(crate) fn online(&self) -> watch::Receiver<u64> {
        self.online.subscribe()
    }

    /// The record of `identity`.
    ///
    /// # Errors
    /// [`HubError::NotFound`].
    pub(crate) fn entry(&self, identity: &Identity) -> Result<Entry, HubError> {
        Ok(Entry {
            identity: identity.clone(),
            record: self.record(identity)?,
        })
    }

    /// Up to `limit` records from `start` on, a device before its modules.
    pub(crate) fn page<'a>(
        &self,
        start: impl Into<Start<'a>>,
        limit: usize,
    ) -> Result<Vec<Entry>, HubError> {
        Ok(self.store.list(None, start.into(), limit)?)
    }

    /// Whether and since when `identity` is connected.
    pub(crate) fn activity(&self, identity: &Identity) -> Activity {
        self.activity.get(identity).cloned().unwrap_or_default()
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.sessions.len()
    }

    /// Messages that came since the hub started, and what is kept of those after number
    /// `sequence`.
    pub(crate) fn messages(&self, sequence: u64) -> (u64, Vec<Message>) {
        let kept = self.telemetry.after(sequence).cloned().collect();
        (self.telemetry.accepted(), kept)
    }

    fn record(&self, identity: &Identity) -> Result<Record, HubError> {
        let found = self.store.get(identity)?;
        found.ok_or_else(|| HubError::NotFound(identity.clone()))
    }

    fn put(&mut self, identity: &Identity, record: &Record) -> Result<(), HubError> {
        Ok(self.store.commit(&[Change::Put(Box::new(Entry {
            identity: identity.clone(),
            record: record.clone(),
        }))])?)
    }
}

fn make_policies(store: &Store) -> Result<Vec<Policy>, HubError> {
    let mut policies = Vec::new();
    for name in policy::NAMES {
        let (primary, secondary) = (registry::new_key()?, registry::new_key()?);
        policies.push(Policy::new(name, primary, secondary));
    }
    let bytes = serde_json::to_vec(&policies).map_err(|source| StoreError::Record {
        name: POLICIES.to_owned(),
        source,
    })?;
    store.set_setting(POLICIES, &bytes)?;
    Ok(policies)
}

#[cfg(test)]
mod tests;
