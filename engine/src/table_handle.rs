use bytes::Bytes;
use planaria_types::{KeyRange, TableId, Uid};

use crate::commit::Batch;
use crate::database::{Database, Durability};
use crate::error::{Error, Result};
use crate::read::Scan;
use crate::table::{self, Schema, TableDef, Value};

/// A table of a database. Cheap to clone.
///
/// Keys and rows are bytes; on a table with typed columns, [`Table::insert`], [`Table::find`] and [`Table::rows`]
/// speak of values instead.
#[derive(Clone, Debug)]
pub struct Table {
    database: Database,
    definition: TableDef,
}

impl Table {
    pub(crate) fn new(database: Database, definition: TableDef) -> Self {
        Self { database, definition }
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The table's number, for batches.
    pub fn id(&self) -> TableId {
        self.definition.id
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// The definition: typed columns and their key, or raw bytes.
    pub fn definition(&self) -> &TableDef {
        &self.definition
    }

    /// The row of a key.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.database.snapshot().get(self.id(), key.as_ref())
    }

    /// Writes one record and waits for the disk.
    ///
    /// # Errors
    ///
    /// `Schema` on a typed table if key and row are not encoded as its columns say.
    pub fn put(&self, key: impl AsRef<[u8]>, row: impl AsRef<[u8]>) -> Result<Uid> {
        let (key, row) = (key.as_ref(), row.as_ref());
        if self.definition.is_typed() {
            table::decode(&self.definition, key, row)?;
        }
        let mut batch = Batch::new();
        batch.put(self.id(), key, row);
        self.database.write(batch, Durability::Synced)
    }

    /// Deletes one record and waits for the disk.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<Uid> {
        let mut batch = Batch::new();
        batch.delete(self.id(), key);
        self.database.write(batch, Durability::Synced)
    }

    /// The records of a key range as of now, in key order, from either end.
    pub fn scan(&self, range: KeyRange) -> Scan {
        self.database.snapshot().scan(self.id(), range)
    }

    fn schema(&self) -> Result<(u32, &Schema)> {
        if !self.definition.is_typed() {
            return Err(Error::Schema(format!("table {:?} has no columns: its rows are bytes", self.name())));
        }
        self.definition.schema()
    }

    /// Key and row of a record of a typed table, for a batch.
    pub fn encode(&self, values: &[Value]) -> Result<(Vec<u8>, Vec<u8>)> {
        let (id, schema) = self.schema()?;
        table::encode(schema, id, values)
    }

    /// The values of a record of a typed table, in the order of its columns.
    pub fn decode(&self, key: &[u8], row: &[u8]) -> Result<Vec<Value>> {
        table::decode(&self.definition, key, row)
    }

    /// Writes one record, one value for each column, and waits for the disk.
    pub fn insert(&self, values: &[Value]) -> Result<Uid> {
        let (key, row) = self.encode(values)?;
        let mut batch = Batch::new();
        batch.put(self.id(), key, row);
        self.database.write(batch, Durability::Synced)
    }

    /// The record with the given primary key: one value for each of its columns, in key order.
    pub fn find(&self, key: &[Value]) -> Result<Option<Vec<Value>>> {
        let schema = self.schema()?.1;
        if key.len() != schema.key().len() {
            return Err(Error::Schema(format!(
                "{} values are given for a key of {} columns; give one for each",
                key.len(),
                schema.key().len()
            )));
        }
        let key = table::encode_key_prefix(schema, key)?;
        self.get(&key)?.map(|row| self.decode(&key, &row)).transpose()
    }

    /// The records whose primary key begins with the given values, in the order of the key; all for an empty prefix.
    pub fn rows(
        &self,
        key_prefix: &[Value],
    ) -> Result<impl DoubleEndedIterator<Item = Result<Vec<Value>>> + use<>> {
        let prefix = table::encode_key_prefix(self.schema()?.1, key_prefix)?;
        let definition = self.definition.clone();
        let decode = move |record: Result<(Bytes, Bytes)>| {
            let (key, row) = record?;
            table::decode(&definition, &key, &row)
        };
        Ok(self.scan(KeyRange::prefix(&prefix)).map(decode))
    }
}
