//! How long to wait before the next attempt to connect. Pure: the random number is a
//! parameter.

use std::time::Duration;

use super::connection::ConnectionError;

/// First wait after a failure of the network, as IoT Edge's agent has it.
const FIRST: Duration = Duration::from_secs(2);
/// Within this a fleet comes back whose hub restarted. A device knows nothing of the others,
/// so each waits for its part of it by chance.
const SPREAD: Duration = Duration::from_secs(30);
/// Longest wait after a failure of the network.
const LONGEST: Duration = Duration::from_secs(60);
/// First wait after the hub refused us: credentials do not become right by themselves.
const FIRST_REFUSED: Duration = Duration::from_secs(60);
/// Longest wait after the hub refused us or another agent took our place.
const LONGEST_REFUSED: Duration = Duration::from_secs(600);
/// A session that lasted this long was a good one.
const GOOD_SESSION: Duration = Duration::from_secs(120);
/// The same while another agent is around, which may only have waited its longest.
const UNCONTENDED: Duration = Duration::from_secs(2 * LONGEST_REFUSED.as_secs());
/// No hub is let make us wait longer than this.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);
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
    /// The hub asked for less (429), perhaps for this long.
    Throttled(Option<Duration>),
    /// A session came to be, and the hub closed it after this long.
    Closed(Duration),
    /// A session came to be, and nothing was heard any more after this long.
    Lost(Duration),
    /// We ended it to come back with a new token.
    Renewal,
}

impl End {
    /// Of an attempt that `error` ended.
    pub(super) fn of_attempt(error: &ConnectionError) -> Self {
        match error {
            ConnectionError::Refused { code: 4 | 5 } => Self::Refused,
            _ => Self::Unreachable,
        }
    }

    /// Of a session that `error` ended after it had `lasted`.
    pub(super) fn of_session(error: &ConnectionError, lasted: Duration) -> Self {
        match error {
            ConnectionError::Silent => Self::Lost(lasted),
            _ => Self::Closed(lasted),
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    refusals: u32,
    short_sessions: u32,
}

impl Backoff {
    /// The wait after `end`: between half of it and all of it, by `random`; after the end of a
    /// good session anything up to [`SPREAD`], because others may have lost theirs with it.
    pub(super) fn wait(&mut self, end: End, random: u32) -> Duration {
        let full = match end {
            End::Renewal => {
                *self = Self::default();
                return Duration::ZERO;
            }
            End::Unreachable => doubled(FIRST, &mut self.failures, LONGEST),
            End::Throttled(Some(asked)) => {
                let own = doubled(FIRST, &mut self.failures, LONGEST);
                return asked.min(LONGEST_ASKED) + jittered(own, random);
            }
            End::Throttled(None) => {
                self.failures = self.failures.max(4);
                doubled(FIRST, &mut self.failures, LONGEST)
            }
            End::Refused => doubled(FIRST_REFUSED, &mut self.refusals, LONGEST_REFUSED),
            End::Closed(lasted) if lasted >= self.good_session() => {
                *self = Self::default();
                return between(FIRST / 2, SPREAD, random);
            }
            End::Lost(lasted) if lasted >= self.good_session() => {
                *self = Self::default();
                doubled(FIRST, &mut self.failures, LONGEST)
            }
            // Links break by themselves: that is nobody's doing.
            End::Lost(_) => doubled(FIRST, &mut self.failures, LONGEST),
            End::Closed(_) => {
                (self.failures, self.refusals) = (0, 0);
                self.short_sessions += 1;
                let mut over = self.short_sessions.saturating_sub(1);
                doubled(FIRST, &mut over, LONGEST_REFUSED)
            }
        };
        jittered(full, random)
    }

    fn good_session(&self) -> Duration {
        if self.is_contended() {
            UNCONTENDED
        } else {
            GOOD_SESSION
        }
    }

    /// Whether another agent seems to use the same identity.
    pub(super) fn is_contended(&self) -> bool {
        self.short_sessions >= SHORT_SESSIONS
    }
}

/// Waits between attempts at one thing: they double until it works.
#[derive(Debug)]
pub(super) struct Retries {
    first: Duration,
    longest: Duration,
    times: u32,
}

impl Retries {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            times: 0,
        }
    }

    /// The wait after a failure, at least as long as the other side `asked` for.
    pub(super) fn wait(&mut self, asked: Option<Duration>, random: u32) -> Duration {
        let own = jittered(doubled(self.first, &mut self.times, self.longest), random);
        asked.unwrap_or_default().min(LONGEST_ASKED) + own
    }

    pub(super) fn worked(&mut self) {
        self.times = 0;
    }
}

/// Between half of `full` and all of it: devices that fell off together come back apart.
fn jittered(full: Duration, random: u32) -> Duration {
    between(full / 2, full, random)
}

/// A part of the way from `least` to `most`, by `random`.
pub(super) fn between(least: Duration, most: Duration, random: u32) -> Duration {
    least + (most - least).mul_f64(f64::from(random) / f64::from(u32::MAX))
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
        assert_eq!(waits(End::Throttled(None), 2), [32, 60]);
        assert_eq!(waits(End::Lost(Duration::ZERO), 3), [2, 4, 8]);
    }

    #[test]
    fn what_the_hub_asks_for_is_waited_for_within_reason() {
        let asked = |seconds| End::Throttled(Some(Duration::from_secs(seconds)));
        assert_eq!(waits(asked(90), 1), [90 + 2]);
        assert_eq!(waits(asked(u64::MAX), 1), [3600 + 2]);
        let mut retries = Retries::new(FIRST, LONGEST);
        assert_eq!(retries.wait(Some(LONGEST), u32::MAX), LONGEST + FIRST);
        assert_eq!(retries.wait(None, 0), FIRST);
        retries.worked();
        assert_eq!(retries.wait(None, 0), FIRST / 2);
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
            backoff.wait(End::Closed(Duration::from_secs(3)), 0);
        }
        assert!(backoff.is_contended());
        assert_eq!(
            backoff
                .wait(End::Closed(Duration::ZERO), u32::MAX)
                .as_secs(),
            32
        );
        backoff.wait(End::Closed(GOOD_SESSION), 0);
        assert!(backoff.is_contended(), "the other one may only be waiting");
        let wait = backoff.wait(End::Closed(UNCONTENDED), u32::MAX);
        assert_eq!((wait, backoff.is_contended()), (SPREAD, false));
    }

    /// How many devices reach their hub in each second, if it ends good sessions at 0 and is
    /// back after `outage`.
    fn returning(devices: u32, outage: Duration) -> Vec<u32> {
        let mut seconds = Vec::new();
        // Marsaglia's xorshift: the same numbers each time.
        let mut random = 1_u32;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            random
        };
        for _ in 0..devices {
            let mut backoff = Backoff::default();
            let mut at = backoff.wait(End::Closed(GOOD_SESSION), next());
            while at < outage {
                at += backoff.wait(End::Unreachable, next());
            }
            let second = usize::try_from(at.as_secs()).unwrap();
            seconds.resize(seconds.len().max(second + 1), 0);
            seconds[second] += 1;
        }
        seconds
    }

    #[test]
    fn a_fleet_does_not_come_back_at_once() {
        for outage in [0, 5, 20, 60, 300].map(Duration::from_secs) {
            let seconds = returning(10_000, outage);
            let most = seconds.iter().max().copied().unwrap();
            assert!(most <= 2_000, "{most} in a second of {seconds:?}");
            let back = outage + SPREAD.max(LONGEST);
            assert!(seconds.len() <= usize::try_from(back.as_secs()).unwrap() + 1);
        }
    }

    #[test]
    fn a_renewed_token_is_used_at_once() {
        assert_eq!(
            Backoff::default().wait(End::Renewal, u32::MAX),
            Duration::ZERO
        );
    }
}
