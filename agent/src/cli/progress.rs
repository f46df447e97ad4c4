//! How pulls go on: bars that are drawn over on a terminal, lines elsewhere.

use std::fmt::Write;

use super::output::size;
use crate::api::wire::{Event, LayerState, PullProgress};

/// Layers that are shown at a time: more than a screen has cannot be drawn over.
const SHOWN: usize = 12;
/// Cells of a bar.
const BAR: usize = 30;
/// Hexadecimal digits of a digest that are shown, as docker does.
const DIGITS: usize = 12;

/// What is known of the pulls under way.
#[derive(Debug)]
pub(super) struct Progress {
    terminal: bool,
    /// In the order of their first appearance.
    layers: Vec<PullProgress>,
    /// Lines on the screen that the next drawing replaces.
    drawn: usize,
}

impl Progress {
    pub(super) fn new(terminal: bool) -> Self {
        Self {
            terminal,
            layers: Vec::new(),
            drawn: 0,
        }
    }

    /// Takes an event; what is to be written because of it.
    pub(super) fn show(&mut self, event: &Event) -> String {
        match event {
            Event::PullProgress(progress) => {
                let entered = self.take(progress);
                match (self.terminal, entered) {
                    (true, _) => self.draw(),
                    (false, true) => format!("{}\n", line(progress)),
                    (false, false) => String::new(),
                }
            }
            Event::Pulled { image } => self.close(image, &format!("{image}: pulled")),
            Event::PullFailed { image, problem } => {
                self.close(image, &format!("{image}: pull failed: {problem}"))
            }
            _ => String::new(),
        }
    }

    /// Whether the layer entered another state.
    fn take(&mut self, progress: &PullProgress) -> bool {
        let known = self
            .layers
            .iter_mut()
            .find(|known| known.image == progress.image && known.layer == progress.layer);
        let Some(known) = known else {
            self.layers.push(progress.clone());
            return true;
        };
        let entered = known.state != progress.state;
        known.clone_from(progress);
        entered
    }

    /// A last line for an image, whose bars go.
    fn close(&mut self, image: &str, text: &str) -> String {
        self.layers.retain(|layer| layer.image != image);
        let mut shown = self.erase();
        let _ = writeln!(shown, "{text}");
        if self.terminal {
            shown.push_str(&self.draw());
        }
        shown
    }

    /// Moves to where the last drawing began and clears from there.
    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r\x1b[J"),
        }
    }

    fn draw(&mut self) -> String {
        let mut shown = self.erase();
        let finished =
            |layer: &&PullProgress| matches!(layer.state, LayerState::Done | LayerState::Exists);
        let open = self.layers.iter().filter(|layer| !finished(layer));
        let done = self.layers.iter().filter(finished);
        for layer in open.chain(done).take(SHOWN) {
            let _ = writeln!(shown, "{}", bar(layer));
            self.drawn += 1;
        }
        if let Some(more) = self.layers.len().checked_sub(SHOWN).filter(|&n| n > 0) {
            let _ = writeln!(shown, "and {more} more layers");
            self.drawn += 1;
        }
        shown
    }
}

fn short(layer: &str) -> &str {
    let hex = layer.split_once(':').map_or(layer, |(_, hex)| hex);
    hex.get(..DIGITS).unwrap_or(hex)
}

fn word(state: LayerState) -> &'static str {
    match state {
        LayerState::Waiting => "waiting",
        LayerState::Pulling => "pulling",
        LayerState::Done => "done",
        LayerState::Exists => "already there",
    }
}

fn line(layer: &PullProgress) -> String {
    let PullProgress { image, state, .. } = layer;
    format!("{image}: layer {}: {}", short(&layer.layer), word(*state))
}

/// A line of less than 80 columns.
fn bar(layer: &PullProgress) -> String {
    let name = short(&layer.layer);
    if layer.state != LayerState::Pulling {
        return format!("{name}: {}", word(layer.state));
    }
    let total = layer.total.max(1);
    let part = u128::from(layer.current.min(total)) * BAR as u128 / u128::from(total);
    let filled = usize::try_from(part).expect("invariant: at most BAR");
    let head = if filled < BAR { ">" } else { "" };
    let bar = format!("{}{head}", "=".repeat(filled));
    let (current, total) = (size(layer.current), size(layer.total));
    format!("{name}: pulling [{bar:<BAR$}] {current}/{total}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(layer: &str, state: LayerState, current: u64) -> Event {
        Event::PullProgress(PullProgress {
            image: "r/led".to_owned(),
            layer: format!("sha256:{layer}0123456789abcdef"),
            state,
            current,
            total: 2_000_000,
        })
    }

    #[test]
    fn a_terminal_is_drawn_over() {
        let mut progress = Progress::new(true);
        let shown = progress.show(&event("a", LayerState::Pulling, 0));
        let bar = format!("a0123456789a: pulling [>{}] 0 B/2.0 MB\n", " ".repeat(29));
        assert_eq!(shown, bar);
        let shown = progress.show(&event("b", LayerState::Waiting, 0));
        assert_eq!(
            shown,
            format!("\x1b[1A\r\x1b[J{bar}b0123456789a: waiting\n")
        );
        let shown = progress.show(&event("a", LayerState::Pulling, 2_000_000));
        let full = format!("a0123456789a: pulling [{}] 2.0 MB/2.0 MB\n", "=".repeat(30));
        assert_eq!(
            shown,
            format!("\x1b[2A\r\x1b[J{full}b0123456789a: waiting\n")
        );
        let pulled = Event::Pulled {
            image: "r/led".to_owned(),
        };
        assert_eq!(progress.show(&pulled), "\x1b[2A\r\x1b[Jr/led: pulled\n");
        assert_eq!(progress.show(&pulled), "r/led: pulled\n");
    }

    #[test]
    fn many_layers_never_fill_a_screen() {
        let mut progress = Progress::new(true);
        for n in 0..40 {
            progress.show(&event(&format!("{n:02}"), LayerState::Done, 0));
        }
        let shown = progress.show(&event("ff", LayerState::Pulling, u64::MAX));
        assert!(shown.starts_with("\x1b[13A"), "{shown:?}");
        assert!(
            shown.contains("ff0123456789"),
            "what is open is shown first"
        );
        assert!(shown.ends_with("and 29 more layers\n"));
        assert!(shown.lines().all(|line| line.len() < 90), "{shown}");
    }

    #[test]
    fn elsewhere_each_state_is_a_line() {
        let mut progress = Progress::new(false);
        let shown: Vec<String> = [
            event("a", LayerState::Pulling, 0),
            event("a", LayerState::Pulling, 9),
            event("a", LayerState::Done, 10),
            Event::PullFailed {
                image: "r/led".to_owned(),
                problem: "no space".to_owned(),
            },
        ]
        .iter()
        .map(|event| progress.show(event))
        .collect();
        assert_eq!(
            shown,
            [
                "r/led: layer a0123456789a: pulling\n",
                "",
                "r/led: layer a0123456789a: done\n",
                "r/led: pull failed: no space\n",
            ]
        );
    }
}
