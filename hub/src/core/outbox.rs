//! What connections shall send: bounded in number and bytes, since nobody need read it.

use std::sync::Arc;

use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Packets that may wait for a connection before it is given up.
const PACKETS: usize = 128;
/// Bytes of these packets. Any single one is smaller.
const BYTES: usize = 1 << 20;

/// A message for a connection, of QoS 0.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    /// Its share of the bytes, until it is sent and dropped.
    _room: OwnedSemaphorePermit,
}

/// One connection's, as the hub has it.
#[derive(Debug)]
pub(super) struct Outbox {
    sender: mpsc::Sender<Outgoing>,
    room: Arc<Semaphore>,
}

/// A message with a place in the outbox that it is for.
#[derive(Debug)]
pub(super) struct Placed(OwnedPermit<Outgoing>, Outgoing);

/// Messages on their way to connections: held back for as long as what they tell of is not
/// on the disk.
#[derive(Debug, Default)]
pub(super) struct Outgoings {
    held: Option<Vec<Placed>>,
}

impl Outbox {
    /// An empty one, and the connection's end of it.
    pub(super) fn new() -> (Self, mpsc::Receiver<Outgoing>) {
        let (sender, receiver) = mpsc::channel(PACKETS);
        let room = Arc::new(Semaphore::new(BYTES));
        (Self { sender, room }, receiver)
    }

    /// Takes a place for a message; `None` if there is no room.
    pub(super) fn place(&self, topic: String, payload: Vec<u8>) -> Option<Placed> {
        let size = u32::try_from(topic.len() + payload.len()).ok()?;
        let _room = self.room.clone().try_acquire_many_owned(size).ok()?;
        let place = self.sender.clone().try_reserve_owned().ok()?;
        let message = Outgoing {
            topic,
            payload,
            _room,
        };
        Some(Placed(place, message))
    }
}

impl Outgoings {
    pub(super) fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    pub(super) fn release(&mut self) {
        self.held.take().into_iter().flatten().for_each(Placed::go);
    }

    pub(super) fn send(&mut self, message: Placed) {
        match &mut self.held {
            Some(held) => held.push(message),
            None => message.go(),
        }
    }
}

impl Placed {
    fn go(self) {
        drop(self.0.send(self.1));
    }
}
