//! Downloads on metered links: so many bytes a second, so many a day, large ones at certain hours.
//!
//! Only layers are metered. Manifests, configurations and signatures are small, and what they are
//! for is to find out whether there is anything to fetch at all. The decisions are in [`rules`],
//! which knows no clock; this module asks the clock, sleeps, and keeps the day's count on disk.

mod bucket;
mod local;
mod rules;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::progress::ProgressSink;
use crate::store::Store;
use crate::sys;

use bucket::Bucket;
use rules::{Now, Verdict};

pub(crate) use rules::Ledger;
pub use rules::{InvalidWindow, Metered, Wait, WaitReason, Window};

/// Longest sleep before looking at the clock again, which may have been set meanwhile.
const LOOK: Duration = Duration::from_secs(30);
/// The count on disk runs ahead of the real one by this much at least, so that it is written
/// seldom, and a crash counts too much rather than too little.
const AHEAD: u64 = 1 << 20;

/// The meter of one puller.
#[derive(Debug)]
pub(crate) struct Meter {
    rules: Metered,
    store: Store,
    started: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bucket: Bucket,
    ledger: Ledger,
    /// What the file says was used.
    written: u64,
}

impl Meter {
    /// A meter that goes on with the count that is on disk. A count that cannot be read is one
    /// that was never written. Blocking.
    pub(crate) fn new(rules: Metered, store: Store) -> Self {
        let ledger = store.metered().unwrap_or_default();
        let written = ledger.used;
        Self {
            state: Mutex::new(State {
                bucket: Bucket::new(rules.rate),
                ledger,
                written,
            }),
            rules,
            store,
            started: Instant::now(),
        }
    }

    /// True if a transfer may be told to go on another time, so that its beginning has to be kept.
    pub(crate) fn pauses(&self) -> bool {
        self.rules.daily.is_some() || !self.rules.windows.is_empty()
    }

    /// True if a pull that has `missing` bytes to fetch is large.
    pub(crate) fn is_large(&self, missing: u64) -> bool {
        missing >= self.rules.large
    }

    /// Waits until layers may be fetched, and tells `progress` why and until when.
    pub(crate) async fn admit(&self, is_large: bool, progress: &dyn ProgressSink) {
        let mut told = None;
        while let Verdict::Wait(wait) = self.verdict(is_large) {
            if told != Some(wait) {
                progress.waiting(Some(&wait));
                told = Some(wait);
            }
            let left = wait.until.saturating_sub(self.now().unix);
            let left = Duration::from_secs(u64::try_from(left).unwrap_or(0).max(1));
            tokio::time::sleep(left.min(LOOK)).await;
        }
        if told.is_some() {
            progress.waiting(None);
        }
    }

    /// Counts bytes that came, and sleeps as long as the rate wants. False if no more may come now.
    pub(crate) async fn took(&self, bytes: usize, is_large: bool) -> bool {
        let (pause, persist) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let pause = state.bucket.take(bytes as u64, self.started.elapsed());
            (pause, self.count(&mut state, bytes as u64))
        };
        if let Some(ledger) = persist {
            self.write(ledger).await;
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        !self.pauses() || matches!(self.verdict(is_large), Verdict::Go)
    }

    /// Brings the count on disk down to the real one; after a transfer.
    pub(crate) async fn settle(&self) {
        let ledger = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if self.rules.daily.is_none() || state.written == state.ledger.used {
                return;
            }
            state.written = state.ledger.used;
            state.ledger.clone()
        };
        self.write(ledger).await;
    }

    /// Adds to the day's count; gives what is to be written where the file would fall behind.
    fn count(&self, state: &mut State, bytes: u64) -> Option<Ledger> {
        let daily = self.rules.daily?;
        state.ledger.turn(self.now(), sys::local_offset);
        state.ledger.used = state.ledger.used.saturating_add(bytes);
        if state.ledger.used <= state.written {
            return None;
        }
        state.written = state.ledger.used + AHEAD.max(daily / 64);
        let mut ahead = state.ledger.clone();
        ahead.used = state.written;
        Some(ahead)
    }

    fn verdict(&self, is_large: bool) -> Verdict {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        if state.ledger.turn(now, sys::local_offset) {
            state.written = 0;
        }
        self.rules
            .verdict(&state.ledger, now.unix, is_large, sys::local_offset)
    }

    /// A count that cannot be written is counted on in memory: a full disk stops the pull elsewhere.
    async fn write(&self, ledger: Ledger) {
        let store = self.store.clone();
        let written = tokio::task::spawn_blocking(move || store.put_metered(&ledger));
        let _ = written.await;
    }

    fn now(&self) -> Now {
        let unix = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            Err(_) => 0,
        };
        Now {
            unix,
            uptime: self.started.elapsed(),
        }
    }
}
