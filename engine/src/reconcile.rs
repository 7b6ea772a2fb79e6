//! A reconcile: ranges of a copy that differ from the primary's are replaced, all of them in one step.

use std::collections::HashSet;

use bytes::Bytes;
use planaria_types::{FileId, Fingerprint, KeyRange, Portion, TableId, Uid};

use crate::cursor::RecordKind;
use crate::database::{Database, Snapshot};
use crate::error::{Error, Result};
use crate::read::Change;
use crate::refresh::RefreshEnd;
use crate::store::{
    KeptRanges, NewRun, NewRunWriter, Replacement, Store, UnsyncedRuns, boundaries_of, kept_boundaries,
};
use crate::sync::Arc;
use crate::version::{Role, RunRecord, StoreVersion};

/// Ranges that are being collected to take the place of what the copy has there. Readers go on at the old cut; dropping
/// it leaves the copy as it was, and what was kept for a later process.
pub struct Reconcile {
    store: Arc<Store>,
    base: Uid,
    replacement: Replacement,
    unsynced: UnsyncedRuns,
    open: Option<Open>,
    /// The copy as it will be; made when it is asked for, and again after something was replaced.
    staged: Option<StoreVersion>,
    records: u64,
    /// Run files that a later process would go on from.
    marked: HashSet<FileId>,
    /// What is to be held of it, if the copy is partial.
    portion: Option<Portion>,
}

/// A run in the making, and the ranges whose records are in it.
struct Open {
    table: TableId,
    writer: NewRunWriter,
    ranges: Vec<KeyRange>,
}

/// The live records of a part of a key range, and where to go on.
#[derive(Clone, Debug)]
pub struct RangeChunk {
    /// The records, in key order.
    pub records: Vec<Change>,
    /// The first key that was not looked at; `None` at the end of the range.
    pub next: Option<Bytes>,
}

impl Snapshot {
    /// The live records of a key range with their UIDs, about `bytes_max` of keys and rows, at least one if there is one.
    pub fn range_records(&self, table: TableId, keys: &KeyRange, bytes_max: usize) -> Result<RangeChunk> {
        self.check_held(table, keys)?;
        let mut chunk = RangeChunk { records: Vec::new(), next: None };
        let mut bytes = 0;
        for fragment in self.version().overlapping(table, keys) {
            crate::read::visit_live(fragment, keys, self.uid(), |key, uid, row| {
                let key = Bytes::copy_from_slice(key);
                if bytes >= bytes_max && !chunk.records.is_empty() {
                    chunk.next = Some(key);
                    return false;
                }
                bytes += key.len() + row.len();
                let row = Bytes::copy_from_slice(row);
                chunk.records.push(Change { table, key, uid, kind: RecordKind::Put, row });
                true
            })?;
            if chunk.next.is_some() {
                break;
            }
        }
        Ok(chunk)
    }
}

impl Database {
    /// Begins to replace ranges. What the copy holds above `base` disappears with the installation.
    pub fn begin_reconcile(&self, base: Uid) -> Result<Reconcile> {
        if self.role() != Role::Secondary {
            return Err(Error::Invalid("a primary is not refreshed".into()));
        }
        self.store().drop_kept()?;
        let mut reconcile = Reconcile::new(self.store(), base);
        reconcile.rebase(base)?;
        Ok(reconcile)
    }

    /// A reconcile that was interrupted by the end of a process, to go on with [`Reconcile::rebase`]; none if none is kept, or what
    /// is kept cannot be read. There is one of them: nobody else may have it, or begin another one.
    pub fn kept_reconcile(&self) -> Option<Reconcile> {
        let (kept, portion) = self.store().kept_ranges()?;
        let reconcile = Reconcile::going_on_from(self.store(), kept).map(|kept| kept.holding(portion));
        if reconcile.is_err() {
            // What stays goes when the store is opened next, or something else is collected.
            let _ = self.store().drop_kept();
        }
        reconcile.ok()
    }

    /// All tables that have fragments, those of the system and of secondary indexes included.
    pub fn table_ids(&self) -> Vec<TableId> {
        self.snapshot().table_ids()
    }
}

impl Reconcile {
    fn new(store: &Arc<Store>, base: Uid) -> Self {
        Self {
            store: Arc::clone(store),
            base,
            replacement: Replacement::default(),
            unsynced: UnsyncedRuns::default(),
            open: None,
            staged: None,
            records: 0,
            marked: HashSet::new(),
            portion: None,
        }
    }

    /// Says what is to be held of it, which is kept with the rest.
    #[must_use]
    pub fn holding(mut self, portion: Option<Portion>) -> Self {
        self.portion = portion;
        self
    }

    /// What was to be held of it, if the copy is partial. With another portion one does not go on from it: what was replaced
    /// may lie beyond that.
    pub fn portion(&self) -> Option<&Portion> {
        self.portion.as_ref()
    }

    fn going_on_from(store: &Arc<Store>, kept: KeptRanges) -> Result<Self> {
        let mut reconcile = Self::new(store, kept.base);
        for RunRecord { file, meta } in kept.runs {
            let run = NewRun { file, meta };
            // It is removed by whoever drops what is kept.
            reconcile.marked.insert(file);
            reconcile.replacement.runs.push((run.clone(), store.adopt(&run)?));
        }
        for (table, keys, run) in kept.pieces {
            let run = run.map(|run| run as usize);
            if run.is_some_and(|run| run >= reconcile.replacement.runs.len()) {
                return Err(Error::Invalid("a range is replaced by a run that is not there".into()));
            }
            reconcile.replacement.pieces.insert(table, &keys, run);
        }
        reconcile.replacement.boundaries = boundaries_of(kept.boundaries);
        reconcile.records = kept.records;
        Ok(reconcile)
    }

    /// All tables of the copy as it will be, those included that were collected from another primary: what is to be compared.
    pub fn table_ids(&mut self) -> Result<Vec<TableId>> {
        let mut tables: Vec<_> = self.staged()?.fragments().iter().map(|fragment| fragment.table).collect();
        tables.dedup();
        Ok(tables)
    }

    /// Goes on with another base: what was replaced stays replaced.
    pub fn rebase(&mut self, base: Uid) -> Result<()> {
        self.store.hold_versions(Some(base));
        self.store.flush_all()?;
        self.base = base;
        self.staged = None;
        Ok(())
    }

    /// Records collected so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Has the records of some ranges of one table each take the place of what the copy has there. Ranges and records
    /// come in key order within a call, and each record lies in one of the ranges; records are puts at or below the
    /// base.
    pub fn replace(&mut self, ranges: &[(TableId, KeyRange)], records: &[Change]) -> Result<()> {
        self.staged = None;
        let mut records = records.iter().peekable();
        for (table, keys) in ranges {
            self.make_room(*table, keys)?;
            while let Some(record) = records.next_if(|one| one.table == *table && keys.contains(&one.key)) {
                self.add(record)?;
            }
            match &mut self.open {
                Some(open) => open.ranges.push(keys.clone()),
                None => self.replacement.pieces.insert(*table, keys, None),
            }
        }
        if records.next().is_some() {
            return Err(Error::Invalid("a record lies outside of the ranges that it came with".into()));
        }
        Ok(())
    }

    /// Ends the open run if the range cannot go on in it.
    fn make_room(&mut self, table: TableId, keys: &KeyRange) -> Result<()> {
        let bytes_max = self.store.options.run_file_bytes;
        let full = self.open.take_if(|open| {
            let behind = open.ranges.last().is_some_and(|last| last.is_below_end(&keys.start));
            open.table != table || behind || open.writer.bytes() >= bytes_max
        });
        full.map_or(Ok(()), |open| self.close(open))
    }

    fn add(&mut self, record: &Change) -> Result<()> {
        if record.kind != RecordKind::Put || record.uid > self.base {
            return Err(Error::Invalid(format!(
                "a range is replaced by live records at or below {}, not by one at {}",
                self.base, record.uid
            )));
        }
        if record.table == TableId::SYSTEM {
            // What came may be a share of something that is larger by far.
            let (key, row) = (Bytes::copy_from_slice(&record.key), Bytes::copy_from_slice(&record.row));
            self.replacement.boundaries.push((key, row));
        }
        let open = match &mut self.open {
            Some(open) => open,
            None => self.open.insert(Open {
                table: record.table,
                writer: self.store.new_run(true)?,
                ranges: Vec::new(),
            }),
        };
        open.writer.add(&record.key, record.uid, record.kind, &record.row)?;
        self.records += 1;
        Ok(())
    }

    fn close(&mut self, open: Open) -> Result<()> {
        let mut number = None;
        if let Some((run, unsynced)) = open.writer.end()? {
            let parts = self.store.adopt(&run);
            if parts.is_err() {
                self.store.discard(std::slice::from_ref(&run));
            }
            number = Some(self.replacement.runs.len());
            self.replacement.runs.push((run, parts?));
            self.unsynced.push(unsynced)?;
        }
        let mut ranges = open.ranges.into_iter().peekable();
        while let Some(mut keys) = ranges.next() {
            while let Some(next) = ranges.next_if(|next| keys.end.as_ref() == Some(&next.start)) {
                keys.end = next.end;
            }
            self.replacement.pieces.insert(open.table, &keys, number);
        }
        Ok(())
    }

    /// The fingerprint of a range as it will be: what was replaced in place of what it replaces, at the base.
    pub fn fingerprint(&mut self, table: TableId, keys: &KeyRange) -> Result<Fingerprint> {
        let base = self.base;
        let mut sum = Fingerprint::EMPTY;
        for fragment in self.staged()?.overlapping(table, keys) {
            sum += crate::read::fingerprint(fragment, keys, base)?;
        }
        Ok(sum)
    }

    /// The copy as it will be.
    fn staged(&mut self) -> Result<&StoreVersion> {
        if let Some(open) = self.open.take() {
            self.close(open)?;
        }
        if self.staged.is_none() {
            let version = self.store.pin().0;
            self.staged = Some(Store::replaced_version(&version, &self.replacement, self.base)?);
        }
        self.staged.as_ref().ok_or_else(|| Error::Invalid("a reconcile has no state".into()))
    }

    /// Keeps what was replaced so far over the end of the process. The collecting goes on. Whether it is kept: of very many files it
    /// is not, and what was kept before is.
    ///
    /// # Errors
    ///
    /// `Io`, `NoSpace`. What was kept before is still kept, or this is.
    pub fn keep(&mut self) -> Result<bool> {
        if let Some(open) = self.open.take() {
            self.close(open)?;
        }
        let pieces = self.replacement.pieces.iter();
        let record = |run: &NewRun| RunRecord { file: run.file, meta: run.meta.clone() };
        let kept = KeptRanges {
            base: self.base,
            records: self.records,
            boundaries: kept_boundaries(&self.replacement.boundaries),
            runs: self.replacement.runs.iter().map(|(run, _)| record(run)).collect(),
            pieces: pieces.map(|(table, keys, run)| (table, keys, run.map(|run| run as u32))).collect(),
        };
        let files: Vec<_> = kept.runs.iter().map(|run| run.file).collect();
        self.unsynced.sync()?;
        let written = self.store.keep_ranges(kept, self.portion.clone());
        if !matches!(written, Ok(false)) {
            // It may be on the disk though it says otherwise.
            self.marked.extend(files);
        }
        written
    }

    /// Drops what was replaced, and what was kept of it.
    ///
    /// # Errors
    ///
    /// `Io`. The next open removes what is left.
    pub fn abandon(mut self) -> Result<()> {
        self.store.keep_nothing()?;
        self.marked.clear();
        Ok(())
    }

    /// Installs what was replaced and the live commits behind it, for all fragments in one step, durably. Readers see
    /// the old cut until they see the new one. Version floor and mark floor rise to the cut.
    pub fn install(mut self, end: &RefreshEnd) -> Result<()> {
        let closed = self.open.take().map_or(Ok(()), |open| self.close(open));
        if let Err(error) = closed.and_then(|()| self.unsynced.sync()) {
            // The disk may be full, and have its room again. What is left goes when the store is opened next.
            let _ = self.abandon();
            return Err(error);
        }
        if end.base != self.base {
            return Err(Error::Invalid(format!(
                "ranges that were replaced at {} are installed at {}",
                self.base, end.base
            )));
        }
        self.staged = None;
        self.store.narrow_holding_to(end);
        let installed = self.store.install_replacement(&self.replacement, end);
        let unkept = self.store.keep_nothing();
        self.marked.clear();
        if installed.is_ok() {
            // They are part of the store now.
            self.replacement.runs.clear();
        }
        self.store.update_holding()?;
        installed.and(unkept)
    }
}

impl Drop for Reconcile {
    fn drop(&mut self) {
        self.store.hold_versions(None);
        // What the open writer wrote goes with it.
        self.open = None;
        let runs = self.replacement.runs.iter().map(|(run, _)| run);
        self.store.discard(runs.filter(|run| !self.marked.contains(&run.file)));
    }
}

impl std::fmt::Debug for Reconcile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reconcile")
            .field("base", &self.base)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}
