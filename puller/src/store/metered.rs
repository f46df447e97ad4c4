//! What was fetched today, for links where that is limited.

use std::fs;

use super::{Store, StoreError, failed};
use crate::meter::Ledger;

impl Store {
    /// The count as it was written last; nothing if there is none, or none that can be read.
    pub(crate) fn metered(&self) -> Option<Ledger> {
        let body = fs::read(self.path("metered.json")).ok()?;
        serde_json::from_slice(&body).ok()
    }

    /// Keeps the count, durably. Blocking.
    pub(crate) fn put_metered(&self, ledger: &Ledger) -> Result<(), StoreError> {
        let path = self.path("metered.json");
        let body = serde_json::to_vec(ledger).map_err(std::io::Error::other);
        self.write_atomic(&path, &body.map_err(failed("write", &path))?)
    }
}
