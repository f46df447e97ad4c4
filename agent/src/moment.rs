//! Moments as people write them.

use std::time::Duration;

use kobune_runtime::Timestamp;

/// Text that is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid time {0:?}: expected RFC 3339 (2026-01-02T03:04:05Z), seconds since 1970, or a time ago (10m, \"1 day\")"
)]
pub(crate) struct InvalidMoment(String);

/// Parses RFC 3339 with any offset, seconds since 1970 with an optional fraction, or a
/// length of time before `now` such as `90s`, `1h30m` or `2 days 3 hours`.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Timestamp, InvalidMoment> {
    let text = text.trim();
    rfc3339(text)
        .or_else(|| unix_seconds(text))
        .or_else(|| Some(now - duration(text)?))
        .ok_or_else(|| InvalidMoment(text.to_owned()))
}

fn rfc3339(text: &str) -> Option<Timestamp> {
    if let Ok(utc) = text.parse() {
        return Some(utc);
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let utc: Timestamp = format!("{local}Z").parse().ok()?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let (hours, minutes): (u64, u64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let ahead = Duration::from_secs(hours * 3600 + minutes * 60);
    match offset.as_bytes()[0] {
        _ if hours > 23 || minutes > 59 => None,
        b'+' => Some(utc - ahead),
        b'-' => Some(utc + ahead),
        _ => None,
    }
}

fn unix_seconds(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) {
        return None;
    }
    let nanos = format!("{fraction:0<9}")[..9].parse().ok()?;
    Some(Timestamp::from_unix(seconds.parse().ok()?, nanos))
}

/// One or more `<number><unit>`, with any spaces.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, tail) = rest.split_at(digits);
        let tail = tail.trim_start();
        let letters = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = number
            .parse::<u64>()
            .ok()?
            .checked_mul(unit_seconds(unit)?)?;
        sum = sum.checked_add(Duration::from_secs(seconds))?;
        rest = tail.trim_start();
    }
    (!text.is_empty()).then_some(sum)
}

fn unit_seconds(unit: &str) -> Option<u64> {
    Some(match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 86_400,
        "w" | "week" | "weeks" => 604_800,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads() {
        let now = Timestamp::from_unix(1_000_000, 0);
        for (text, seconds) in [
            ("1970-01-01T00:00:10Z", 10),
            ("1970-01-01T02:00:10+02:00", 10),
            ("1970-01-01T00:00:10-00:30", 1810),
            ("1234", 1234),
            ("1234.9", 1234),
            ("90s", 999_910),
            ("10m", 999_400),
            ("1h30m", 994_600),
            ("1 day", 913_600),
            ("2 days 3 hours 2 minutes", 816_280),
            (" 5 min ", 999_700),
            ("9999w", 0),
        ] {
            let moment = parse(text, now).map(Timestamp::unix_seconds);
            assert_eq!(moment, Ok(seconds), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        let now = Timestamp::from_unix(1_000_000, 0);
        for bad in [
            "",
            "now",
            "m",
            "10x",
            "10m5",
            "-5m",
            "1.5h",
            "1.",
            ".5",
            "1970-01-01",
            "1970-01-01T00:00:00+25:00",
            "1970-01-01T00:00:00é0:00",
            "99999999999999999999",
            "99999999999999999999s",
            "9999999999999999999w",
        ] {
            assert!(parse(bad, now).is_err(), "{bad:?}");
        }
    }
}
