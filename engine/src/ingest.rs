//! Bulk ingest: rows that come in the order of their keys become run files at once, past log and memtables.

use planaria_types::Uid;

use crate::cursor::RecordKind;
use crate::error::{Error, Result};
use crate::store::{NewRun, NewRunWriter};
use crate::table::{self, Value};
use crate::table_handle::Table;

/// What an error shows of a key, in bytes.
const KEY_SHOWN_BYTES: usize = 64;

/// A bulk ingest that is being collected: many rows of one table, in the order of their keys, which become one commit.
///
/// The rows go straight into run files, and other writers go on meanwhile. [`Ingest::finish`] makes all of them visible
/// at once, under one UID, later than every commit before it and earlier than every one after; it is durable when that
/// returns. Dropping the ingest instead leaves nothing behind.
///
/// ```
/// # fn main() -> Result<(), planaria_engine::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let db = planaria_engine::Database::open(dir.path().join("db"))?;
/// let birds = db.create_raw_table("birds")?;
/// let mut ingest = birds.ingest()?;
/// for number in 0..100_000 {
///     ingest.put(format!("bird {number:06}"), "seen")?;
/// }
/// assert_eq!(ingest.finish()?.records, 100_000);
/// # Ok(())
/// # }
/// ```
///
/// Secondaries have no log to follow over an ingest: they are brought up to date by what has changed, or by run files.
/// For rows in no order see [`Table::ingest_unsorted`].
pub struct Ingest {
    table: Table,
    open: Option<NewRunWriter>,
    /// Complete files, in the order of their keys.
    files: Vec<NewRun>,
    last: Vec<u8>,
    records: u64,
    bytes: u64,
    /// Whether a row was refused or could not be written.
    failed: bool,
}

/// What a bulk ingest has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ingested {
    /// The commit; for an ingest without rows, the one that was the last.
    pub uid: Uid,
    /// Rows.
    pub records: u64,
    /// Bytes of keys and rows.
    pub bytes: u64,
    /// Run files.
    pub files: usize,
}

impl Table {
    /// Begins a bulk ingest into this table: the fast way for many rows that come in the order of their keys.
    ///
    /// # Errors
    ///
    /// `ReadOnly` on a secondary, `Closed` and `Poisoned` where no write would be taken.
    pub fn ingest(&self) -> Result<Ingest> {
        self.database().store().check_ingest(self.id())?;
        Ok(Ingest {
            table: self.clone(),
            open: None,
            files: Vec::new(),
            last: Vec::new(),
            records: 0,
            bytes: 0,
            failed: false,
        })
    }
}

impl Ingest {
    /// Adds a row, whose key must be above that of the row before. A record of that key that exists already is written
    /// over once the ingest is finished.
    ///
    /// # Errors
    ///
    /// `Invalid` with the key for one out of order, and on a typed table if key and row are not encoded as its columns
    /// say; `TooLarge` beyond the limits; `Io` and `NoSpace` when the disk fails. After an error the ingest takes nothing
    /// more and cannot be finished: all of it is there in the end, or nothing.
    pub fn put(&mut self, key: impl AsRef<[u8]>, row: impl AsRef<[u8]>) -> Result<()> {
        let (key, row) = (key.as_ref(), row.as_ref());
        let put = self.check(key, row).and_then(|()| self.add(key, row));
        self.failed |= put.is_err();
        put
    }

    /// Adds a row of a typed table, one value for each column; `Schema` if they do not fit. See [`Ingest::put`].
    pub fn insert(&mut self, values: &[Value]) -> Result<()> {
        match self.table.encode(values) {
            Ok((key, row)) => self.put(key, row),
            Err(error) => {
                self.failed = true;
                Err(error)
            }
        }
    }

    /// Rows so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of keys and rows so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Commits all rows at once, durably. Other writers wait for the moment of the installation, which does not grow
    /// with the rows.
    ///
    /// # Errors
    ///
    /// `Invalid` after a row that was refused, `ReadOnly` if the copy has become a secondary meanwhile, and what the
    /// disk says. Nothing of the ingest is there then, except that after `Poisoned`, or a failed change of the
    /// manifest, it is not known: the next start finds all of it or nothing.
    pub fn finish(mut self) -> Result<Ingested> {
        refuse_incomplete(self.failed)?;
        if let Some(writer) = self.open.take() {
            self.files.extend(writer.finish()?);
        }
        let (records, bytes, files) = (self.records, self.bytes, self.files.len());
        let store = self.table.database().store();
        if self.files.is_empty() {
            return Ok(Ingested { uid: store.visible(), records, bytes, files });
        }
        // From here on the store removes the files if it does not keep them.
        let uid = store.install_ingest(self.table.id(), &std::mem::take(&mut self.files))?;
        Ok(Ingested { uid, records, bytes, files })
    }

    fn check(&self, key: &[u8], row: &[u8]) -> Result<()> {
        refuse_incomplete(self.failed)?;
        if self.records > 0 && key <= self.last.as_slice() {
            return Err(Error::Invalid(format!(
                "key {} comes behind key {}: the rows of a bulk ingest come in the order of their keys, each key once. \
                 `ingest_unsorted` sorts them",
                shown(key),
                shown(&self.last)
            )));
        }
        if self.table.definition().is_typed() {
            table::decode(self.table.definition(), key, row)?;
        }
        Ok(())
    }

    fn add(&mut self, key: &[u8], row: &[u8]) -> Result<()> {
        let store = self.table.database().store();
        let run_file_bytes = store.options.run_file_bytes;
        if let Some(full) = self.open.take_if(|writer| writer.bytes() >= run_file_bytes) {
            self.files.extend(full.finish()?);
        }
        let writer = match &mut self.open {
            Some(writer) => writer,
            None => self.open.insert(store.new_run_of_one_commit()?),
        };
        writer.add(key, Uid::ZERO, RecordKind::Put, row)?;
        self.last.clear();
        self.last.extend_from_slice(key);
        self.records += 1;
        self.bytes += (key.len() + row.len()) as u64;
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // A file in the making goes with its writer.
        self.table.database().store().discard(&self.files);
    }
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest")
            .field("table", &self.table.name())
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

/// Fails for an ingest that has `failed`.
pub(crate) fn refuse_incomplete(failed: bool) -> Result<()> {
    if failed {
        return Err(Error::Invalid(
            "the ingest lacks a row that was refused or could not be written; begin another one".into(),
        ));
    }
    Ok(())
}

/// A key for people: its first bytes, those that are no text escaped.
fn shown(key: &[u8]) -> String {
    match key.get(..KEY_SHOWN_BYTES) {
        Some(head) if key.len() > KEY_SHOWN_BYTES => format!("\"{}…\"", head.escape_ascii()),
        _ => format!("\"{}\"", key.escape_ascii()),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "ingest_tests.rs"]
mod tests;
