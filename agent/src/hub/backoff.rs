//! How long to wait before the next attempt to connect. Pure: the random number is a
//! parameter.

use std::time::Duration;

/// First wait after a failure of the network, as IoT Edge's agent has it.
const FIRST: Duration = Duration::from_secs(2);
/// Longest wait after a failure of the network.
const LONGEST: Duration = Duration::from_secs(60);
/// First wait after the hub refused us: credentials do not become right by themselves.
const FIRST_REFUSED: Duration = Duration::from_secs(60);
/// Longest wait after the hub refused us or another agent took our place.
const LONGEST_REFUSED: Duration = Duration::from_secs(600);
/// A session that lasted this long was a good one.
const GOOD_SESSION: Duration = Duration::from_secs(120);
/// So many short sessions in a row mean that another agent has the same identity: the hub
/// ends the older of two connections, and both come back.
const SHORT_SESSIONS: u32 = 4;

/// What ended an attempt or a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// No session came to be.
    Unreachable,
    /// The hub does not take our credentials.
    Refused,
    /// The hub asked for less (429).
    Throttled,
    /// A session came to be and broke after this long.
    Broken(Duration),
    /// We ended it to come back with a new token.
    Renewal,
}

#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    refusals: u32,
    short_sessions: u32,
}

impl Backoff {
    /// The wait after `end`: between half of it and all of it, by `random`.
    pub(super) fn wait(&mut self, end: End, random: u32) -> Duration {
        let full = match end {
            End::Renewal => {
                *self = Self::default();
                return Duration::ZERO;
            }
            End::Unreachable => doubled(FIRST, &mut self.failures, LONGEST),
            End::Throttled => {
                self.failures = self.failures.max(4);
                doubled(FIRST, &mut self.failures, LONGEST)
            }
            End::Refused => doubled(FIRST_REFUSED, &mut self.refusals, LONGEST_REFUSED),
            End::Broken(lasted) if lasted >= GOOD_SESSION => {
                *self = Self::default();
                doubled(FIRST, &mut self.failures, LONGEST)
            }
            End::Broken(_) => {
                (self.failures, self.refusals) = (0, 0);
                self.short_sessions += 1;
                let mut over = self.short_sessions.saturating_sub(1);
                doubled(FIRST, &mut over, LONGEST_REFUSED)
            }
        };
        let half = full / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }

    /// Whether another agent seems to use the same identity.
    pub(super) fn is_contended(&self) -> bool {
        self.short_sessions >= SHORT_SESSIONS
    }
}

fn doubled(first: Duration, times: &mut u32, longest: Duration) -> Duration {
    let factor = 1_u32.checked_shl(*times).unwrap_or(u32::MAX);
    *times += 1;
    first.saturating_mul(factor).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(end: End, count: usize) -> Vec<u64> {
        let mut backoff = Backoff::default();
        (0..count)
            .map(|_| backoff.wait(end, u32::MAX).as_secs())
            .collect()
    }

    #[test]
    fn waits_double_up_to_their_bound() {
        assert_eq!(waits(End::Unreachable, 7), [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(waits(End::Refused, 6), [60, 120, 240, 480, 600, 600]);
        assert_eq!(waits(End::Throttled, 2), [32, 60]);
    }

    #[test]
    fn waits_never_overflow_and_never_vanish() {
        let mut backoff = Backoff {
            failures: u32::MAX - 1,
            ..Backoff::default()
        };
        assert_eq!(backoff.wait(End::Unreachable, u32::MAX), LONGEST);
        assert_eq!(Backoff::default().wait(End::Unreachable, 0), FIRST / 2);
    }

    #[test]
    fn a_good_session_starts_over_and_short_ones_are_contention() {
        let mut backoff = Backoff::default();
        for _ in 0..SHORT_SESSIONS {
            assert!(!backoff.is_contended());
            backoff.wait(End::Broken(Duration::from_secs(3)), 0);
        }
        assert!(backoff.is_contended());
        assert_eq!(
            backoff
                .wait(End::Broken(Duration::ZERO), u32::MAX)
                .as_secs(),
            32
        );
        let wait = backoff.wait(End::Broken(GOOD_SESSION), u32::MAX);
        assert_eq!((wait, backoff.is_contended()), (FIRST, false));
    }

    #[test]
    fn a_renewed_token_is_used_at_once() {
        assert_eq!(
            Backoff::default().wait(End::Renewal, u32::MAX),
            Duration::ZERO
        );
    }
}
