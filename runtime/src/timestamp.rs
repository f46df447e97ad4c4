//! Moments in time as they stand in state files, logs and reports.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A moment in UTC with a resolution of a nanosecond, from 1970 to 9999; written as
/// RFC 3339 with nine fractional digits and `Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Timestamp {
    seconds: u64,
    nanos: u32,
}

/// Text that is no RFC 3339 moment in UTC.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid timestamp {0:?}: expected RFC 3339 in UTC, such as 2026-01-02T03:04:05Z")]
pub struct InvalidTimestamp(pub String);

const DAY: u64 = 86_400;
/// 9999-12-31T23:59:59Z.
const MAX_SECONDS: u64 = 253_402_300_799;

impl Timestamp {
    /// The system's clock now; a clock before 1970 reads as 1970.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// `seconds` and `nanos` (below 1e9) after 1970-01-01T00:00:00Z; later than the year
    /// 9999 is cut to its end.
    #[must_use]
    pub fn from_unix(seconds: u64, nanos: u32) -> Self {
        Self {
            seconds: seconds.min(MAX_SECONDS),
            nanos: nanos.min(999_999_999),
        }
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub fn unix_seconds(self) -> u64 {
        self.seconds
    }

    /// Time from `earlier` to `self`; `None` where `earlier` is later (the clock was set back).
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.as_duration().checked_sub(earlier.as_duration())
    }

    fn as_duration(self) -> Duration {
        Duration::new(self.seconds, self.nanos)
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        let sum = self.as_duration().saturating_add(rhs);
        Self::from_unix(sum.as_secs(), sum.subsec_nanos())
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        let rest = self.as_duration().saturating_sub(rhs);
        Self::from_unix(rest.as_secs(), rest.subsec_nanos())
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_unix(since.as_secs(), since.subsec_nanos())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.seconds / DAY);
        let second = self.seconds % DAY;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z",
            second / 3600,
            second / 60 % 60,
            second % 60,
            self.nanos
        )
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> Self {
        time.to_string()
    }
}

impl TryFrom<String> for Timestamp {
    type Error = InvalidTimestamp;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl std::str::FromStr for Timestamp {
    type Err = InvalidTimestamp;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| InvalidTimestamp(text.to_owned()))
    }
}

/// `YYYY-MM-DDTHH:MM:SS[.fraction](Z|+00:00)`.
fn parse(text: &str) -> Option<Timestamp> {
    let (main, rest) = text.split_at_checked(19)?;
    let bytes = main.as_bytes();
    let punctuation = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if punctuation.iter().any(|&(at, c)| bytes[at] != c) {
        return None;
    }
    let field = |from: usize, to: usize| -> Option<u64> {
        let digits = main.get(from..to)?;
        digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let (year, month, day) = (field(0, 4)?, field(5, 7)?, field(8, 10)?);
    let (hour, minute, second) = (field(11, 13)?, field(14, 16)?, field(17, 19)?);
    let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    if !matches!(zone, "Z" | "z" | "+00:00") || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let fraction = match &rest[..rest.len() - zone.len()] {
        "" => "",
        dotted => dotted
            .strip_prefix('.')
            .filter(|d| !d.is_empty() && !d.contains('.'))?,
    };
    let nanos: u32 = format!("{fraction:0<9}")[..9].parse().ok()?;
    let days = days_from_civil(year, month, day)?;
    Some(Timestamp::from_unix(
        days * DAY + hour * 3600 + minute * 60 + second,
        nanos,
    ))
}

/// Proleptic Gregorian date of a day count since 1970-01-01, by counting from 0000-03-01
/// in eras of 400 years so that the leap day is a year's last.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

/// Inverse of [`civil_from_days`]; `None` for a date that does not exist or is before 1970.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || day == 0 || year < 1970 {
        return None;
    }
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (shifted_year / 400, shifted_year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_read_and_write() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, 5, "2000-02-29T00:00:00.000000005Z"),
            (1_767_323_045, 678_901_200, "2026-01-02T03:04:05.678901200Z"),
            (MAX_SECONDS, 0, "9999-12-31T23:59:59.000000000Z"),
        ] {
            let time = Timestamp::from_unix(seconds, nanos);
            assert_eq!(time.to_string(), text);
            assert_eq!(text.parse(), Ok(time));
        }
        assert_eq!(
            "2000-02-29T00:00:00Z".parse(),
            Ok(Timestamp::from_unix(951_782_400, 0))
        );
        assert_eq!(
            "2000-02-29T00:00:00.5+00:00"
                .parse::<Timestamp>()
                .unwrap()
                .nanos,
            500_000_000
        );
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        for bad in [
            "",
            "now",
            "2026-02-30T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00.Z",
            "2026-01-01 00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-1-01T00:00:00Z",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn time_that_ran_backwards_has_no_length() {
        let (a, b) = (Timestamp::from_unix(10, 0), Timestamp::from_unix(12, 5));
        assert_eq!(b.since(a), Some(Duration::new(2, 5)));
        assert_eq!(a.since(b), None);
    }
}
