use std::path::Path;

use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};

use crate::store::{Batch, Purpose, Reader, Records, Result, Setting, Store};

const TABLE: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("t");
const FILE: &str = "redb";

/// redb with the defaults, but for the cache.
pub(crate) struct Redb {
    database: Database,
    durability: Durability,
}

/// A table of a read transaction.
pub(crate) struct View(ReadOnlyTable<&'static [u8], &'static [u8]>);

impl Redb {
    fn commit(&self, durability: Durability) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        transaction.open_table(TABLE)?;
        Ok(transaction.commit()?)
    }
}

impl Store for Redb {
    type Reader<'a> = View;

    fn open(dir: &Path, setting: &Setting, purpose: Purpose) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let cache_bytes = usize::try_from(setting.cache_bytes)?;
        let database = Database::builder().set_cache_size(cache_bytes).create(dir.join(FILE))?;
        let durability = match purpose {
            Purpose::Load { .. } => Durability::None,
            Purpose::Durable => Durability::Immediate,
        };
        let store = Self { database, durability };
        if store.reader().is_err() {
            store.commit(Durability::Immediate)?;
        }
        Ok(store)
    }

    fn write(&self, batch: &Batch) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.durability)?;
        let mut table = transaction.open_table(TABLE)?;
        for (key, value) in batch.records() {
            table.insert(key, value)?;
        }
        drop(table);
        Ok(transaction.commit()?)
    }

    fn finish_load(&self) -> Result<()> {
        self.commit(Durability::Immediate)
    }

    fn bulk_load(&self, records: &mut Records) -> Result<()> {
        self.bulk_load_by_batches(records)
    }

    fn reader(&self) -> Result<View> {
        Ok(View(self.database.begin_read()?.open_table(TABLE)?))
    }

    fn clone_to(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        let target = Database::create(dir.join(FILE))?;
        let transaction = target.begin_write()?;
        let mut table = transaction.open_table(TABLE)?;
        for record in self.reader()?.0.iter()? {
            let (key, value) = record?;
            table.insert(key.value(), value.value())?;
        }
        drop(table);
        Ok(transaction.commit()?)
    }
}

impl Reader for View {
    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.0.get(key)?.map(|value| value.value().len()))
    }

    fn scan(&mut self, from: &[u8], limit: u64) -> Result<(u64, u64)> {
        let (mut records, mut bytes) = (0, 0);
        for record in self.0.range(from..)?.take(usize::try_from(limit).unwrap_or(usize::MAX)) {
            let (key, value) = record?;
            records += 1;
            bytes += (key.value().len() + value.value().len()) as u64;
        }
        Ok((records, bytes))
    }
}
