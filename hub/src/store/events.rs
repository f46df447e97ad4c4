//! The event log in the store: bounded, the oldest make room.

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction};

use super::{Result, Store, StoreError, database};
use crate::event::{Class, Event};

/// Events of changes by their number.
pub(super) const CHANGES: TableDefinition<u64, &[u8]> = TableDefinition::new("events");
/// Events of access by their number. One sequence numbers both.
pub(super) const ACCESSES: TableDefinition<u64, &[u8]> = TableDefinition::new("accesses");

/// Most events of changes that are kept.
pub(crate) const CHANGES_MAX: u64 = 10_000;
/// Most events of access that are kept.
pub(crate) const ACCESSES_MAX: u64 = 2_000;

fn table(class: Class) -> (TableDefinition<'static, u64, &'static [u8]>, u64) {
    match class {
        Class::Change => (CHANGES, CHANGES_MAX),
        Class::Access => (ACCESSES, ACCESSES_MAX),
    }
}

/// Adds an event, or puts it in place of the one of the same number.
pub(super) fn write(
    transaction: &WriteTransaction,
    sequence: u64,
    class: Class,
    bytes: &[u8],
) -> std::result::Result<(), redb::Error> {
    let (definition, most) = table(class);
    let mut table = transaction.open_table(definition)?;
    table.insert(sequence, bytes)?;
    while table.len()? > most {
        table.pop_first()?;
    }
    Ok(())
}

impl Store {
    /// Number of the last event; 0 if there is none.
    pub(crate) fn last_event(&self) -> Result<u64> {
        let read = || -> std::result::Result<u64, redb::Error> {
            let transaction = self.db.begin_read()?;
            let mut last = 0;
            for definition in [CHANGES, ACCESSES] {
                let table = transaction.open_table(definition)?;
                let found = table.last()?.map_or(0, |(number, _)| number.value());
                last = last.max(found);
            }
            Ok(last)
        };
        read().map_err(database("reading the event log"))
    }

    /// Up to `limit` events before number `before` that `wanted` wants, the newest first.
    pub(crate) fn events(
        &self,
        before: u64,
        limit: usize,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Vec<(u64, Event)>> {
        let mut found = Vec::new();
        for definition in [CHANGES, ACCESSES] {
            found.extend(self.newest(definition, before, limit, &wanted)?);
        }
        found.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        found.truncate(limit);
        Ok(found)
    }

    fn newest(
        &self,
        definition: TableDefinition<'_, u64, &'static [u8]>,
        before: u64,
        limit: usize,
        wanted: &impl Fn(&Event) -> bool,
    ) -> Result<Vec<(u64, Event)>> {
        let failed = |error: redb::Error| database("listing the event log")(error);
        let read = || -> std::result::Result<_, redb::Error> {
            Ok(self.db.begin_read()?.open_table(definition)?)
        };
        let table = read().map_err(failed)?;
        let mut found = Vec::new();
        let rows = table.range(..before).map_err(|e| failed(e.into()))?;
        for row in rows.rev() {
            if found.len() == limit {
                break;
            }
            let (number, bytes) = row.map_err(|e| failed(e.into()))?;
            let number = number.value();
            let event: Event =
                serde_json::from_slice(bytes.value()).map_err(|source| StoreError::Record {
                    name: format!("event {number}"),
                    source,
                })?;
            if wanted(&event) {
                found.push((number, event));
            }
        }
        Ok(found)
    }
}
