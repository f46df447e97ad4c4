//! How far pulls are, in steps coarse enough to be reported.

use std::collections::BTreeMap;

use crate::api::wire::{Event, PullProgress};

/// Per cent of one step.
const STEP: u64 = 10;

#[derive(Debug, Default)]
pub(super) struct Progress {
    /// By image and layer: received and whole bytes.
    layers: BTreeMap<String, BTreeMap<String, (u64, u64)>>,
    texts: BTreeMap<String, String>,
}

impl Progress {
    /// Takes note of an event; whether a text changed.
    pub(super) fn note(&mut self, event: &Event) -> bool {
        match event {
            Event::PullProgress(step) => self.step(step),
            Event::Pulled { image } | Event::PullFailed { image, .. } => {
                self.layers.remove(image);
                self.texts.remove(image).is_some()
            }
            _ => false,
        }
    }

    fn step(&mut self, step: &PullProgress) -> bool {
        let layers = self.layers.entry(step.image.clone()).or_default();
        layers.insert(step.layer.clone(), (step.current, step.total));
        let done: u64 = layers.values().map(|(done, _)| *done).sum();
        let total: u64 = layers.values().map(|(_, total)| *total).sum();
        let percent = done.saturating_mul(100) / total.max(1) / STEP * STEP;
        let text = format!("{} % of {} MB", percent.min(100), total.div_ceil(1_000_000));
        let before = self.texts.insert(step.image.clone(), text);
        before.as_ref() != self.texts.get(&step.image)
    }

    /// By image.
    pub(super) fn texts(&self) -> &BTreeMap<String, String> {
        &self.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::LayerState;

    fn step(layer: &str, current: u64, total: u64) -> Event {
        Event::PullProgress(PullProgress {
            image: "i".to_owned(),
            layer: layer.to_owned(),
            state: LayerState::Pulling,
            current,
            total,
        })
    }

    #[test]
    fn only_whole_steps_are_news() {
        let mut progress = Progress::default();
        assert!(progress.note(&step("a", 0, 4_000_000)));
        assert!(progress.note(&step("b", 0, 6_000_000)));
        assert!(!progress.note(&step("a", 900_000, 4_000_000)));
        assert!(progress.note(&step("a", 2_100_000, 4_000_000)));
        assert_eq!(progress.texts()["i"], "20 % of 10 MB");
        assert!(progress.note(&Event::Pulled {
            image: "i".to_owned()
        }));
        assert!(progress.texts().is_empty());
    }
}
