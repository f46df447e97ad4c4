//! Automatic deployments in the store.

use redb::{ReadableTable, TableDefinition};

use super::{Result, Store, StoreError, database};
use crate::configuration::Configuration;

/// Automatic deployments by their ids.
pub(super) const CONFIGURATIONS: TableDefinition<&str, &[u8]> =
    TableDefinition::new("configurations");

impl Store {
    /// All of them, by id.
    pub(crate) fn configurations(&self) -> Result<Vec<Configuration>> {
        let read = || -> std::result::Result<Vec<(String, Vec<u8>)>, redb::Error> {
            let table = self.db.begin_read()?.open_table(CONFIGURATIONS)?;
            let mut found = Vec::new();
            for row in table.iter()? {
                let (id, bytes) = row?;
                found.push((id.value().to_owned(), bytes.value().to_vec()));
            }
            Ok(found)
        };
        let rows = read().map_err(database("listing configurations"))?;
        let decode = |(name, bytes): (String, Vec<u8>)| {
            serde_json::from_slice(&bytes).map_err(|source| StoreError::Record { name, source })
        };
        rows.into_iter().map(decode).collect()
    }
}
