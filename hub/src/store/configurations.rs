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

    pub(crate) fn put_configuration(&self, configuration: &Configuration) -> Result<()> {
        let bytes = serde_json::to_vec(configuration).map_err(|source| StoreError::Record {
            name: configuration.id.clone(),
            source,
        })?;
        let write = || -> std::result::Result<(), redb::Error> {
            let transaction = self.db.begin_write()?;
            transaction
                .open_table(CONFIGURATIONS)?
                .insert(configuration.id.as_str(), bytes.as_slice())?;
            Ok(transaction.commit()?)
        };
        write().map_err(database("writing a configuration"))
    }

    pub(crate) fn remove_configuration(&self, id: &str) -> Result<()> {
        let write = || -> std::result::Result<(), redb::Error> {
            let transaction = self.db.begin_write()?;
            transaction.open_table(CONFIGURATIONS)?.remove(id)?;
            Ok(transaction.commit()?)
        };
        write().map_err(database("removing a configuration"))
    }
}
