//! Who has signed in, in memory: a restart of the hub signs all out.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use super::Role;

/// How long a session lasts.
pub(super) const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// How long it lasts without being used.
const IDLE: Duration = Duration::from_secs(3600);
/// Most sessions at a time; the one unused for longest makes room.
const SESSIONS_MAX: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// By the digest of their cookies, so that memory does not give them away.
    all: Mutex<HashMap<Vec<u8>, Session>>,
}

/// Someone who has signed in.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) user: String,
    pub(super) role: Role,
    /// What requests of the page carry besides the cookie.
    pub(super) token: String,
    started: Instant,
    used: Instant,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Sessions {
    /// A new session and its cookie; `None` without random numbers.
    pub(super) fn start(&self, user: &str, role: Role) -> Option<(String, Session)> {
        let (cookie, token, now) = (random()?, random()?, Instant::now());
        let session = Session {
            user: user.to_owned(),
            role,
            token,
            started: now,
            used: now,
        };
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, one| one.is_good(now));
        if all.len() >= SESSIONS_MAX {
            let oldest = all.iter().min_by_key(|(_, one)| one.used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                all.remove(&oldest);
            }
        }
        all.insert(key(&cookie), session.clone());
        Some((cookie, session))
    }

    /// The session of a cookie; it counts as used.
    pub(super) fn find(&self, cookie: &str) -> Option<Session> {
        let now = Instant::now();
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let session = all.get_mut(&key(cookie)).filter(|one| one.is_good(now))?;
        session.used = now;
        Some(session.clone())
    }

    pub(super) fn end(&self, cookie: &str) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&key(cookie));
    }
}

impl Session {
    fn is_good(&self, now: Instant) -> bool {
        now.duration_since(self.started) < LIFETIME && now.duration_since(self.used) < IDLE
    }
}

fn key(cookie: &str) -> Vec<u8> {
    digest(&SHA256, cookie.as_bytes()).as_ref().to_vec()
}

fn random() -> Option<String> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// Whether both are the same, in a time that does not tell how far they are.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}
