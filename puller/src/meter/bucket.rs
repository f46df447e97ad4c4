//! A token bucket that may go into debt: whoever took too much sleeps until it is paid. Pure.

use std::time::Duration;

/// Time's worth of bytes that may come at once.
const BURST: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Bucket {
    /// Bytes a second; none is as many as come.
    rate: Option<u64>,
    /// Bytes that may come now; negative after more came.
    tokens: i128,
    filled: Duration,
}

impl Bucket {
    pub(super) fn new(rate: Option<u64>) -> Self {
        let mut bucket = Self {
            rate,
            tokens: 0,
            filled: Duration::ZERO,
        };
        bucket.tokens = bucket.earned(BURST);
        bucket
    }

    /// Takes `bytes` at `now`; gives how long to wait before taking more.
    pub(super) fn take(&mut self, bytes: u64, now: Duration) -> Duration {
        let Some(rate) = self.rate else {
            return Duration::ZERO;
        };
        let earned = self.earned(now.saturating_sub(self.filled));
        self.filled = now;
        self.tokens = (self.tokens + earned).min(self.earned(BURST)) - i128::from(bytes);
        let debt = u64::try_from(-self.tokens).unwrap_or(0);
        Duration::from_micros(debt.saturating_mul(1_000_000) / rate)
    }

    fn earned(&self, time: Duration) -> i128 {
        let rate = i128::from(self.rate.unwrap_or(0));
        let micros = i128::try_from(time.as_micros()).unwrap_or(i128::MAX);
        rate.saturating_mul(micros) / 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_a_rate_nobody_waits() {
        let mut bucket = Bucket::new(None);
        assert_eq!(bucket.take(u64::MAX, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_debt_is_paid_before_more_is_taken() {
        let mut bucket = Bucket::new(Some(1000));
        let at = Duration::from_millis;
        assert_eq!(bucket.take(1000, at(0)), Duration::ZERO, "the burst");
        assert_eq!(bucket.take(500, at(0)), at(500));
        assert_eq!(bucket.take(500, at(0)), at(1000), "two who take share");
        assert_eq!(bucket.take(0, at(1000)), Duration::ZERO);
        // Idle time earns one burst and no more.
        assert_eq!(bucket.take(1500, at(1_000_000)), at(500));
    }

    proptest! {
        #[test]
        fn whoever_waits_as_told_keeps_the_rate(pieces in proptest::collection::vec(1_u64..100_000, 1..50)) {
            let rate = 10_000;
            let mut bucket = Bucket::new(Some(rate));
            let mut now = Duration::ZERO;
            for piece in &pieces {
                now += bucket.take(*piece, now);
            }
            let all: u64 = pieces.iter().sum();
            let least = Duration::from_secs_f64((all.saturating_sub(rate)) as f64 / rate as f64);
            prop_assert!(now + Duration::from_millis(1) >= least, "{all} bytes in {now:?}");
        }
    }
}
