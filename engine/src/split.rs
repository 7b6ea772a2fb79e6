//! Fragments split when they grow. The boundary is a record of the system fragment, so that every copy splits at it.

use planaria_types::TableId;

use crate::commit::Batch;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::store::{Pending, Store, fragment_key};
use crate::version::Role;

impl Database {
    /// Begins a new fragment of `table` at `key`, unless one begins there. No data is moved: both halves refer to the
    /// same runs, each to its own keys.
    pub fn split(&self, table: TableId, key: &[u8]) -> Result<()> {
        let version = self.store().pin().0;
        let Some(fragment) = version.find(table, key) else {
            return Err(Error::UnknownTable { name: format!("#{table}") });
        };
        if table == TableId::SYSTEM || fragment.range.start == key {
            return Ok(());
        }
        self.store().split(table, key)
    }

    /// Splits every fragment that has outgrown its limit, in the middle of its data. Returns the number of splits.
    pub fn split_large_fragments(&self) -> Result<usize> {
        self.store().split_large_fragments()
    }
}

impl Store {
    fn split(&self, table: TableId, key: &[u8]) -> Result<()> {
        let id = self.new_fragment_id();
        let mut batch = Batch::new();
        batch.put(TableId::SYSTEM, fragment_key(table, key), id.0.to_le_bytes());
        self.commit(Pending { encoded: batch.encode()?, sync: true, token: None }).map(|_| ())
    }

    /// What the background does once a compaction has settled; a secondary splits where its primary did.
    pub(crate) fn split_large_fragments(&self) -> Result<usize> {
        if self.role() == Role::Secondary {
            return Ok(0);
        }
        let version = self.pin().0;
        let mut splits = 0;
        for fragment in version.fragments() {
            let large = fragment.table != TableId::SYSTEM
                && fragment.bottom_bytes() > self.options.fragment_bytes_max;
            if let Some(middle) = large.then(|| fragment.middle_key()).flatten() {
                self.split(fragment.table, &middle)?;
                splits += 1;
            }
        }
        Ok(splits)
    }
}
