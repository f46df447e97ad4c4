//! The last messages that devices sent, in memory.

use std::collections::VecDeque;

use crate::identity::Identity;

/// Most messages that are kept.
const MESSAGES_MAX: usize = 256;
/// Most bytes of bodies that are kept.
const BYTES_MAX: usize = 1 << 20;

/// A message from a device or module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// Counts all messages since the hub started, from 1.
    pub(crate) sequence: u64,
    pub(crate) from: Identity,
    /// RFC 3339.
    pub(crate) enqueued: String,
    pub(crate) properties: Vec<(String, Option<String>)>,
    pub(crate) body: Vec<u8>,
}

/// Counts messages, and keeps the last of them.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    accepted: u64,
    bytes: usize,
    last: VecDeque<Message>,
}

impl Telemetry {
    /// Takes a message and numbers it; the oldest make room for it.
    pub(crate) fn accept(&mut self, mut message: Message) {
        self.accepted += 1;
        message.sequence = self.accepted;
        self.bytes += message.body.len();
        self.last.push_back(message);
        while self.last.len() > MESSAGES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.last.pop_front() else {
                break;
            };
            self.bytes -= oldest.body.len();
        }
    }

    /// How many messages came since the hub started.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// What is kept of the messages after number `sequence`, oldest first.
    pub(crate) fn after(&self, sequence: u64) -> impl Iterator<Item = &Message> {
        self.last
            .iter()
            .filter(move |message| message.sequence > sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(size: usize) -> Message {
        Message {
            sequence: 0,
            from: Identity::from_client_id("d").unwrap(),
            enqueued: String::new(),
            properties: Vec::new(),
            body: vec![0; size],
        }
    }

    #[test]
    fn the_last_messages_stay_within_both_bounds() {
        let mut telemetry = Telemetry::default();
        (0..300).for_each(|_| telemetry.accept(message(1)));
        assert_eq!(telemetry.accepted(), 300);
        let kept: Vec<_> = telemetry.after(0).map(|m| m.sequence).collect();
        assert_eq!((kept[0], kept.len()), (45, 256));
        telemetry.accept(message(BYTES_MAX));
        let kept: Vec<_> = telemetry.after(0).map(|m| m.sequence).collect();
        assert_eq!(kept, [301]);
        assert_eq!(telemetry.after(301).count(), 0);
    }
}
