//! What an image or a deployment says about checking a container's health.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Docker's `Healthcheck`. Each field that is absent is the next one's to say: options, image,
/// Docker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Healthcheck {
    /// `NONE`; `CMD` and a program with its arguments; or `CMD-SHELL` and a shell's line.
    pub test: Option<Vec<String>>,
    /// From the start, and from the end of one check, to the next check.
    pub interval: Option<Duration>,
    /// Time after which a check has failed.
    pub timeout: Option<Duration>,
    /// Time from the start in which failures do not count.
    pub start_period: Option<Duration>,
    /// As `interval`, in the start period.
    pub start_interval: Option<Duration>,
    /// Failures in a row that make it unhealthy.
    pub retries: Option<u32>,
}

impl Healthcheck {
    /// This, with what it does not say taken from `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            test: self.test.or(other.test),
            interval: self.interval.or(other.interval),
            timeout: self.timeout.or(other.timeout),
            start_period: self.start_period.or(other.start_period),
            start_interval: self.start_interval.or(other.start_interval),
            retries: self.retries.or(other.retries),
        }
    }
}
