use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rusqlite::{Connection, OptionalExtension, params};

use crate::store::{Batch, Error, Purpose, Reader, Records, Result, Setting, Store};

const FILE: &str = "sqlite";

/// SQLite with a write-ahead log and a table that is its own index; one connection writes, each thread reads by its own.
pub(crate) struct Sqlite {
    path: PathBuf,
    cache_kib: i64,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

/// A connection that goes back when it is not needed any more.
pub(crate) struct View<'a> {
    store: &'a Sqlite,
    connection: Option<Connection>,
}

fn poisoned<T>(_: T) -> Error {
    "another thread failed".into()
}

fn connect(path: &Path, cache_kib: i64) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.busy_timeout(std::time::Duration::from_secs(60))?;
    Ok(connection)
}

impl Store for Sqlite {
    type Reader<'a> = View<'a>;

    fn open(dir: &Path, setting: &Setting, purpose: Purpose) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join(FILE);
        let cache_kib = i64::try_from(setting.cache_bytes / 1024)?;
        let connection = connect(&path, cache_kib)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        let synchronous = if purpose == Purpose::Durable { "full" } else { "off" };
        connection.pragma_update(None, "synchronous", synchronous)?;
        connection.execute_batch(
            "create table if not exists t (k blob primary key, v blob not null) without rowid",
        )?;
        Ok(Self { path, cache_kib, writer: Mutex::new(connection), readers: Mutex::new(Vec::new()) })
    }

    fn write(&self, batch: &Batch) -> Result<()> {
        let mut connection = self.writer.lock().map_err(poisoned)?;
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut insert = transaction.prepare_cached("insert or replace into t values (?, ?)")?;
        for (key, value) in batch.records() {
            insert.execute(params![key, value])?;
        }
        drop(insert);
        Ok(transaction.commit()?)
    }

    fn finish_load(&self) -> Result<()> {
        let connection = self.writer.lock().map_err(poisoned)?;
        connection.pragma_update(None, "synchronous", "full")?;
        connection.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "off")?;
        Ok(())
    }

    fn bulk_load(&self, records: &mut Records) -> Result<()> {
        self.bulk_load_by_batches(records)
    }

    fn reader(&self) -> Result<View<'_>> {
        let idle = self.readers.lock().map_err(poisoned)?.pop();
        let connection = idle.map_or_else(|| connect(&self.path, self.cache_kib), Ok)?;
        Ok(View { store: self, connection: Some(connection) })
    }

    fn clone_to(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir)?;
        let connection = self.writer.lock().map_err(poisoned)?;
        let mut target = Connection::open(dir.join(FILE))?;
        rusqlite::backup::Backup::new(&connection, &mut target)?.run_to_completion(
            i32::MAX,
            std::time::Duration::ZERO,
            None,
        )?;
        Ok(())
    }
}

impl View<'_> {
    fn connection(&self) -> Result<&Connection> {
        self.connection.as_ref().ok_or_else(|| "the connection went back already".into())
    }
}

impl Reader for View<'_> {
    fn get(&mut self, key: &[u8]) -> Result<Option<usize>> {
        let mut select = self.connection()?.prepare_cached("select v from t where k = ?")?;
        let length = |row: &rusqlite::Row<'_>| Ok(row.get_ref(0)?.as_blob()?.len());
        Ok(select.query_row([key], length).optional()?)
    }

    fn scan(&mut self, from: &[u8], limit: u64) -> Result<(u64, u64)> {
        let mut select =
            self.connection()?.prepare_cached("select k, v from t where k >= ? order by k limit ?")?;
        let mut rows = select.query(params![from, i64::try_from(limit).unwrap_or(i64::MAX)])?;
        let (mut records, mut bytes) = (0, 0);
        while let Some(row) = rows.next()? {
            records += 1;
            bytes += (row.get_ref(0)?.as_blob()?.len() + row.get_ref(1)?.as_blob()?.len()) as u64;
        }
        Ok((records, bytes))
    }
}

impl Drop for View<'_> {
    fn drop(&mut self) {
        if let (Some(connection), Ok(mut readers)) = (self.connection.take(), self.store.readers.lock()) {
            readers.push(connection);
        }
    }
}
