use std::path::Path;

use planaria_engine::types::{KeyRange, TableId};
use planaria_engine::{Batch as Commit, Database, Durability, Options, Snapshot};

use crate::store::{Batch, Purpose, Reader, Records, Result, Setting, Store};

const TABLE: &str = "t";

/// Planaria with the defaults, but for the cache, and for the log, which nobody else keeps for secondaries.
pub(crate) struct Planaria {
    database: Database,
    table: TableId,
    durability: Durability,
}

/// A snapshot.
pub(crate) struct View {
    snapshot: Snapshot,
    table: TableId,
}

impl Store for Planaria {
    type Reader<'a> = View;

    fn open(dir: &Path, setting: &Setting, purpose: Purpose) -> Result<Self> {
        let cache_bytes = usize::try_from(setting.cache_bytes)?;
        let options = Options { cache_bytes, log_tail_bytes: 0, ..Options::default() };
        let database = Database::open_with(dir, options)?;
        let table = match database.table(TABLE) {
            Ok(table) => table,
            Err(_) => database.create_raw_table(TABLE)?,
        };
        let durability = match purpose {
            Purpose::Load { .. } => Durability::Background,
            Purpose::Durable => Durability::Synced,
        };
        Ok(Self { table: table.id(), database, durability })
    }

    fn write(&self, batch: &Batch) -> Result<()> {
        let mut commit = Commit::new();
        for (key, value) in batch.records() {
            commit.put(self.table, key, value);
        }
        self.database.write(commit, self.durability)?;
        Ok(())
    }

    fn finish_load(&self) -> Result<()> {
        Ok(self.database.flush()?)
    }

    fn settle(&self) -> Result<()> {
        Ok(self.database.compact()?)
    }

    fn bulk_load(&self, records: &mut Records) -> Result<()> {
        let mut ingest = self.database.table(TABLE)?.ingest()?;
        while let Some((key, value)) = records.next() {
            ingest.put(key, value)?;
        }
        ingest.finish()?;
        Ok(())
    }

    fn reader(&self) -> Result<View> {
        Ok(View { snapshot: self.database.snapshot(), table: self.table })
    }

    fn clone_to(&self, dir: &Path) -> Result<()> {
        self.database.clone_to(dir)?;
        Ok(())
    }
}

impl Reader for View {
    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.snapshot.get(self.table, key)?.map(|row| row.len()))
    }

    fn scan(&mut self, from: &[u8], limit: u64) -> Result<(u64, u64)> {
        let (mut records, mut bytes) = (0, 0);
        self.snapshot.scan(self.table, KeyRange::new(from, None)).visit(|key, row| {
            records += 1;
            bytes += (key.len() + row.len()) as u64;
            records < limit
        })?;
        Ok((records, bytes))
    }
}
