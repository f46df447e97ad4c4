//! All that the store keeps, for another thread to read while changes go on, and the way
//! back into an empty one.

use std::collections::BTreeMap;

use redb::{ReadTransaction, ReadableTable};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::configurations::CONFIGURATIONS;
use super::events::{ACCESSES, CHANGES};
use super::{Change, GENERATIONS, RECORDS, Result, SETTINGS, Store, StoreError, database, entry};
use crate::configuration::Configuration;
use crate::event::Event;
use crate::identity::Identity;
use crate::record::{Entry, Record};

/// What the store had at one moment, all of it of the same one. Pages that are overwritten
/// meanwhile stay in the file until this is dropped: it grows by as much.
pub(crate) struct Snapshot(ReadTransaction);

/// One thing that the store keeps. Has keys in it, and so cannot be printed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) enum Kept {
    /// The last generation that was given out.
    Generation(u64),
    Setting {
        name: String,
        value: Value,
    },
    Configuration(Box<Configuration>),
    Record {
        /// `device` or `device/module`.
        id: String,
        value: Box<Record>,
    },
    Event {
        number: u64,
        value: Box<Event>,
    },
}

impl Store {
    /// Everything that is on the disk now.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub(crate) fn snapshot(&self) -> Result<Snapshot> {
        let begun = self.db.begin_read().map_err(redb::Error::from);
        Ok(Snapshot(begun.map_err(database("beginning to read"))?))
    }

    /// Puts in what a snapshot gave out.
    ///
    /// # Errors
    /// [`StoreError::Name`] for an id that is none, [`StoreError::Database`].
    pub(crate) fn keep(&self, kept: Kept) -> Result<()> {
        match kept {
            Kept::Generation(last) => self.next_generation(last).map(drop),
            Kept::Setting { name, value } => {
                let bytes = super::json(|| name.clone(), &value)?;
                self.set_setting(&name, &bytes)
            }
            Kept::Configuration(one) => self.commit(&[Change::PutConfiguration(one)]),
            Kept::Record { id, value } => {
                let identity = Identity::from_client_id(&id);
                let identity = identity.map_err(|_| StoreError::Name { name: id })?;
                let record = *value;
                let entry = Entry { identity, record };
                self.commit(&[Change::Put(Box::new(entry))])
            }
            Kept::Event { number, value } => self.commit(&[Change::Log(number, value)]),
        }
    }
}

impl Kept {
    /// Whether it is a device or module.
    pub(crate) fn is_record(&self) -> bool {
        matches!(self, Self::Record { .. })
    }
}

impl Snapshot {
    /// Gives all of it to `take`, a thing at a time. Blocks.
    ///
    /// # Errors
    /// Those of `take`; [`StoreError`] where something is damaged or cannot be read.
    pub(crate) fn each<E: From<StoreError>>(
        &self,
        mut take: impl FnMut(Kept) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let failed = database("reading all of it");
        let (last, settings) = self.small().map_err(&failed)?;
        take(Kept::Generation(last))?;
        for (name, bytes) in settings {
            let value = decode(&name, &bytes)?;
            take(Kept::Setting { name, value })?;
        }
        let open = |error: redb::TableError| failed(error.into());
        let read = |error: redb::StorageError| failed(error.into());
        let table = self.0.open_table(CONFIGURATIONS).map_err(open)?;
        for row in table.iter().map_err(read)? {
            let (id, bytes) = row.map_err(read)?;
            let value = decode(id.value(), bytes.value())?;
            take(Kept::Configuration(Box::new(value)))?;
        }
        let table = self.0.open_table(RECORDS).map_err(open)?;
        for row in table.iter().map_err(read)? {
            let (name, bytes) = row.map_err(read)?;
            let (device, module) = name.value();
            let Entry { identity, record } = entry(device, module, bytes.value())?;
            let (id, value) = (identity.to_string(), Box::new(record));
            take(Kept::Record { id, value })?;
        }
        for table in [CHANGES, ACCESSES] {
            let table = self.0.open_table(table).map_err(open)?;
            for row in table.iter().map_err(read)? {
                let (number, bytes) = row.map_err(read)?;
                let number = number.value();
                let value = decode(&format!("event {number}"), bytes.value())?;
                let value = Box::new(value);
                take(Kept::Event { number, value })?;
            }
        }
        Ok(())
    }

    fn small(&self) -> std::result::Result<(u64, BTreeMap<String, Vec<u8>>), redb::Error> {
        let generations = self.0.open_table(GENERATIONS)?;
        let last = generations.get(())?.map_or(0, |last| last.value());
        let mut settings = BTreeMap::new();
        for row in self.0.open_table(SETTINGS)?.iter()? {
            let (name, bytes) = row?;
            settings.insert(name.value().to_owned(), bytes.value().to_vec());
        }
        Ok((last, settings))
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").finish_non_exhaustive()
    }
}

fn decode<T: serde::de::DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|source| StoreError::Record {
        name: name.to_owned(),
        source,
    })
}
