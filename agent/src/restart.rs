//! When a module that ended is started again. Pure: the numbers are IoT Edge's defaults.

use std::time::Duration;

use kobune_runtime::{TaskStatus, Timestamp};

use crate::deployment::RestartPolicy;

/// Restarts after which a module is given up (IoT Edge's `MaxRestartCount`).
pub const MAX_RESTARTS: u32 = 20;
/// Wait before the first restart; every further one doubles it (`CoolOffTimeUnitInSeconds`).
pub const COOL_OFF_UNIT: Duration = Duration::from_secs(10);
/// Longest wait before a restart.
pub const COOL_OFF_MAX: Duration = Duration::from_secs(300);
/// Time of running after which earlier restarts are forgotten (`IntensiveCareTimeInMinutes`).
pub const INTENSIVE_CARE: Duration = Duration::from_secs(600);

/// What to do with a module that shall run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it runs, or it ended and its policy does not want it back.
    Keep,
    /// Start it now.
    StartNow,
    /// Start it at this moment.
    BackoffUntil(Timestamp),
    /// Never start it again by itself: it was restarted [`MAX_RESTARTS`] times.
    GiveUp,
}

/// Decides about a module that shall run, after `restarts` restarts (see
/// [`effective_restarts`]).
///
/// A task that was created and not started yet, also since the device booted, starts at
/// once under every policy. A clock that was set back to before the exit starts at once too,
/// because the wait cannot be measured any more.
#[must_use]
pub fn decide(
    policy: RestartPolicy,
    status: &TaskStatus,
    restarts: u32,
    now: Timestamp,
) -> Decision {
    let exit = match status {
        TaskStatus::Running { .. } => return Decision::Keep,
        TaskStatus::Created => return Decision::StartNow,
        TaskStatus::Exited(exit) => exit,
    };
    let wanted = match policy {
        RestartPolicy::Never => false,
        RestartPolicy::OnFailure | RestartPolicy::OnUnhealthy => exit.code != 0,
        RestartPolicy::Always => true,
    };
    if !wanted {
        return Decision::Keep;
    }
    if restarts >= MAX_RESTARTS {
        return Decision::GiveUp;
    }
    let wait = cool_off(restarts);
    match now.since(exit.exited_at) {
        Some(elapsed) if elapsed < wait => Decision::BackoffUntil(exit.exited_at + wait),
        _ => Decision::StartNow,
    }
}

/// Decides about a module that runs and is unhealthy since `since`: restarted by
/// `on-unhealthy` and, as IoT Edge has it, by `always`, with the waits of one that ended.
#[must_use]
pub fn decide_unhealthy(
    policy: RestartPolicy,
    since: Timestamp,
    restarts: u32,
    now: Timestamp,
) -> Decision {
    match policy {
        RestartPolicy::Never | RestartPolicy::OnFailure => return Decision::Keep,
        RestartPolicy::OnUnhealthy | RestartPolicy::Always => {}
    }
    if restarts >= MAX_RESTARTS {
        return Decision::GiveUp;
    }
    let wait = cool_off(restarts);
    match now.since(since) {
        Some(elapsed) if elapsed < wait => Decision::BackoffUntil(since + wait),
        _ => Decision::StartNow,
    }
}

/// Restarts that still count: none once the task ran for [`INTENSIVE_CARE`].
#[must_use]
pub fn effective_restarts(recorded: u32, status: &TaskStatus, now: Timestamp) -> u32 {
    let ran = match status {
        TaskStatus::Created => None,
        TaskStatus::Running { started_at, .. } => now.since(*started_at),
        TaskStatus::Exited(exit) => exit.exited_at.since(exit.started_at),
    };
    match ran {
        Some(ran) if ran > INTENSIVE_CARE => 0,
        _ => recorded,
    }
}

/// Wait before the next restart after `restarts` restarts: 10, 20, 40, 80, 160 and then
/// 300 seconds.
#[must_use]
pub fn cool_off(restarts: u32) -> Duration {
    let factor = 1_u32.checked_shl(restarts).unwrap_or(u32::MAX);
    COOL_OFF_UNIT.saturating_mul(factor).min(COOL_OFF_MAX)
}

#[cfg(test)]
mod tests;
