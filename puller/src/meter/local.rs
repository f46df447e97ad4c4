//! Local time from seconds since 1970 and an offset. Pure.

use std::fmt;

pub(super) const DAY: i64 = 86_400;

/// The names of days as they are written, Monday first.
pub(super) const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A moment on the wall's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Local {
    /// Days since 1970-01-01.
    pub(super) day: i64,
    /// Minutes since midnight.
    pub(super) minute: u16,
}

impl Local {
    /// `offset` is how far local time is ahead of UTC, in seconds.
    pub(super) fn new(unix: i64, offset: i64) -> Self {
        let local = unix.saturating_add(offset);
        let minute = local.rem_euclid(DAY) / 60;
        Self {
            day: local.div_euclid(DAY),
            minute: u16::try_from(minute).unwrap_or(0),
        }
    }

    /// 0 is Monday.
    pub(super) fn weekday(self) -> usize {
        // 1970 began on a Thursday.
        usize::try_from((self.day + 3).rem_euclid(7)).unwrap_or(0)
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.day);
        let (hour, minute) = (self.minute / 60, self.minute % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}")
    }
}

/// Year, month and day of a number of days since 1970-01-01 in the Gregorian calendar: found by
/// going from 400-year cycles of 146097 days down to months, in years that begin in March.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (cycle, in_cycle) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let leaps = in_cycle / 1_460 - in_cycle / 36_524 + in_cycle / 146_096;
    let year_of_cycle = (in_cycle - leaps) / 365;
    let in_year = in_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month = (5 * in_year + 2) / 153;
    let day = in_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = cycle * 400 + year_of_cycle + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (unix, offset, text, weekday) in [
            (0, 0, "1970-01-01 00:00", "thu"),
            (-60, 0, "1969-12-31 23:59", "wed"),
            (951_782_399, 0, "2000-02-28 23:59", "mon"),
            (951_782_400, 0, "2000-02-29 00:00", "tue"),
            (951_868_800, 0, "2000-03-01 00:00", "wed"),
            (4_107_542_400, 0, "2100-03-01 00:00", "mon"),
            (1_767_225_599, 3600, "2026-01-01 00:59", "thu"),
            (1_767_225_600, -5 * 3600, "2025-12-31 19:00", "wed"),
        ] {
            let local = Local::new(unix, offset);
            assert_eq!(local.to_string(), text);
            assert_eq!(WEEKDAYS[local.weekday()], weekday, "{text}");
        }
    }
}
