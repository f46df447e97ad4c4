//! The event log: who changed what, who came in, and who was refused.
//!
//! What changes something is written in the transaction of the change. Access is kept in
//! memory until [`Hub::write_events`], within seconds, so that someone who is refused again
//! and again costs neither a write each time nor a line.

use std::collections::HashMap;

use super::{Hub, HubError};
use crate::event::{Action, Actor, Event, Occurrence};
use crate::identity::Identity;
use crate::moment::Moment;
use crate::store::{Change, Snapshot, Store, StoreError};

/// Different accesses that are known at a time; beyond it new ones are not noted until some
/// are written and forgotten.
const KNOWN_MAX: usize = 512;
/// Seconds after the first of its kind in which an access is counted there.
const COUNTED_FOR: u64 = 600;

/// The events that are not written yet, and those that may count up.
#[derive(Debug)]
pub(super) struct Journal {
    last: u64,
    /// Who acts in the request that is being answered.
    actor: Actor,
    known: HashMap<Occurrence, Access>,
}

#[derive(Debug)]
struct Access {
    number: u64,
    event: Event,
    /// Second since 1970 of the first time.
    since: u64,
    is_written: bool,
}

impl Journal {
    pub(super) fn open(store: &Store) -> Result<Self, StoreError> {
        Ok(Self {
            last: store.last_event()?,
            actor: Actor::Hub,
            known: HashMap::new(),
        })
    }
}

impl Hub {
    /// Does `work` in the name of `actor`.
    pub(crate) fn acting<T>(&mut self, actor: Actor, work: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.journal.actor, actor);
        let done = work(self);
        self.journal.actor = before;
        done
    }

    /// The event of a change by whoever acts, to be committed with it.
    pub(super) fn event(
        &mut self,
        action: Action,
        subject: &str,
        detail: &str,
        now: Moment,
    ) -> Change {
        self.journal.last += 1;
        let what = Occurrence::new(self.journal.actor.clone(), action, subject, detail);
        Change::Log(self.journal.last, Box::new(what.at(now)))
    }

    /// Writes an event that is about no record.
    ///
    /// # Errors
    /// [`HubError::Store`].
    pub(crate) fn record_event(
        &mut self,
        action: Action,
        detail: &str,
        now: Moment,
    ) -> Result<(), HubError> {
        let event = self.event(action, "", detail, now);
        Ok(self.store.commit(&[event])?)
    }

    /// Notes that someone came in, was refused, or called; it is written later.
    pub(crate) fn note_access(&mut self, what: Occurrence, now: Moment) {
        let journal = &mut self.journal;
        if let Some(access) = journal.known.get_mut(&what)
            && now.unix() < access.since + COUNTED_FOR
        {
            access.event.count += 1;
            access.event.last_time = now.rfc3339();
            access.is_written = false;
            return;
        }
        if journal.known.len() >= KNOWN_MAX {
            journal
                .known
                .retain(|_, one| !one.is_written || now.unix() < one.since + COUNTED_FOR);
        }
        // Those that are written need not be known: the next is a new line then.
        if journal.known.len() >= KNOWN_MAX {
            journal.known.retain(|_, one| !one.is_written);
        }
        if journal.known.len() >= KNOWN_MAX {
            return;
        }
        journal.last += 1;
        let access = Access {
            number: journal.last,
            event: what.clone().at(now),
            since: now.unix(),
            is_written: false,
        };
        journal.known.insert(what, access);
    }

    /// As [`Hub::note_access`], in the name of whoever acts.
    pub(super) fn note_call(&mut self, identity: &Identity, method: &str, now: Moment) {
        let actor = self.journal.actor.clone();
        let subject = identity.to_string();
        let what = Occurrence::new(actor, Action::MethodCalled, &subject, method);
        self.note_access(what, now);
    }

    /// Writes what was noted since the last time.
    ///
    /// # Errors
    /// [`HubError::Store`]; it is tried again the next time.
    pub(crate) fn write_events(&mut self) -> Result<(), HubError> {
        let known = self.journal.known.values_mut();
        let mut unwritten: Vec<_> = known.filter(|one| !one.is_written).collect();
        if unwritten.is_empty() {
            return Ok(());
        }
        unwritten.sort_by_key(|one| one.number);
        let log = |one: &&mut Access| Change::Log(one.number, Box::new(one.event.clone()));
        let changes: Vec<_> = unwritten.iter().map(log).collect();
        self.store.commit(&changes)?;
        unwritten.iter_mut().for_each(|one| one.is_written = true);
        Ok(())
    }

    /// All that is kept, as it is now, for a backup; that it is made is an event too.
    ///
    /// # Errors
    /// [`HubError::Store`].
    pub(crate) fn back_up(&mut self, now: Moment) -> Result<Snapshot, HubError> {
        self.record_event(Action::HubBackedUp, "", now)?;
        self.write_events()?;
        // Reading sees what is on the disk.
        self.store.flush()?;
        Ok(self.store.snapshot()?)
    }

    /// Up to `limit` events before number `before`, the newest first; those that concern
    /// `device` alone if it is given.
    ///
    /// # Errors
    /// [`HubError::Store`].
    pub(crate) fn events(
        &mut self,
        before: u64,
        limit: usize,
        device: Option<&str>,
    ) -> Result<Vec<(u64, Event)>, HubError> {
        self.write_events()?;
        // Reading sees what is on the disk.
        self.store.flush()?;
        let wanted = |event: &Event| device.is_none_or(|device| event.concerns(device));
        Ok(self.store.events(before, limit, wanted)?)
    }
}
