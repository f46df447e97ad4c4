//! A module's state in words.

use std::time::Duration;

use kobune_runtime::{ExitStatus, TaskStatus, Timestamp};

use super::{ModuleStatus, Observation, decision, problem};
use crate::plan::Attempts;
use crate::restart::{Decision, MAX_RESTARTS};

/// One sentence such as `Up 3 minutes`, with what stands in the way behind it.
pub(super) fn describe(seen: &Observation<'_>, status: ModuleStatus, now: Timestamp) -> String {
    let state = match seen.current.map(|module| module.status) {
        None => match seen.spec {
            Some(_) => "Not created yet".to_owned(),
            None => "Removed".to_owned(),
        },
        Some(TaskStatus::Created) if seen.history.held => "Stopped by an operator".to_owned(),
        Some(TaskStatus::Created) => "Created".to_owned(),
        Some(TaskStatus::Running { started_at, .. }) => match now.since(started_at) {
            Some(up) if status == ModuleStatus::Paused => format!("Up {}, paused", span(up)),
            Some(up) => format!("Up {}{}", span(up), health(seen)),
            None => "Up".to_owned(),
        },
        Some(TaskStatus::Exited(exit)) => ended(seen, status, &exit, now),
    };
    match problem(seen, now) {
        Some(problem) => format!("{state}; {problem}{}", retry(seen, now)),
        None => state,
    }
}

/// What is known of a running module's health, with its own words.
fn health(seen: &Observation<'_>) -> String {
    let vitals = seen.current.map(|module| &module.vitals);
    let Some(health) = vitals.and_then(|vitals| vitals.health) else {
        return String::new();
    };
    let told = vitals.and_then(|vitals| vitals.told.as_deref());
    match told.filter(|told| !told.is_empty()) {
        Some(told) => format!(" ({}): {told}", health.as_str()),
        None => format!(" ({})", health.as_str()),
    }
}

fn ended(
    seen: &Observation<'_>,
    status: ModuleStatus,
    exit: &ExitStatus,
    now: Timestamp,
) -> String {
    let ago = match now.since(exit.exited_at) {
        Some(elapsed) => format!(" {} ago", span(elapsed)),
        None => String::new(),
    };
    if seen.history.held {
        return format!("Stopped by an operator ({}){ago}", exit.code);
    }
    let task = TaskStatus::Exited(*exit);
    let after = if ago.is_empty() {
        String::new()
    } else {
        format!(",{ago}")
    };
    let decided = seen
        .spec
        .map(|spec| decision(spec, &task, seen.history, now));
    let code = match seen
        .current
        .is_some_and(|module| module.vitals.out_of_memory)
    {
        true => format!("{}, out of memory", exit.code),
        false => exit.code.to_string(),
    };
    match (status, decided) {
        // It waits for a device, not for its turn.
        (ModuleStatus::Backoff, _) if lacks_device(seen) => format!("Ended ({code}){ago}"),
        (ModuleStatus::Backoff, Some(Decision::BackoffUntil(at))) => {
            let wait = at.since(now).unwrap_or_default();
            format!(
                "backoff: restarts in {} (exited with code {code}{after})",
                span(wait)
            )
        }
        (ModuleStatus::Backoff, _) => {
            format!("backoff: restarts now (exited with code {code}{after})")
        }
        (ModuleStatus::Failed, Some(Decision::GiveUp)) => {
            format!("Failed ({code}){ago}, given up after {MAX_RESTARTS} restarts")
        }
        (ModuleStatus::Failed, _) => format!("Failed ({code}){ago}"),
        _ => format!("Stopped ({code}){ago}"),
    }
}

fn lacks_device(seen: &Observation<'_>) -> bool {
    let device = |module: &crate::plan::CurrentModule| module.vitals.missing_device.is_some();
    seen.current.is_some_and(device)
}

/// When what failed is tried again.
fn retry(seen: &Observation<'_>, now: Timestamp) -> String {
    let wait = |attempts: &Attempts| attempts.wait_until(now);
    let history = seen.history;
    let next = [&history.create, &history.start, &history.stop]
        .into_iter()
        .filter_map(wait)
        .min();
    match next.and_then(|at| at.since(now)) {
        Some(left) => format!(" (next attempt in {})", span(left)),
        None => String::new(),
    }
}

/// A length of time in its greatest fitting unit, rounded down: `40 seconds`, `1 hour`.
#[must_use]
pub fn span(length: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let seconds = length.as_secs();
    let (count, unit) = match seconds {
        0..MINUTE => (seconds, "second"),
        MINUTE..HOUR => (seconds / MINUTE, "minute"),
        HOUR..DAY => (seconds / HOUR, "hour"),
        _ => (seconds / DAY, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}
