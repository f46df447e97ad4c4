//! Points in time, as the wire writes them.

use std::time::SystemTime;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A point in time, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(OffsetDateTime);

/// 100 ns steps between the year 1 and 1970: generations count from there.
const TICKS_TO_1970: u64 = 621_355_968_000_000_000;

impl Moment {
    pub(crate) fn now() -> Self {
        Self(SystemTime::now().into())
    }

    /// Seconds since 1970; 0 before.
    pub(crate) fn unix(self) -> u64 {
        u64::try_from(self.0.unix_timestamp()).unwrap_or(0)
    }

    /// 100 ns steps since the year 1.
    pub(crate) fn ticks(self) -> u64 {
        let steps = u64::try_from(self.0.unix_timestamp_nanos() / 100).unwrap_or(0);
        TICKS_TO_1970 + steps
    }

    /// This many days later, or earlier.
    pub(crate) fn plus_days(self, days: i64) -> OffsetDateTime {
        self.0.saturating_add(time::Duration::days(days))
    }

    pub(crate) fn rfc3339(self) -> String {
        let text = self.0.format(&Rfc3339);
        text.expect("invariant: the years of a system clock have four digits")
    }
}

impl From<SystemTime> for Moment {
    fn from(time: SystemTime) -> Self {
        Self(time.into())
    }
}
