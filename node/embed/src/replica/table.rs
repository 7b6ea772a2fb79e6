use std::sync::{PoisonError, RwLock};

use bytes::Bytes;
use planaria_engine::{Batch, Scan, Table, Value};
use planaria_types::{KeyRange, Position, TableId};

use super::{Replica, ReplicaError};

/// A table of a replica: reads are those of the local copy, writes are made by the primary.
///
/// Unlike a [`Table`] it stays current when run files take the place of the copy.
#[derive(Debug)]
pub struct ReplicaTable {
    replica: Replica,
    name: String,
    /// The table in the copy of that generation.
    held: RwLock<(u64, Table)>,
}

impl ReplicaTable {
    pub(super) fn new(replica: Replica, name: &str) -> Result<Self, ReplicaError> {
        let (generation, database) = replica.slot().current();
        let table = database.table(name)?;
        Ok(Self { replica, name: name.to_owned(), held: RwLock::new((generation, table)) })
    }

    /// The table of the local copy as it is now. Once run files have taken the copy's place it stays what it was.
    pub fn local(&self) -> Result<Table, ReplicaError> {
        self.with(Table::clone)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The table's number, for batches.
    pub fn id(&self) -> Result<TableId, ReplicaError> {
        self.with(Table::id)
    }

    /// The row of a key.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>, ReplicaError> {
        Ok(self.with(|table| table.get(key))??)
    }

    /// The record with the given primary key: one value for each of its columns, in key order.
    pub fn find(&self, key: &[Value]) -> Result<Option<Vec<Value>>, ReplicaError> {
        Ok(self.with(|table| table.find(key))??)
    }

    /// The records of a key range as of now, in key order, from either end.
    pub fn scan(&self, range: KeyRange) -> Result<Scan, ReplicaError> {
        self.with(|table| table.scan(range))
    }

    /// The records whose primary key begins with the given values, in the order of the key; all for an empty prefix.
    pub fn rows(
        &self,
        key_prefix: &[Value],
    ) -> Result<impl DoubleEndedIterator<Item = planaria_engine::Result<Vec<Value>>> + use<>, ReplicaError>
    {
        Ok(self.with(|table| table.rows(key_prefix))??)
    }

    /// Has the primary write one record; it is durable there when this returns.
    pub fn put(&self, key: impl AsRef<[u8]>, row: impl AsRef<[u8]>) -> Result<Position, ReplicaError> {
        let mut batch = Batch::new();
        batch.put(self.id()?, key, row);
        self.replica.write(&batch)
    }

    /// Has the primary write one record, one value for each column.
    pub fn insert(&self, values: &[Value]) -> Result<Position, ReplicaError> {
        let (key, row) = self.with(|table| table.encode(values))??;
        self.put(key, row)
    }

    /// Has the primary delete one record.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<Position, ReplicaError> {
        let mut batch = Batch::new();
        batch.delete(self.id()?, key);
        self.replica.write(&batch)
    }

    /// Reads from the table of the copy that is current.
    fn with<T>(&self, read: impl FnOnce(&Table) -> T) -> Result<T, ReplicaError> {
        let slot = self.replica.slot();
        {
            let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
            if held.0 == slot.generation() {
                return Ok(read(&held.1));
            }
        }
        let (generation, database) = slot.current();
        let table = database.table(&self.name)?;
        let result = read(&table);
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = (generation, table);
        Ok(result)
    }
}
