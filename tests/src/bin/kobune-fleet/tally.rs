//! What the fleet does, in numbers.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::device::Fleet;

/// How often the numbers are told.
const EVERY: Duration = Duration::from_millis(250);

/// Counts since the start, but for `connected`, which is of now.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) attempts: Count,
    pub(crate) connected: Count,
    pub(crate) failed: Count,
    pub(crate) twins: Count,
    /// Reports that the hub took.
    pub(crate) reports: Count,
    pub(crate) pings: Count,
}

#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn less(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Tells the numbers again and again.
pub(crate) async fn tell(fleet: Arc<Fleet>) {
    let (start, tally) = (Instant::now(), &fleet.tally);
    loop {
        say(&json!({
            "seconds": start.elapsed().as_secs_f64(),
            "attempts": tally.attempts.value(),
            "connected": tally.connected.value(),
            "failed": tally.failed.value(),
            "twins": tally.twins.value(),
            "reports": tally.reports.value(),
            "pings": tally.pings.value(),
        }));
        tokio::time::sleep(EVERY).await;
    }
}

/// One line for whoever started this; that nobody reads it is no matter.
pub(crate) fn say(line: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}
