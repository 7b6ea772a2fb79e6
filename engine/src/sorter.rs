//! Rows in no order, sorted in bounded memory on their way into a bulk ingest.

use planaria_types::{KeyRange, Uid};

use crate::commit::{MAX_KEY_BYTES, MAX_ROW_BYTES};
use crate::cursor::RecordKind;
use crate::error::{Error, Result};
use crate::ingest::{Ingested, refuse_incomplete};
use crate::read::{Direction, Merge, Source};
use crate::table::{self, Value};
use crate::table_handle::Table;
use crate::version::RunRef;

/// The least memory that rows are sorted in, in bytes.
const MEMORY_BYTES_MIN: usize = 64 << 10;
/// What a row takes in memory besides its bytes: two vectors.
const ROW_OVERHEAD_BYTES: usize = 64;
/// What a merge reads ahead of each of its inputs, in bytes.
const READ_AHEAD_BYTES: usize = 256 << 10;

/// A bulk ingest of rows that come in no order: they are sorted first, in as much memory as was asked for, and as much
/// disk beside it as all rows take.
///
/// Where a key comes twice, its last row counts. [`UnsortedIngest::finish`] sorts what is left and does what
/// [`Ingest::finish`](crate::Ingest::finish) does. Dropping it instead leaves nothing behind.
pub struct UnsortedIngest {
    table: Table,
    memory_bytes: usize,
    rows: Vec<(Vec<u8>, Vec<u8>)>,
    held_bytes: usize,
    /// What did not fit into memory: sorted runs whose files go with them, oldest first. The n-th has UID n, so that of
    /// two rows of one key the later one is the newer version.
    spills: Vec<RunRef>,
    failed: bool,
}

impl Table {
    /// Begins a bulk ingest into this table of rows in no order, sorted in about `memory_bytes`, at least 64 KiB.
    ///
    /// # Errors
    ///
    /// `ReadOnly` on a secondary, `Closed` and `Poisoned` where no write would be taken.
    pub fn ingest_unsorted(&self, memory_bytes: usize) -> Result<UnsortedIngest> {
        self.database().store().check_ingest(self.id())?;
        Ok(UnsortedIngest {
            table: self.clone(),
            memory_bytes: memory_bytes.max(MEMORY_BYTES_MIN),
            rows: Vec::new(),
            held_bytes: 0,
            spills: Vec::new(),
            failed: false,
        })
    }
}

impl UnsortedIngest {
    /// Adds a row. Errors are those of [`Ingest::put`](crate::Ingest::put), but for the order.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, row: impl Into<Vec<u8>>) -> Result<()> {
        let (key, row) = (key.into(), row.into());
        let put = self.check(&key, &row).and_then(|()| self.add(key, row));
        self.failed |= put.is_err();
        put
    }

    /// Adds a row of a typed table, one value for each column; `Schema` if they do not fit.
    pub fn insert(&mut self, values: &[Value]) -> Result<()> {
        match self.table.encode(values) {
            Ok((key, row)) => self.put(key, row),
            Err(error) => {
                self.failed = true;
                Err(error)
            }
        }
    }

    fn check(&self, key: &[u8], row: &[u8]) -> Result<()> {
        refuse_incomplete(self.failed)?;
        for (what, bytes, limit) in [("a key", key.len(), MAX_KEY_BYTES), ("a row", row.len(), MAX_ROW_BYTES)]
        {
            if bytes > limit {
                return Err(Error::TooLarge { what, bytes: bytes as u64, limit: limit as u64 });
            }
        }
        if self.table.definition().is_typed() {
            table::decode(self.table.definition(), key, row)?;
        }
        Ok(())
    }

    fn add(&mut self, key: Vec<u8>, row: Vec<u8>) -> Result<()> {
        let bytes = key.len() + row.len() + ROW_OVERHEAD_BYTES;
        if !self.rows.is_empty() && self.held_bytes + bytes > self.memory_bytes {
            self.spill()?;
        }
        self.held_bytes += bytes;
        self.rows.push((key, row));
        Ok(())
    }

    /// Sorts the rows in memory; of those with one key the last stays.
    fn sort(&mut self) {
        // A stable sort keeps the rows of one key in their order; reversed, the last comes first and stays.
        self.rows.reverse();
        self.rows.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.rows.dedup_by(|(later, _), (first, _)| later == first);
    }

    /// Writes the rows in memory out as a sorted run.
    fn spill(&mut self) -> Result<()> {
        self.sort();
        let store = self.table.database().store();
        let uid = Uid::new(self.spills.len() as u64 + 1);
        let mut writer = store.new_run(false)?;
        for (key, row) in &self.rows {
            writer.add(key, uid, RecordKind::Put, row)?;
        }
        let Some(spilled) = writer.finish()? else { return Ok(()) };
        let run = store
            .open_run(spilled.file, &spilled.meta)
            .inspect_err(|_| store.discard(std::slice::from_ref(&spilled)))?;
        // No version will name it: the file goes when it is read, or abandoned.
        run.mark_obsolete();
        self.spills.push(RunRef {
            file: spilled.file,
            run,
            keys: KeyRange::ALL,
            above: uid.prev(),
            upto: uid,
        });
        self.rows.clear();
        self.held_bytes = 0;
        Ok(())
    }

    /// Commits all rows at once, durably; see [`Ingest::finish`](crate::Ingest::finish).
    pub fn finish(mut self) -> Result<Ingested> {
        refuse_incomplete(self.failed)?;
        let mut ingest = self.table.ingest()?;
        if self.spills.is_empty() {
            self.sort();
            for (key, row) in std::mem::take(&mut self.rows) {
                ingest.put(key, row)?;
            }
            return ingest.finish();
        }
        self.spill()?;
        let mut merge = Merge::new(self.sources(), KeyRange::ALL, Direction::Forward)?;
        let mut last: Option<Vec<u8>> = None;
        while let Some(key) = merge.key() {
            // Of one key the newest version comes first.
            if last.as_deref() != Some(key) {
                ingest.put(key, merge.row_ref())?;
                let last = last.get_or_insert_default();
                last.clear();
                last.extend_from_slice(key);
            }
            merge.advance()?;
        }
        drop(merge);
        self.spills.clear();
        ingest.finish()
    }

    /// The spills as inputs of a merge, newest first: with much read ahead while that fits into the memory, else through
    /// the cache of blocks.
    fn sources(&self) -> Vec<Source> {
        let newest_first: Vec<RunRef> = self.spills.iter().rev().cloned().collect();
        if newest_first.len() * READ_AHEAD_BYTES <= self.memory_bytes {
            return Source::of_merge(&newest_first, &[]);
        }
        newest_first.into_iter().map(|spill| Source::chain(vec![spill], None)).collect()
    }
}

impl std::fmt::Debug for UnsortedIngest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnsortedIngest")
            .field("table", &self.table.name())
            .field("held_bytes", &self.held_bytes)
            .field("spills", &self.spills.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "sorter_tests.rs"]
mod tests;
