//! Health of a module as Docker decides it. Pure: whoever runs the checks passes the time.

#[cfg(test)]
mod tests;

use std::time::Duration;

use kobune_runtime::{Healthcheck, Timestamp};

/// A check with everything decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Program and arguments.
    pub command: Vec<String>,
    /// From the start, and from the end of one check, to the next.
    pub interval: Duration,
    /// Time after which it has failed.
    pub timeout: Duration,
    /// Time from the start in which failures do not count.
    pub start_period: Duration,
    /// As `interval`, in the start period until it is healthy.
    pub start_interval: Duration,
    /// Failures in a row that make the module unhealthy.
    pub retries: u32,
}

/// What the checks of a run say so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// None has passed, and not enough have failed.
    Starting,
    /// The last one passed, or not enough have failed since one did.
    Healthy,
    /// Too many have failed in a row.
    Unhealthy {
        /// When that many had.
        since: Timestamp,
    },
}

/// One run of a module under its check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// When the run began.
    pub started_at: Timestamp,
    /// What is known.
    pub health: Health,
    /// Failures in a row that count.
    pub streak: u32,
    /// When the next check is due.
    pub due: Timestamp,
}

impl Check {
    /// The check that `said` asks for, with Docker's defaults; `None` for none. A shell's
    /// line is run by the container's `/bin/sh`.
    #[must_use]
    pub fn new(said: &Healthcheck) -> Option<Self> {
        let words: Vec<&str> = said.test.iter().flatten().map(String::as_str).collect();
        let command = match words[..] {
            ["CMD", program, ref arguments @ ..] => [&[program], arguments].concat(),
            ["CMD-SHELL", line] => vec!["/bin/sh", "-c", line],
            _ => return None,
        };
        Some(Self {
            command: command.into_iter().map(str::to_owned).collect(),
            interval: said.interval.unwrap_or(Duration::from_secs(30)),
            timeout: said.timeout.unwrap_or(Duration::from_secs(30)),
            start_period: said.start_period.unwrap_or_default(),
            start_interval: said.start_interval.unwrap_or(Duration::from_secs(5)),
            retries: said.retries.unwrap_or(3),
        })
    }
}

impl Watch {
    /// A run that began at `started_at`.
    #[must_use]
    pub fn new(check: &Check, started_at: Timestamp) -> Self {
        let mut watch = Self {
            started_at,
            health: Health::Starting,
            streak: 0,
            due: started_at,
        };
        watch.due = started_at + watch.pause(check, started_at);
        watch
    }

    /// Whether the next check is due; a clock that was set back makes it so.
    #[must_use]
    pub fn is_due(&self, check: &Check, now: Timestamp) -> bool {
        match self.due.since(now) {
            None => true,
            Some(left) => left.is_zero() || left > check.interval.max(check.start_interval),
        }
    }

    /// A check ended at `now`.
    pub fn record(&mut self, check: &Check, passed: bool, now: Timestamp) {
        if passed {
            self.streak = 0;
            self.health = Health::Healthy;
        } else if self.health != Health::Starting || !self.is_in_start_period(check, now) {
            self.streak = self.streak.saturating_add(1);
            let unhealthy = matches!(self.health, Health::Unhealthy { .. });
            if self.streak >= check.retries && !unhealthy {
                self.health = Health::Unhealthy { since: now };
            }
        }
        self.due = now + self.pause(check, now);
    }

    fn pause(&self, check: &Check, now: Timestamp) -> Duration {
        let early = self.health == Health::Starting && self.is_in_start_period(check, now);
        match early {
            true => check.start_interval,
            false => check.interval,
        }
    }

    fn is_in_start_period(&self, check: &Check, now: Timestamp) -> bool {
        now.since(self.started_at)
            .is_some_and(|passed| passed < check.start_period)
    }
}

impl Health {
    /// What checks say, together with whether the module told that it is ready; each is absent
    /// where nobody asked for it.
    #[must_use]
    pub fn with_readiness(checked: Option<Self>, ready: Option<bool>) -> Option<Self> {
        match (ready, checked) {
            (None, checked) => checked,
            (Some(true), None) => Some(Self::Healthy),
            (Some(false), None | Some(Self::Healthy)) => Some(Self::Starting),
            (Some(_), checked) => checked,
        }
    }

    /// Docker's word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy { .. } => "unhealthy",
        }
    }
}
