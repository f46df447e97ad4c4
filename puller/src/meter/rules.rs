//! When layers may be fetched. Pure: the time, and where local time stands, are arguments.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::local::{DAY, Local, WEEKDAYS};

/// Minutes of a day.
const MIDNIGHT: u16 = 24 * 60;
/// How far ahead a window is looked for: a week and a day, in minutes.
const HORIZON: i64 = 8 * 24 * 60;

/// How far local time is ahead of UTC at a moment, in seconds.
pub(super) type Zone = fn(i64) -> i64;

/// What a link may be used for. The default is everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metered {
    /// Bytes a second, over all layers that are fetched at once; not 0.
    pub rate: Option<u64>,
    /// Bytes of layers in a day of local time.
    pub daily: Option<u64>,
    /// When large pulls may run, by local time; at any time if there are none.
    pub windows: Vec<Window>,
    /// From how many missing bytes on a pull is large; 0 for all that miss a layer.
    pub large: u64,
}

/// A time of day, on some days: `01:00-05:00`, `sat,sun 00:00-24:00`, `mon-fri 22:30-06:00`. One
/// that ends before it begins ends on the next day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// On which days it begins, Monday first.
    days: [bool; 7],
    /// Minutes since midnight.
    from: u16,
    to: u16,
}

/// A text that is no window.
#[derive(Debug, Error)]
#[error(
    "{0:?} is no time of day such as \"01:00-05:00\", \"sat,sun 00:00-24:00\" or \"mon-fri 22:30-06:00\""
)]
pub struct InvalidWindow(String);

/// Why, and until when, layers are not fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Why.
    pub reason: WaitReason,
    /// Seconds since 1970. A guess: the clock may be set, and other pulls use the budget too.
    pub until: i64,
    local: Local,
}

/// Why layers are not fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitReason {
    /// The day's bytes are used up.
    Budget,
    /// Large pulls have their hours.
    Window,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    Wait(Wait),
}

/// A moment, on the clock that may be set and on the one that may not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) unix: i64,
    pub(super) uptime: Duration,
}

/// What was used in a day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    /// Days since 1970-01-01, by local time.
    day: i64,
    pub(super) used: u64,
    /// Since when, by the clock that is never set, the other one is behind `day`.
    #[serde(skip)]
    behind: Option<Duration>,
}

impl Metered {
    /// Whether layers may be fetched at `unix`, with what `ledger` says was used.
    pub(super) fn verdict(
        &self,
        ledger: &Ledger,
        unix: i64,
        is_large: bool,
        zone: Zone,
    ) -> Verdict {
        if self.daily.is_some_and(|daily| ledger.used >= daily) {
            let today = Local::new(unix, zone(unix)).day;
            return wait(WaitReason::Budget, unix, zone, |local| local.day > today);
        }
        let is_open = |local: Local| self.windows.iter().any(|window| window.holds(local));
        if !is_large || self.windows.is_empty() || is_open(Local::new(unix, zone(unix))) {
            return Verdict::Go;
        }
        wait(WaitReason::Window, unix, zone, is_open)
    }
}

/// Waits for the first whole minute after `unix` that will do, which exists within the horizon:
/// every rule comes back once a week.
fn wait(reason: WaitReason, unix: i64, zone: Zone, will_do: impl Fn(Local) -> bool) -> Verdict {
    let next = unix - unix.rem_euclid(60) + 60;
    let minutes = (0..HORIZON).map(|minute| next + 60 * minute);
    let mut moments = minutes.map(|at| (at, Local::new(at, zone(at))));
    let last = (unix + DAY, Local::new(unix + DAY, zone(unix + DAY)));
    let (until, local) = moments.find(|(_, local)| will_do(*local)).unwrap_or(last);
    Verdict::Wait(Wait {
        reason,
        until,
        local,
    })
}

impl Ledger {
    /// Begins a new day if there is one; true if so.
    ///
    /// A clock that goes back, as after a boot without a battery, does not give the budget again.
    /// Should it have been wrong before, the day it is behind would never end: so after as long as
    /// a day takes, what it says counts.
    pub(super) fn turn(&mut self, now: Now, zone: Zone) -> bool {
        let today = Local::new(now.unix, zone(now.unix)).day;
        if today == self.day {
            self.behind = None;
            return false;
        }
        if today < self.day {
            let since = *self.behind.get_or_insert(now.uptime);
            let day = Duration::from_secs(DAY.unsigned_abs());
            if now.uptime.saturating_sub(since) < day {
                return false;
            }
        }
        *self = Self {
            day: today,
            used: 0,
            behind: None,
        };
        true
    }
}

impl Window {
    fn holds(&self, local: Local) -> bool {
        let (today, minute) = (local.weekday(), local.minute);
        if self.from < self.to {
            return self.days[today] && (self.from..self.to).contains(&minute);
        }
        let yesterday = (today + 6) % 7;
        (self.days[today] && minute >= self.from) || (self.days[yesterday] && minute < self.to)
    }
}

impl FromStr for Window {
    type Err = InvalidWindow;

    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let (days, times) = match text.trim().rsplit_once(' ') {
            Some((days, times)) => (parse_days(days.trim()), times),
            None => (Some([true; 7]), text.trim()),
        };
        let parse = || {
            let (from, to) = times.split_once('-')?;
            let (from, to) = (minutes(from)?, minutes(to)?);
            let days = days?;
            (from != to && from < MIDNIGHT).then_some(Self { days, from, to })
        };
        parse().ok_or_else(|| InvalidWindow(text.to_owned()))
    }
}

/// `mon-fri` and `sat,sun`, or both forms joined by commas.
fn parse_days(text: &str) -> Option<[bool; 7]> {
    let number = |name: &str| {
        let name = name.trim().to_ascii_lowercase();
        WEEKDAYS.iter().position(|known| *known == name)
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (number(first)?, number(last)?);
        days[day] = true;
        while day != last {
            day = (day + 1) % 7;
            days[day] = true;
        }
    }
    Some(days)
}

/// `HH:MM`, up to 24:00.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |digits: &str| {
        let is_number = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|_| is_number)
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    let sum = hours * 60 + minutes;
    (minutes < 60 && sum <= MIDNIGHT).then_some(sum)
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = match self.reason {
            WaitReason::Budget => "the day's budget of bytes is used up",
            WaitReason::Window => "large pulls have their hours",
        };
        write!(f, "until {}: {reason}", self.local)
    }
}

#[cfg(test)]
mod tests;
