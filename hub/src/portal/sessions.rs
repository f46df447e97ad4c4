//! Who has signed in, in memory: a restart of the hub signs all out.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use super::{Role, User};

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
    /// Of the user as it was at sign-in.
    stamp: String,
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
    pub(super) fn start(&self, user: &User) -> Option<(String, Session)> {
        self.start_at(user, Instant::now())
    }

    fn start_at(&self, user: &User, now: Instant) -> Option<(String, Session)> {
        let (cookie, token) = (random()?, random()?);
        let session = Session {
            user: user.name.clone(),
            role: user.role,
            stamp: user.stamp().to_owned(),
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
        self.find_at(cookie, Instant::now())
    }

    fn find_at(&self, cookie: &str, now: Instant) -> Option<Session> {
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
    /// Whether `user` is who signed in, with the same role and password.
    pub(super) fn is_of(&self, user: &User) -> bool {
        self.user == user.name && self.role == user.role && self.stamp == user.stamp()
    }

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

#[cfg(test)]
mod tests {
    use super::super::Users;
    use super::*;

    fn anna() -> User {
        let dir = tempfile::tempdir().unwrap();
        let users = Users::in_state(dir.path());
        users.put("anna", Role::Operator, "correct horse").unwrap();
        users.find("anna").unwrap().unwrap()
    }

    #[test]
    fn sessions_end_by_age_by_idleness_and_by_sign_out() {
        let (sessions, start, anna) = (Sessions::default(), Instant::now(), anna());
        let minutes = |n: u64| start + Duration::from_secs(60 * n);
        let (used, _) = sessions.start_at(&anna, start).unwrap();
        let (idle, _) = sessions.start_at(&anna, start).unwrap();
        for minute in (59..12 * 60).step_by(59) {
            assert!(sessions.find_at(&used, minutes(minute)).is_some());
        }
        assert!(sessions.find_at(&idle, minutes(60)).is_none());
        assert!(sessions.find_at(&used, minutes(12 * 60)).is_none());
        let (cookie, _) = sessions.start_at(&anna, start).unwrap();
        sessions.end(&cookie);
        assert!(sessions.find_at(&cookie, start).is_none());
        assert!(sessions.find_at("", start).is_none());
    }

    #[test]
    fn the_longest_unused_of_too_many_makes_room() {
        let (sessions, start, anna) = (Sessions::default(), Instant::now(), anna());
        let after = |n: usize| start + Duration::from_secs(n as u64);
        let start = |n| sessions.start_at(&anna, after(n)).unwrap().0;
        let cookies: Vec<String> = (0..SESSIONS_MAX).map(start).collect();
        let late = after(SESSIONS_MAX);
        assert!(sessions.find_at(&cookies[0], late).is_some());
        let (last, _) = sessions.start_at(&anna, late).unwrap();
        let alive = |cookie: &str| sessions.find_at(cookie, late).is_some();
        assert!(alive(&cookies[0]) && alive(&last) && !alive(&cookies[1]));
        assert!(cookies[2..].iter().all(|cookie| alive(cookie)));
    }
}
