#![expect(unsafe_code, reason = "LMDB maps its file, and asks its caller to see that nobody else changes it")]

use std::ops::Bound;
use std::path::Path;

use heed::types::Bytes;
use heed::{CompactionOption, Database, Env, EnvFlags, EnvOpenOptions, PutFlags, RoTxn, WithoutTls};

use crate::store::{Batch, Purpose, Reader, Records, Result, Setting, Store};

/// The room that the map reserves, in bytes; it takes addresses, not memory.
const MAP_BYTES: usize = 64 << 30;

/// LMDB through heed. The map is its cache, so it has no budget but the system's memory.
pub(crate) struct Lmdb {
    env: Env<WithoutTls>,
    database: Database<Bytes, Bytes>,
    flags: PutFlags,
}

/// A read transaction.
pub(crate) struct View<'a> {
    transaction: RoTxn<'a, WithoutTls>,
    database: Database<Bytes, Bytes>,
}

impl Store for Lmdb {
    type Reader<'a> = View<'a>;

    fn open(dir: &Path, _setting: &Setting, purpose: Purpose) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_BYTES).max_readers(64);
        let load = EnvFlags::NO_SYNC | EnvFlags::NO_READ_AHEAD;
        let flags = if purpose == Purpose::Durable { EnvFlags::NO_READ_AHEAD } else { load };
        // SAFETY: the directory is this process's own, and what a crash would do to it does not matter.
        let env = unsafe { options.flags(flags).open(dir)? };
        let mut transaction = env.write_txn()?;
        let database = env.create_database(&mut transaction, None)?;
        transaction.commit()?;
        let ascending = purpose == Purpose::Load { ascending: true };
        Ok(Self { env, database, flags: if ascending { PutFlags::APPEND } else { PutFlags::empty() } })
    }

    fn write(&self, batch: &Batch) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        for (key, value) in batch.records() {
            self.database.put_with_flags(&mut transaction, self.flags, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    fn finish_load(&self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }

    /// One transaction that appends.
    fn bulk_load(&self, records: &mut Records) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        while let Some((key, value)) = records.next() {
            self.database.put_with_flags(&mut transaction, self.flags, key, value)?;
        }
        transaction.commit()?;
        self.finish_load()
    }

    fn reader(&self) -> Result<View<'_>> {
        Ok(View { transaction: self.env.read_txn()?, database: self.database })
    }

    fn clone_to(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        self.env.copy_to_path(dir.join("data.mdb"), CompactionOption::Disabled)?.sync_all()?;
        Ok(())
    }
}

impl Reader for View<'_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        Ok(self.database.get(&self.transaction, key)?.map(<[u8]>::len))
    }

    fn scan(&mut self, from: &[u8], limit: u64) -> Result<(u64, u64)> {
        let (mut records, mut bytes) = (0, 0);
        // LMDB knows no empty keys, not even to seek one.
        let start = if from.is_empty() { Bound::Unbounded } else { Bound::Included(from) };
        let range = self.database.range(&self.transaction, &(start, Bound::Unbounded))?;
        for record in range.take(usize::try_from(limit).unwrap_or(usize::MAX)) {
            let (key, value) = record?;
            records += 1;
            bytes += (key.len() + value.len()) as u64;
        }
        Ok((records, bytes))
    }
}
