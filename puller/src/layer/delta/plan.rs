//! Which files of a layer are taken from where, and which bytes of its blob are fetched for the
//! rest. Pure.

use std::collections::HashMap;
use std::ops::Range;

use super::toc::Content;
use crate::digest::Sha256;
use crate::store::Place;

/// Bytes between two files that are fetched with them rather than asked around: about what another
/// request and its answer cost.
const GAP: u64 = 4 << 10;
/// Most requests for one layer; the gaps are widened until that is enough.
const MAX_RANGES: usize = 256;

/// Where the content of each file comes from, in the order of the archive.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) sources: Vec<Source>,
    /// Bytes of the blob to fetch, rising.
    pub(super) ranges: Vec<Range<u64>>,
}

/// Where the content of one file comes from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A file of a layer that is here.
    Here(Place),
    /// What is fetched, after `skip` bytes that are nothing of interest.
    Fetched { skip: u64, length: u64 },
}

impl Plan {
    pub(super) fn new(contents: &[Content], places: &HashMap<Sha256, Place>) -> Self {
        let missing = contents
            .iter()
            .filter(|content| !places.contains_key(&content.sha256));
        let ranges = ranges(missing.map(|content| content.offset..content.end).collect());
        let mut fetched = Fetched::new(&ranges);
        let sources = contents
            .iter()
            .map(|content| match places.get(&content.sha256) {
                Some(place) => Source::Here(place.clone()),
                None => Source::Fetched {
                    skip: fetched.skip_to(content.offset, content.end),
                    length: content.end - content.offset,
                },
            });
        Self {
            sources: sources.collect(),
            ranges,
        }
    }

    /// Bytes to fetch.
    pub(super) fn bytes(&self) -> u64 {
        self.ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }
}

/// How far what is fetched was used.
struct Fetched<'a> {
    ranges: &'a [Range<u64>],
    position: u64,
}

impl<'a> Fetched<'a> {
    fn new(ranges: &'a [Range<u64>]) -> Self {
        Self {
            position: ranges.first().map_or(0, |range| range.start),
            ranges,
        }
    }

    /// Fetched bytes before `offset` that were not used; those until `end` are used then.
    fn skip_to(&mut self, offset: u64, end: u64) -> u64 {
        let mut skip = 0;
        while let Some(range) = self.ranges.first().filter(|range| range.end <= offset) {
            skip += range.end - self.position;
            self.ranges = &self.ranges[1..];
            self.position = self.ranges.first().map_or(range.end, |next| next.start);
        }
        skip += offset - self.position;
        self.position = end;
        skip
    }
}

/// Joins rising ranges over gaps that are not worth a request.
fn ranges(wanted: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut gap = GAP;
    let mut joined = wanted;
    loop {
        joined = join(joined, gap);
        if joined.len() <= MAX_RANGES {
            return joined;
        }
        gap *= 2;
    }
}

fn join(ranges: Vec<Range<u64>>, gap: u64) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start - last.end <= gap => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_joined_over_small_gaps_and_never_too_many() {
        assert_eq!(
            ranges(vec![0..5, 5..9, 100..200, 9000..9001]),
            [0..200, 9000..9001]
        );
        let many: Vec<_> = (0..10_000)
            .map(|at| at * 100_000..at * 100_000 + 1)
            .collect();
        let few = ranges(many.clone());
        assert!(few.len() <= MAX_RANGES);
        for one in many {
            assert!(
                few.iter()
                    .any(|range| range.start <= one.start && one.end <= range.end)
            );
        }
        assert_eq!(ranges(Vec::new()), []);
    }

    proptest! {
        #[test]
        fn what_is_fetched_is_found_by_skipping(
            files in proptest::collection::vec((0_u64..20_000, 1_u64..20_000, any::<bool>()), 1..30)
        ) {
            let mut end = 0;
            let mut places = HashMap::new();
            let mut contents = Vec::new();
            for (number, (gap, length, here)) in files.into_iter().enumerate() {
                let mut sha256 = [0; 32];
                sha256[0] = u8::try_from(number).expect("few");
                let offset = end + gap;
                end = offset + length;
                contents.push(Content { sha256, size: 1, offset, end });
                if here {
                    places.insert(sha256, Place::default());
                }
            }
            let plan = Plan::new(&contents, &places);
            let stream: Vec<u64> = plan.ranges.iter().cloned().flatten().collect();
            prop_assert_eq!(stream.len() as u64, plan.bytes());
            let mut at = 0;
            for (content, source) in contents.iter().zip(&plan.sources) {
                if let Source::Fetched { skip, length } = source {
                    at += usize::try_from(*skip).expect("small");
                    prop_assert_eq!(stream[at], content.offset);
                    at += usize::try_from(*length).expect("small");
                    prop_assert_eq!(stream[at - 1], content.end - 1);
                }
            }
        }
    }
}
