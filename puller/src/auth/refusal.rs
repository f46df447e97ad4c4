//! Logins that a registry refused: it is not asked again and again with the same ones.
//!
//! A password that expired on a thousand devices must not become a thousand devices that ask a
//! registry for ever. Other credentials are tried at once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use oci_spec::image::Digest;

use super::token::Scope;
use crate::credentials::Credentials;
use crate::digest::sha256;

/// How long the first refusal counts; each further one twice as long.
const FIRST: Duration = Duration::from_secs(60);
/// How long any refusal counts at most: leave may be given at the registry's side too.
const LONGEST: Duration = Duration::from_secs(3600);

/// Refusals by what was asked for.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    known: Mutex<HashMap<Scope, Refusal>>,
}

#[derive(Debug)]
struct Refusal {
    /// Of user name and password.
    credentials: Option<Digest>,
    until: Instant,
    held: Duration,
    detail: String,
}

impl Refusals {
    /// What the registry said when it refused just these credentials, while that counts.
    pub(crate) fn get(
        &self,
        scope: &Scope,
        credentials: Option<&Credentials>,
        now: Instant,
    ) -> Option<String> {
        let known = self.lock();
        let refusal = known.get(scope)?;
        let counts = now < refusal.until && refusal.credentials == fingerprint(credentials);
        counts.then(|| {
            let left = refusal.until.duration_since(now).as_secs();
            format!(
                "{} (these credentials were refused before; the next attempt is in {left} s)",
                refusal.detail
            )
        })
    }

    /// Keeps in mind that a registry refused.
    pub(crate) fn put(
        &self,
        scope: Scope,
        credentials: Option<&Credentials>,
        detail: &str,
        now: Instant,
    ) {
        let mut known = self.lock();
        let credentials = fingerprint(credentials);
        let before = known.get(&scope);
        let before = before.filter(|refusal| refusal.credentials == credentials);
        let held = before.map_or(FIRST, |refusal| (refusal.held * 2).min(LONGEST));
        let refusal = Refusal {
            credentials,
            until: now + held,
            held,
            detail: detail.to_owned(),
        };
        known.insert(scope, refusal);
    }

    /// The registry let somebody in.
    pub(crate) fn forget(&self, scope: &Scope) {
        self.lock().remove(scope);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Scope, Refusal>> {
        // A panic elsewhere leaves the map whole: every change is one call.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fingerprint(credentials: Option<&Credentials>) -> Option<Digest> {
    let known = credentials?;
    let pair = format!("{}\0{}", known.username, known.password.expose());
    Some(sha256(pair.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Secret;

    #[test]
    fn a_refusal_counts_for_its_credentials_and_longer_each_time() {
        let refusals = Refusals::default();
        let scope = Scope {
            registry: "host".into(),
            repository: "app".into(),
            credentials: None,
        };
        let credentials = |password: &str| Credentials {
            username: "a".into(),
            password: Secret::new(password),
        };
        let (old, new) = (credentials("old"), credentials("new"));
        let mut now = Instant::now();
        for held in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            assert_eq!(refusals.get(&scope, Some(&old), now), None);
            refusals.put(scope.clone(), Some(&old), "expired", now);
            now += Duration::from_secs(held - 1);
            let text = refusals.get(&scope, Some(&old), now).expect("it counts");
            assert!(
                text.contains("expired") && text.contains("in 1 s"),
                "{text}"
            );
            assert_eq!(refusals.get(&scope, Some(&new), now), None);
            assert_eq!(refusals.get(&scope, None, now), None);
            now += Duration::from_secs(1);
        }
        refusals.put(scope.clone(), Some(&new), "no", now);
        refusals.forget(&scope);
        assert_eq!(refusals.get(&scope, Some(&new), now), None);
    }
}
