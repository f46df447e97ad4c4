//! The hub's memory: one file, changed by transactions that are on the disk when they
//! return. A crash at any point leaves the state before or after a transaction, never
//! between.
//!
//! Between [`Store::begin`] and [`Store::flush`] all changes are one transaction, which is on
//! the disk when the latter returns: waiting for the disk is what changes cost.

#![allow(
    clippy::result_large_err,
    reason = "the database's own error is boxed as soon as it leaves its closure"
)]

mod batch;
mod configurations;
mod events;
mod snapshot;

pub(crate) use snapshot::{Kept, Snapshot};

#[cfg(test)]
pub(crate) use events::{ACCESSES_MAX, CHANGES_MAX};

use std::cell::RefCell;
use std::fs;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::configuration::Configuration;
use crate::event::{Class, Event};
use crate::identity::{Id, Identity};
use crate::record::{Entry, Record};
use batch::Batch;

/// Records by device and module; the module is empty for the device itself, which therefore
/// comes first of its modules.
const RECORDS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("records");
/// Settings of the hub itself, such as the keys of its policies.
const SETTINGS: TableDefinition<&str, &[u8]> = TableDefinition::new("settings");
/// The last generation that was given out.
const GENERATIONS: TableDefinition<(), u64> = TableDefinition::new("generations");

/// Name of the database in the state directory.
pub(crate) const FILE: &str = "hub.redb";
/// Bytes of the file that the database keeps in memory.
const CACHE: usize = 2 << 20;

/// The open store; a second one of the same file is refused.
pub(crate) struct Store {
    /// Before the database, which waits for its transactions when it is dropped.
    batch: RefCell<Batch>,
    db: Database,
}

/// Where a list of records begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a> {
    First,
    /// At the device of this id, or the first one behind it.
    Device(&'a str),
    After(&'a Identity),
}

impl<'a> From<Option<&'a Identity>> for Start<'a> {
    /// After it, or at the first one.
    fn from(after: Option<&'a Identity>) -> Self {
        after.map_or(Self::First, Self::After)
    }
}

/// One change of a transaction.
#[derive(Debug)]
pub(crate) enum Change {
    Put(Box<Entry>),
    Remove(Identity),
    PutConfiguration(Box<Configuration>),
    RemoveConfiguration(String),
    /// An event of the log with its number; one of the same number is replaced.
    Log(u64, Box<Event>),
}

/// A change, ready to be written.
enum Write<'a> {
    Record(&'a Identity, Option<Vec<u8>>),
    Configuration(&'a str, Option<Vec<u8>>),
    Event(u64, Class, Vec<u8>),
}

/// The store failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("making the state directory {path}")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("opening {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("opening the database {path}")]
    Open {
        path: PathBuf,
        #[source]
        source: Box<redb::DatabaseError>,
    },
    #[error("{operation} in the database")]
    Database {
        operation: &'static str,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("a change failed, and those made together with it are lost")]
    Broken,
    #[error("the record of {name} is damaged")]
    Record {
        name: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the record of {name:?} has a name that is none")]
    Name { name: String },
}

type Result<T> = std::result::Result<T, StoreError>;

impl Store {
    /// Keeps the store in `dir` from being opened for as long as the result lives. `None` where
    /// a hub has it open.
    ///
    /// # Errors
    /// [`StoreError::File`], also where there is none.
    pub(crate) fn lock(dir: &Path) -> Result<Option<fs::File>> {
        let path = dir.join(FILE);
        let failed = |source| StoreError::File {
            path: path.clone(),
            source,
        };
        let file = fs::File::open(&path).map_err(failed)?;
        // The lock that the database itself takes.
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Opens `hub.redb` in `dir`, and makes both (for their owner only) if they are not there.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|source| StoreError::Directory {
                path: dir.to_owned(),
                source,
            })?;
        let path = dir.join(FILE);
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| StoreError::File {
                path: path.clone(),
                source,
            })?;
        let db = Database::builder()
            .set_cache_size(CACHE)
            .create_with_file_format_v3(true)
            .create_file(file)
            .map_err(|source| StoreError::Open {
                path,
                source: Box::new(source),
            })?;
        let batch = RefCell::default();
        let store = Self { batch, db };
        store.prepare()?;
        Ok(store)
    }

    /// Makes the tables, so that reading never finds one missing.
    fn prepare(&self) -> Result<()> {
        let made = || -> std::result::Result<(), redb::Error> {
            let transaction = self.db.begin_write()?;
            transaction.open_table(RECORDS)?;
            transaction.open_table(SETTINGS)?;
            transaction.open_table(GENERATIONS)?;
            transaction.open_table(configurations::CONFIGURATIONS)?;
            transaction.open_table(events::CHANGES)?;
            transaction.open_table(events::ACCESSES)?;
            Ok(transaction.commit()?)
        };
        made().map_err(database("preparing the tables"))
    }

    pub(crate) fn get(&self, identity: &Identity) -> Result<Option<Record>> {
        let read = || match &*self.batch.borrow() {
            Batch::Open(transaction) => find(&transaction.open_table(RECORDS)?, identity),
            _ => find(&self.db.begin_read()?.open_table(RECORDS)?, identity),
        };
        let bytes = read().map_err(database("reading a record"))?;
        bytes
            .map(|bytes| decode(&identity.to_string(), &bytes))
            .transpose()
    }

    /// Up to `limit` records from `start` on, by name; those of `device` alone if it is given.
    pub(crate) fn list(
        &self,
        device: Option<&Id>,
        start: Start<'_>,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let read = || match &*self.batch.borrow() {
            Batch::Open(transaction) => {
                rows(&transaction.open_table(RECORDS)?, device, start, limit)
            }
            _ => {
                let table = self.db.begin_read()?.open_table(RECORDS)?;
                rows(&table, device, start, limit)
            }
        };
        let rows = read().map_err(database("listing records"))?;
        rows.into_iter()
            .map(|(device, module, bytes)| entry(&device, &module, &bytes))
            .collect()
    }

    /// Makes all of `changes` or none.
    pub(crate) fn commit(&self, changes: &[Change]) -> Result<()> {
        let encoded: Result<Vec<_>> = changes.iter().map(encode).collect();
        let encoded = encoded?;
        let apply = |transaction: &WriteTransaction| {
            let mut writes = encoded.iter();
            writes.try_for_each(|write| write.apply(transaction))
        };
        self.write(apply).map_err(database("writing records"))
    }

    /// A generation above every earlier one, and not below `floor`.
    pub(crate) fn next_generation(&self, floor: u64) -> Result<u64> {
        let number = |transaction: &WriteTransaction| {
            let mut table = transaction.open_table(GENERATIONS)?;
            let last = table.get(())?.map_or(0, |last| last.value());
            let next = floor.max(last + 1);
            table.insert((), next)?;
            Ok(next)
        };
        self.write(number)
            .map_err(database("numbering a generation"))
    }

    pub(crate) fn setting(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let read = || -> std::result::Result<Option<Vec<u8>>, redb::Error> {
            let table = self.db.begin_read()?.open_table(SETTINGS)?;
            let found = table.get(name)?;
            Ok(found.map(|bytes| bytes.value().to_vec()))
        };
        read().map_err(database("reading a setting"))
    }

    pub(crate) fn set_setting(&self, name: &str, value: &[u8]) -> Result<()> {
        let insert = |transaction: &WriteTransaction| {
            transaction.open_table(SETTINGS)?.insert(name, value)?;
            Ok(())
        };
        self.write(insert).map_err(database("writing a setting"))
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

type Row = (String, String, Vec<u8>);

fn find(
    table: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    identity: &Identity,
) -> std::result::Result<Option<Vec<u8>>, redb::Error> {
    let found = table.get(key(identity))?;
    Ok(found.map(|bytes| bytes.value().to_vec()))
}

/// See [`Store::list`].
fn rows(
    table: &impl ReadableTable<(&'static str, &'static str), &'static [u8]>,
    device: Option<&Id>,
    start: Start<'_>,
    limit: usize,
) -> std::result::Result<Vec<Row>, redb::Error> {
    let begin = match start {
        Start::First => Bound::Included((device.map_or("", Id::as_str), "")),
        Start::Device(device) => Bound::Included((device, "")),
        Start::After(identity) => Bound::Excluded(key(identity)),
    };
    let mut found = Vec::new();
    for row in table.range::<(&str, &str)>((begin, Bound::Unbounded))? {
        let (name, bytes) = row?;
        let name = name.value();
        if device.is_some_and(|device| device.as_str() != name.0) || found.len() == limit {
            break;
        }
        found.push((name.0.to_owned(), name.1.to_owned(), bytes.value().to_vec()));
    }
    Ok(found)
}

fn key(identity: &Identity) -> (&str, &str) {
    (
        identity.device.as_str(),
        identity.module.as_ref().map_or("", Id::as_str),
    )
}

fn entry(device: &str, module: &str, bytes: &[u8]) -> Result<Entry> {
    let name = if module.is_empty() {
        device.to_owned()
    } else {
        format!("{device}/{module}")
    };
    let record = decode(&name, bytes)?;
    let identity = Identity::from_client_id(&name).map_err(|_| StoreError::Name { name })?;
    Ok(Entry { identity, record })
}

impl Write<'_> {
    fn apply(&self, transaction: &WriteTransaction) -> std::result::Result<(), redb::Error> {
        match self {
            Self::Record(identity, bytes) => {
                let mut table = transaction.open_table(RECORDS)?;
                match bytes {
                    Some(bytes) => table.insert(key(identity), bytes.as_slice())?,
                    None => table.remove(key(identity))?,
                };
            }
            Self::Configuration(id, bytes) => {
                let mut table = transaction.open_table(configurations::CONFIGURATIONS)?;
                match bytes {
                    Some(bytes) => table.insert(*id, bytes.as_slice())?,
                    None => table.remove(*id)?,
                };
            }
            Self::Event(number, class, bytes) => {
                events::write(transaction, *number, *class, bytes)?;
            }
        }
        Ok(())
    }
}

fn encode(change: &Change) -> Result<Write<'_>> {
    Ok(match change {
        Change::Put(entry) => {
            let name = || entry.identity.to_string();
            Write::Record(&entry.identity, Some(json(name, &entry.record)?))
        }
        Change::Remove(identity) => Write::Record(identity, None),
        Change::PutConfiguration(configuration) => {
            let bytes = json(|| configuration.id.clone(), configuration)?;
            Write::Configuration(&configuration.id, Some(bytes))
        }
        Change::RemoveConfiguration(id) => Write::Configuration(id, None),
        Change::Log(number, event) => {
            let bytes = json(|| format!("event {number}"), event)?;
            Write::Event(*number, event.what.action.class(), bytes)
        }
    })
}

fn json(name: impl FnOnce() -> String, value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|source| StoreError::Record {
        name: name(),
        source,
    })
}

fn decode(name: &str, bytes: &[u8]) -> Result<Record> {
    serde_json::from_slice(bytes).map_err(|source| StoreError::Record {
        name: name.to_owned(),
        source,
    })
}

fn database(operation: &'static str) -> impl Fn(redb::Error) -> StoreError {
    move |source| StoreError::Database {
        operation,
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests;
