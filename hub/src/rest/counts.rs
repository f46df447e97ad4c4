//! How many twins queries find: counted in one go for all who ask, and kept for a while
//! where counting takes long, so that it never takes more than a tenth of the hub's time.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::scan::{self, Range};
use super::twins::twin_json;
use crate::core::{Activity, HubError};
use crate::handle::HubHandle;
use crate::query::{self, Query, Source};
use crate::record::Entry;

/// What is counted faster is counted each time.
const SHORT: Duration = Duration::from_millis(50);
/// How many times longer than it took a count is good.
const KEPT_FOR: u32 = 10;

/// The counts that are known, by the text of their queries.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Locked while it is counted: who asks meanwhile gets the same.
    known: Mutex<HashMap<String, Count>>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    value: u64,
    at: Instant,
    took: Duration,
}

impl Counts {
    /// How many twins each of `texts` finds; a little ago, where there are many.
    ///
    /// # Errors
    /// [`HubError::Invalid`] for a text that is no query, [`HubError::Store`].
    pub(super) async fn of(&self, hub: &HubHandle, texts: &[&str]) -> Result<Vec<u64>, HubError> {
        let mut known = self.known.lock().await;
        let begun = Instant::now();
        known.retain(|_, count| is_good(count.took, begun.duration_since(count.at)));
        if texts.iter().any(|text| !known.contains_key(*text)) {
            let values = count(hub, texts).await?;
            let (at, took) = (Instant::now(), begun.elapsed());
            let counts = values.iter().map(|value| Count {
                value: *value,
                at,
                took,
            });
            known.extend(texts.iter().map(|text| (*text).to_owned()).zip(counts));
        }
        let value = |text: &&str| known.get(*text).map_or(0, |count| count.value);
        Ok(texts.iter().map(value).collect())
    }
}

fn is_good(took: Duration, age: Duration) -> bool {
    took >= SHORT && age < took * KEPT_FOR
}

async fn count(hub: &HubHandle, texts: &[&str]) -> Result<Vec<u64>, HubError> {
    let mut counters: Vec<(Query, u64)> = Vec::new();
    for text in texts {
        let query = query::parse(text);
        let query = query.map_err(|error| HubError::invalid("metrics.queries", error))?;
        counters.push((query, 0));
    }
    let counters = scan::records(hub, Range::default(), counters, |all, entry, activity| {
        see(all, entry, activity)
    })
    .await?;
    Ok(counters.into_iter().map(|(_, value)| value).collect())
}

fn see(counters: &mut [(Query, u64)], entry: &Entry, activity: &Activity) -> ControlFlow<()> {
    let source = match entry.identity.module {
        Some(_) => Source::Modules,
        None => Source::Devices,
    };
    let twin = twin_json(entry, activity);
    for (query, value) in counters
        .iter_mut()
        .filter(|(query, _)| query.source == source)
    {
        *value += u64::from(query.matches(&twin));
    }
    ControlFlow::Continue(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_takes_a_tenth_of_the_time_at_most() {
        let ms = Duration::from_millis;
        let cases = [
            (ms(1), ms(0), false),
            (ms(49), ms(1), false),
            (ms(50), ms(499), true),
            (ms(50), ms(500), false),
            (ms(1000), ms(9999), true),
            (ms(1000), ms(10_000), false),
        ];
        for (took, age, expected) in cases {
            assert_eq!(is_good(took, age), expected, "{took:?} {age:?}");
        }
    }
}
