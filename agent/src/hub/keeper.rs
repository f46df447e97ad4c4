//! The task that makes and deletes identities of modules.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};

use super::backoff::Retries;
use super::identity::{Identities, IdentityError};
use super::rest::ModuleRegistry;
use crate::error_chain::chain;

/// Wait after identities could not be made; it doubles up to [`RETRY_MAX`].
const RETRY: Duration = Duration::from_secs(10);
const RETRY_MAX: Duration = Duration::from_secs(600);

/// Modules that shall have an identity; absent before the first valid deployment.
pub(super) type Wanted = watch::Receiver<Option<BTreeSet<String>>>;

/// Makes and deletes identities as deployments come and go, and tries again what failed.
pub(super) async fn keep_identities(
    registry: Arc<ModuleRegistry>,
    identities: Arc<Mutex<Identities>>,
    mut wanted: Wanted,
) {
    let mut retries = Retries::new(RETRY, RETRY_MAX);
    while let Ok(()) = wanted.changed().await {
        loop {
            let Some(modules) = wanted.borrow_and_update().clone() else {
                break;
            };
            let errors = identities.lock().await.reconcile(&registry, &modules).await;
            for error in &errors {
                tracing::warn!(
                    error = chain(error),
                    "a module identity is not as it should be"
                );
            }
            if errors.is_empty() {
                retries.worked();
                break;
            }
            let asked = errors.iter().filter_map(IdentityError::retry_after).max();
            let wait = retries.wait(asked, super::random());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                changed = wanted.changed(), if asked.is_none() => match changed {
                    Ok(()) => retries.worked(),
                    Err(_) => return,
                },
            }
        }
    }
}
