use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::store::{Batch, Purpose, Reader, Records, Result, Setting, Store};

/// fjall with the defaults, which are meant for general work, but for the cache.
pub(crate) struct Fjall {
    database: Database,
    keyspace: Keyspace,
    durability: Option<PersistMode>,
}

/// Reads go to the keyspace: without writers, a snapshot would answer the same and cost more.
pub(crate) struct View<'a>(&'a Keyspace);

impl Store for Fjall {
    type Reader<'a> = View<'a>;

    fn open(dir: &Path, setting: &Setting, purpose: Purpose) -> Result<Self> {
        let database = Database::builder(dir).cache_size(setting.cache_bytes).open()?;
        let keyspace = database.keyspace("t", KeyspaceCreateOptions::default)?;
        let durability = (purpose == Purpose::Durable).then_some(PersistMode::SyncData);
        Ok(Self { database, keyspace, durability })
    }

    fn write(&self, batch: &Batch) -> Result<()> {
        let mut commit = self.database.batch().durability(self.durability);
        for (key, value) in batch.records() {
            commit.insert(&self.keyspace, key, value);
        }
        Ok(commit.commit()?)
    }

    fn finish_load(&self) -> Result<()> {
        self.keyspace.rotate_memtable_and_wait()?;
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn settle(&self) -> Result<()> {
        Ok(self.keyspace.major_compact()?)
    }

    fn bulk_load(&self, records: &mut Records) -> Result<()> {
        let mut ingestion = self.keyspace.start_ingestion()?;
        while let Some((key, value)) = records.next() {
            ingestion.write(key, value)?;
        }
        ingestion.finish()?;
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn reader(&self) -> Result<View<'_>> {
        Ok(View(&self.keyspace))
    }

    /// There is no clone; bulk ingestion is the fastest way to make one.
    fn clone_to(&self, dir: &Path) -> Result<()> {
        let database = Database::builder(dir).open()?;
        let keyspace = database.keyspace("t", KeyspaceCreateOptions::default)?;
        let mut ingestion = keyspace.start_ingestion()?;
        for record in self.keyspace.iter() {
            let (key, value) = record.into_inner()?;
            ingestion.write(key, value)?;
        }
        ingestion.finish()?;
        Ok(database.persist(PersistMode::SyncAll)?)
    }
}

impl Reader for View<'_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.0.get(key)?.map(|value| value.len()))
    }

    fn scan(&mut self, from: &[u8], limit: u64) -> Result<(u64, u64)> {
        let (mut records, mut bytes) = (0, 0);
        for record in self.0.range(from..).take(usize::try_from(limit).unwrap_or(usize::MAX)) {
            let (key, value) = record.into_inner()?;
            records += 1;
            bytes += (key.len() + value.len()) as u64;
        }
        Ok((records, bytes))
    }
}
