//! Grants a registry gave, kept until they expire; and the answer of a token server.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::credentials::{Credentials, Secret};

/// How long a token lives whose server does not say (distribution, token authentication spec).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// How long before its end a token is no longer used.
const MARGIN: Duration = Duration::from_secs(10);

/// What a grant is good for. User and password are part of it: neither another's token may be
/// reused, nor one for a password that was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    pub(crate) registry: String,
    pub(crate) repository: String,
    pub(crate) credentials: Option<Credentials>,
}

/// The value of an `Authorization` header.
#[derive(Debug, Clone)]
pub(crate) struct Grant {
    pub(crate) header: Secret,
    /// Nothing: as long as the credentials it was made from.
    pub(crate) expires: Option<Instant>,
}

/// Grants by scope.
#[derive(Debug, Default)]
pub(crate) struct TokenCache {
    grants: Mutex<HashMap<Scope, Grant>>,
}

/// A token server's answer; old servers say `token`, OAuth ones `access_token`.
#[derive(Deserialize)]
pub(crate) struct TokenResponse {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl TokenCache {
    /// The grant for `scope` if there is one that is still good at `now`.
    pub(crate) fn get(&self, scope: &Scope, now: Instant) -> Option<Grant> {
        let grants = self.lock();
        let grant = grants.get(scope)?;
        let fresh = grant.expires.is_none_or(|end| now + MARGIN < end);
        fresh.then(|| grant.clone())
    }

    /// Keeps a grant, and forgets those that expired.
    pub(crate) fn put(&self, scope: Scope, grant: Grant, now: Instant) {
        let mut grants = self.lock();
        grants.retain(|_, old| old.expires.is_none_or(|end| now < end));
        grants.insert(scope, grant);
    }

    /// Forgets the grant for `scope`, which a registry refused.
    pub(crate) fn forget(&self, scope: &Scope) {
        self.lock().remove(scope);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Scope, Grant>> {
        // A panic elsewhere leaves the map whole: every change is one call.
        self.grants
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl TokenResponse {
    /// The grant, if the answer holds a token.
    pub(crate) fn into_grant(self, now: Instant) -> Option<Grant> {
        let token = self
            .token
            .or(self.access_token)
            .filter(|token| !token.is_empty())?;
        let life = self.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs);
        Some(Grant {
            header: Secret::new(format!("Bearer {token}")),
            expires: now.checked_add(life),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(login: Option<(&str, &str)>) -> Scope {
        Scope {
            registry: "host".into(),
            repository: "app".into(),
            credentials: login.map(|(username, password)| Credentials {
                username: username.into(),
                password: Secret::new(password),
            }),
        }
    }

    fn grant(json: &str, now: Instant) -> Option<Grant> {
        let response: TokenResponse = serde_json::from_str(json).expect("good JSON");
        response.into_grant(now)
    }

    #[test]
    fn tokens_of_both_spellings_are_read() {
        let now = Instant::now();
        for (json, expected) in [
            (r#"{"token":"a","expires_in":300}"#, Some("Bearer a")),
            (r#"{"access_token":"b"}"#, Some("Bearer b")),
            (r#"{"token":""}"#, None),
            (r#"{"refresh_token":"c"}"#, None),
        ] {
            let found = grant(json, now);
            assert_eq!(found.as_ref().map(|grant| grant.header.expose()), expected);
        }
    }

    #[test]
    fn a_grant_is_used_for_its_login_until_shortly_before_its_end() {
        let now = Instant::now();
        let login = Some(("a", "old"));
        let cache = TokenCache::default();
        cache.put(
            scope(login),
            grant(r#"{"token":"a"}"#, now).expect("token"),
            now,
        );
        assert!(cache.get(&scope(login), now).is_some());
        assert!(cache.get(&scope(None), now).is_none());
        assert!(cache.get(&scope(Some(("a", "new"))), now).is_none());
        let late = now + Duration::from_secs(51);
        assert!(cache.get(&scope(login), late).is_none());
        cache.forget(&scope(login));
        assert!(cache.get(&scope(login), now).is_none());
    }
}
