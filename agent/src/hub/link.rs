//! What outlives a session: the way to the core, and what became of the desired properties.

use std::collections::BTreeSet;

use kobune_runtime::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use super::methods::Methods;
use super::progress::Progress;
use super::twin::Twin;
use crate::command::{Command, Handle, Snapshot};
use crate::deployment::{self, Strictness};
use crate::error_chain::chain;
use crate::report::outcome::Outcome;
use crate::report::{self, Circumstances};

pub(super) struct Link {
    pub(super) handle: Handle,
    pub(super) methods: Methods,
    pub(super) started: Timestamp,
    /// Known since the first twin.
    pub(super) outcome: Option<Outcome>,
    pub(super) progress: Progress,
    /// Modules that shall have an identity; absent before the first valid deployment.
    pub(super) wanted: watch::Sender<Option<BTreeSet<String>>>,
}

impl Link {
    /// Hands the desired properties to the core. What is not valid changes nothing there.
    pub(super) async fn apply(&mut self, twin: &Twin) {
        let outcome = self.outcome.get_or_insert_default();
        let manifest = twin.desired.to_string();
        let version = twin.version;
        let deployment = match deployment::parse(&manifest, Strictness::Twin) {
            Ok(deployment) => deployment,
            Err(error) => {
                tracing::warn!(version, %error, "the desired properties are not valid: nothing is changed");
                outcome.refuse(&error);
                return;
            }
        };
        let apply = |reply| Command::ApplyDesired {
            manifest,
            version,
            reply,
        };
        match self.handle.ask(apply).await {
            Ok(_) => {
                outcome.accept(version);
                let names = deployment.modules.keys().map(ToString::to_string);
                let wanted = Some(names.collect());
                self.wanted.send_if_modified(|known| {
                    let changed = *known != wanted;
                    *known = wanted;
                    changed
                });
            }
            Err(error) => {
                tracing::error!(
                    version,
                    error = chain(&error),
                    "the desired properties were not taken"
                );
                outcome.fail(500, &chain(&error));
            }
        }
    }

    /// Everything that the hub shall know.
    pub(super) fn report(&mut self, snapshot: &Snapshot) -> Value {
        if let Some(outcome) = &mut self.outcome {
            outcome.observe(snapshot);
        }
        report::build(
            snapshot,
            &Circumstances {
                started: self.started,
                outcome: self.outcome.as_ref(),
                pulls: self.progress.texts(),
            },
        )
    }
}
