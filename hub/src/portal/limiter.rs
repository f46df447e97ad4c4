//! Bounds how often passwords can be guessed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Attempts that cost nothing: of one peer for one user, of one peer, for one user.
const FREE: [u32; 3] = [5, 20, 50];
/// The first wait; each further failure doubles it.
const WAIT: Duration = Duration::from_secs(10);
/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(900);
/// After this time without an attempt all is forgotten.
const FORGET: Duration = Duration::from_secs(3600);
/// Most that is remembered.
const ENTRIES_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct Limiter {
    attempts: Mutex<HashMap<String, Attempts>>,
}

#[derive(Debug, Clone, Copy)]
struct Attempts {
    count: u32,
    last: Instant,
}

impl Limiter {
    /// Counts an attempt before its password is looked at, so that many at once count too;
    /// the seconds to wait if there were too many.
    pub(super) fn begin(&self, user: &str, peer: IpAddr) -> Option<u64> {
        self.begin_at(user, peer, Instant::now())
    }

    fn begin_at(&self, user: &str, peer: IpAddr, now: Instant) -> Option<u64> {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.retain(|_, one| now.duration_since(one.last) < FORGET);
        let keys = keys(user, peer);
        for (key, free) in keys.iter().zip(FREE) {
            if let Some(one) = attempts.get(key)
                && let Some(over) = one.count.checked_sub(free)
            {
                let wait = WAIT.saturating_mul(1 << over.min(10)).min(WAIT_MAX);
                let passed = now.duration_since(one.last);
                if passed < wait {
                    return Some((wait - passed).as_secs() + 1);
                }
            }
        }
        if attempts.len() + keys.len() > ENTRIES_MAX {
            return Some(WAIT.as_secs());
        }
        for key in keys {
            let fresh = Attempts {
                count: 0,
                last: now,
            };
            let one = attempts.entry(key).or_insert(fresh);
            one.count += 1;
            one.last = now;
        }
        None
    }

    /// Forgets the attempts of who has signed in.
    pub(super) fn succeeded(&self, user: &str, peer: IpAddr) {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let [own, ..] = keys(user, peer);
        attempts.remove(&own);
    }
}

fn keys(user: &str, peer: IpAddr) -> [String; 3] {
    let user: String = user.chars().take(64).collect();
    [
        format!("{peer} {user}"),
        format!("{peer}"),
        format!(" {user}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_become_slow_and_others_do_not_wait() {
        let limiter = Limiter::default();
        let start = Instant::now();
        let peer: IpAddr = [10, 0, 0, 1].into();
        let other: IpAddr = [10, 0, 0, 2].into();
        let after = |seconds| start + Duration::from_secs(seconds);
        for _ in 0..5 {
            assert_eq!(limiter.begin_at("a", peer, start), None);
        }
        assert_eq!(limiter.begin_at("a", peer, start), Some(11));
        assert_eq!(limiter.begin_at("a", other, start), None);
        assert_eq!(limiter.begin_at("b", peer, start), None);
        assert_eq!(limiter.begin_at("a", peer, after(10)), None);
        assert_eq!(limiter.begin_at("a", peer, after(11)), Some(20));
        assert_eq!(limiter.begin_at("a", peer, after(4000)), None);
    }

    #[test]
    fn many_peers_together_do_not_guess_fast_either() {
        let limiter = Limiter::default();
        let start = Instant::now();
        let refused = (0..100_u8)
            .filter(|n| {
                limiter
                    .begin_at("a", [10, 0, 1, *n].into(), start)
                    .is_some()
            })
            .count();
        assert_eq!(refused, 50);
    }
}
