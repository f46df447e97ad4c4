//! Changes that are written together, so that all of them wait for the disk once.

use redb::WriteTransaction;

use super::{Result, Store, StoreError, database};

/// Whether changes are gathered, and those that are.
#[derive(Default)]
pub(super) enum Batch {
    /// Each change is a transaction.
    #[default]
    Closed,
    /// Nothing was changed yet.
    Empty,
    Open(Box<WriteTransaction>),
    /// A change failed half-way: none of the batch can be made.
    Broken,
}

impl Store {
    /// Gathers what is changed from here on.
    pub(crate) fn begin(&self) {
        let mut batch = self.batch.borrow_mut();
        if matches!(*batch, Batch::Closed) {
            *batch = Batch::Empty;
        }
    }

    /// Ends the gathering: what was changed is on the disk when this returns, or all of it
    /// is lost, and the store of no use until it is opened again.
    pub(crate) fn flush(&self) -> Result<()> {
        match self.batch.take() {
            Batch::Open(transaction) => {
                let committed = transaction.commit().map_err(redb::Error::from);
                committed.map_err(database("writing records"))
            }
            Batch::Closed | Batch::Empty => Ok(()),
            Batch::Broken => Err(StoreError::Broken),
        }
    }

    /// Does `work` in the transaction of the batch, or in one of its own.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> std::result::Result<T, redb::Error>,
    ) -> std::result::Result<T, redb::Error> {
        let mut batch = self.batch.borrow_mut();
        if let Batch::Empty = &*batch {
            *batch = Batch::Open(Box::new(self.db.begin_write()?));
        }
        match &*batch {
            Batch::Open(transaction) => {
                let done = work(transaction);
                if done.is_err() {
                    *batch = Batch::Broken;
                }
                done
            }
            Batch::Broken => Err(redb::Error::PreviousIo),
            Batch::Closed | Batch::Empty => {
                let transaction = self.db.begin_write()?;
                let done = work(&transaction)?;
                transaction.commit()?;
                Ok(done)
            }
        }
    }
}
