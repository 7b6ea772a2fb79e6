//! The storage side of replication: what a secondary does with what its primary sends, and what a primary tells.

use std::collections::HashSet;

use bytes::Bytes;
use planaria_types::{Epoch, FileId, History, HistoryHash, Portion, Position, TableId, Uid};
use serde::{Deserialize, Serialize};

use crate::commit::LoggedCommit;
use crate::cursor::RecordKind;
use crate::database::{Database, Snapshot};
use crate::error::{Error, Result};
use crate::read::{Change, Changes};
use crate::store::{
    Changed, Install, KeptRefresh, KeptRun, NewRun, NewRunWriter, Store, UnsyncedRuns, boundaries_of,
    kept_boundaries,
};
use crate::sync::Arc;
use crate::version::Role;

/// A part of a delta: the changes of some keys, and where to go on.
#[derive(Clone, Debug)]
pub struct ChangeChunk {
    /// The cut at which the records are the newest.
    pub at: Uid,
    /// The records, in (table, key) order.
    pub changes: Vec<Change>,
    /// The first (table, key) that was not looked at; `None` at the end.
    pub next: Option<(TableId, Bytes)>,
}

impl Snapshot {
    /// The records whose newest version is above `since`, from (table, key) on, about `bytes_max` of keys and rows. On a
    /// partial copy those that it holds: whoever needs all of them asks [`Database::check_whole`] before.
    pub fn changes(&self, since: Uid, from: (TableId, &[u8]), bytes_max: usize) -> Result<ChangeChunk> {
        let mut changes = Changes::new(Arc::clone(self.version()), since, self.uid(), from.0, from.1);
        let mut chunk = ChangeChunk { at: self.uid(), changes: Vec::new(), next: None };
        let mut bytes = 0;
        while let Some(change) = changes.next()? {
            if bytes >= bytes_max {
                chunk.next = Some((change.table, change.key));
                break;
            }
            bytes += change.key.len() + change.row.len();
            chunk.changes.push(change);
        }
        Ok(chunk)
    }

    /// The newest version of a record: its row, a delete mark, or, for a record that was never there or whose mark is
    /// gone, a delete at UID zero.
    ///
    /// # Errors
    ///
    /// `NotHeld` on a partial copy that does not hold the key.
    pub fn state_of(&self, table: TableId, key: &[u8]) -> Result<Change> {
        self.check_key_held(table, key)?;
        let newest = self.newest(table, key)?;
        let absent = crate::Version { uid: Uid::ZERO, kind: RecordKind::Delete, row: Bytes::new() };
        let version = newest.unwrap_or(absent);
        let key = Bytes::copy_from_slice(key);
        Ok(Change { table, key, uid: version.uid, kind: version.kind, row: version.row })
    }
}

impl Database {
    /// The epochs of the group.
    pub fn history(&self) -> History {
        self.store().group(|group| group.history.clone())
    }

    /// No delete mark above it has been dropped: a delta from any position at or above it is complete.
    pub fn mark_floor(&self) -> Uid {
        self.store().group(|group| group.mark_floor)
    }

    /// Taking back works at or above it.
    pub fn version_floor(&self) -> Uid {
        self.store().group(|group| group.version_floor)
    }

    /// Keeps what the given positions need: no floor passes `stable`, the lowest durable position in the promotable
    /// set, and no delete mark above `preserved`, the lowest position of a registered secondary, goes.
    pub fn set_floors(&self, stable: Option<Uid>, preserved: Option<Uid>) {
        self.set_floors_apart(stable, stable, preserved);
    }

    /// As [`Database::set_floors`], for a promotable set of which some are away: old versions are kept above `versions` alone,
    /// the lowest durable position of those that are here. A fork below it is rewound to, which takes the marks that are kept.
    pub fn set_floors_apart(&self, versions: Option<Uid>, stable: Option<Uid>, preserved: Option<Uid>) {
        let mut floors = self.store().floors.lock();
        floors.versions = versions;
        floors.stable = stable;
        floors.preserved = preserved;
    }

    /// Logs commits of the primary, which must follow the last one here and lead to the hashes they state. They are
    /// neither durable nor visible until [`Database::sync`] and [`Database::show`].
    ///
    /// # Errors
    ///
    /// `Gap` if a commit is missing, `Invalid` if the histories differ; nothing of the call is logged then.
    pub fn append_replicated(&self, commits: &[LoggedCommit]) -> Result<()> {
        self.store().append_replicated(commits)
    }

    /// Shows readers of a secondary everything at or below `cut` that is durable here. Returns the visible cut.
    pub fn show(&self, cut: Uid) -> Result<Uid> {
        self.store().show(cut)
    }

    /// Makes an empty or existing copy a secondary of the given database, durably.
    ///
    /// # Errors
    ///
    /// `Invalid` if the copy holds commits of another database.
    pub fn become_secondary(&self, database: planaria_types::DatabaseId) -> Result<()> {
        self.store().become_secondary(database)
    }

    /// Adopts the primary's history, durably, before anything is acknowledged under its epoch.
    pub fn adopt_history(&self, history: &History) -> Result<()> {
        if self.history() == *history {
            return Ok(());
        }
        self.store().edit_group(|group| {
            group.history = history.clone();
            Ok(())
        })
    }

    /// The epoch that runs now.
    pub fn epoch(&self) -> Epoch {
        self.store().group(|group| group.history.current())
    }

    /// Takes back everything above `fork`, whose history hash is `hash`: those commits are another primary's past.
    ///
    /// # Errors
    ///
    /// `SnapshotTooOld` if older versions that would have to show again are gone.
    pub fn take_back(&self, fork: Position, hash: HistoryHash) -> Result<()> {
        self.store().take_back(fork, hash)
    }

    /// Begins a refresh: records that this copy lacks are collected, to be installed in one step. Readers go on at
    /// the old cut.
    ///
    /// With `rewind_to`, what the copy holds above that UID is another primary's past: it disappears with the
    /// installation, and [`Refresh::add_state`] brings the states of its keys.
    pub fn begin_refresh(&self, rewind_to: Option<Uid>) -> Result<Refresh> {
        if self.role() != Role::Secondary {
            return Err(Error::Invalid("a primary is not refreshed".into()));
        }
        self.store().drop_kept()?;
        // It goes to the disk while the records come, and is there at the installation.
        self.store().freeze(|_| true);
        let from = rewind_to.unwrap_or(self.store().log_end().0);
        let mut refresh = Refresh::new(self.store(), from);
        refresh.rewinds = rewind_to.is_some();
        Ok(refresh)
    }

    /// A refresh that was interrupted by the end of a process, and how far it had come; none if none is kept, or the copy has
    /// moved on. There is one of them: nobody else may have it, or collect another one.
    pub fn kept_refresh(&self) -> Option<(Refresh, RefreshMark)> {
        let (kept, portion) = self.store().kept_refresh()?;
        let mut refresh = Refresh::new(self.store(), kept.from).holding(portion);
        refresh.marked = kept.files().collect();
        refresh.resumed = Some(((kept.mark.table, kept.mark.key.clone().into()), kept.mark.base));
        refresh.boundaries = boundaries_of(kept.boundaries);
        refresh.records = kept.records;
        refresh.kept = kept.runs.into_iter().map(KeptRun::changed).collect();
        Some((refresh, kept.mark))
    }
}

/// How far a refresh has come that goes on from the newest states of records.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RefreshMark {
    /// Up to this key of this table, in the order of tables and keys, everything is there that changed ...
    pub table: TableId,
    /// (at most 64 KiB)
    pub key: Vec<u8>,
    /// ... up to this position.
    pub base: Uid,
    /// The highest position that was read at.
    pub read_at: Position,
    /// What was taken in so far, in bytes of keys and rows.
    pub bytes: u64,
}

/// A refresh that is being collected. Dropping it leaves the copy as it was; what was marked is kept for a later process.
pub struct Refresh {
    store: Arc<Store>,
    from: Uid,
    rewinds: bool,
    open: Option<(TableId, NewRunWriter, Uid)>,
    /// States of keys that are rewound, as far as the delta does not bring them.
    rewind: Option<Vec<Change>>,
    outputs: Vec<Changed>,
    unsynced: UnsyncedRuns,
    /// Those of rounds that were interrupted, oldest first.
    kept: Vec<Changed>,
    /// Up to which key they have everything that changed, and up to which UID.
    resumed: Option<(Place, Uid)>,
    boundaries: Vec<(Bytes, Bytes)>,
    last: Option<(TableId, Vec<u8>)>,
    records: u64,
    /// Run files that a later process would go on from.
    marked: HashSet<FileId>,
    /// What is to be held of it, if the copy is partial.
    portion: Option<Portion>,
}

/// A key and the table that it is of, in the order in which records are collected.
type Place = (TableId, Bytes);

/// Where a refresh leads.
#[derive(Clone, Debug)]
pub struct RefreshEnd {
    /// Everything at or below is complete with what was collected: the UID at which the live commits begin.
    pub base: Uid,
    /// The history hash at `base`.
    pub base_hash: HistoryHash,
    /// The primary's history.
    pub history: History,
    /// The live commits above `base`, in order.
    pub live: Vec<LoggedCommit>,
    /// The highest cut at which records were collected: no cut between the old one and this one is readable.
    pub sparse_to: Uid,
    /// The cut to show, at or above `sparse_to` and at or below the end of `live`.
    pub cut: Uid,
    /// What a partial copy holds from then on.
    pub portion: Option<Portion>,
}

impl Refresh {
    fn new(store: &Arc<Store>, from: Uid) -> Self {
        Self {
            store: Arc::clone(store),
            from,
            rewinds: false,
            open: None,
            rewind: None,
            outputs: Vec::new(),
            unsynced: UnsyncedRuns::default(),
            kept: Vec::new(),
            resumed: None,
            boundaries: Vec::new(),
            last: None,
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

    /// What was to be held of it, if the copy is partial. With another portion one does not go on from it: other records are missing.
    pub fn portion(&self) -> Option<&Portion> {
        self.portion.as_ref()
    }

    /// The state that the refresh builds on.
    pub fn from(&self) -> Uid {
        self.from
    }

    /// Records collected so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Adds a changed record. Records come in (table, key) order.
    pub fn add(&mut self, change: &Change) -> Result<()> {
        let place = (change.table, &change.key[..]);
        if self.last.as_ref().is_some_and(|(table, key)| (*table, &key[..]) >= place) {
            return Err(Error::Invalid("records of a refresh come in the order of their keys".into()));
        }
        if change.table == TableId::SYSTEM && change.kind == RecordKind::Put {
            // What came may be a share of something that is larger by far.
            let (key, row) = (Bytes::copy_from_slice(&change.key), Bytes::copy_from_slice(&change.row));
            self.boundaries.push((key, row));
        }
        // What an interrupted round has brought up to here lies beneath.
        let is_new = |((table, key), _): &&(Place, Uid)| place <= (*table, &key[..]);
        let above = self.resumed.as_ref().filter(is_new).map_or(self.from, |(_, at)| *at);
        let full = self.open.take_if(|(table, writer, beneath)| {
            *table != change.table || *beneath != above || writer.bytes() >= self.store.options.run_file_bytes
        });
        self.close(full)?;
        let writer = match &mut self.open {
            Some((_, writer, _)) => writer,
            None => &mut self.open.insert((change.table, self.store.new_run(false)?, above)).1,
        };
        writer.add(&change.key, change.uid, change.kind, &change.row)?;
        self.records += 1;
        if let Some((table, key)) = &mut self.last {
            *table = change.table;
            key.clear();
            key.extend_from_slice(&change.key);
        } else {
            self.last = Some((change.table, change.key.to_vec()));
        }
        Ok(())
    }

    /// Adds the newest state of a key that the copy changed beyond the fork: what the primary had of it, or, at UID
    /// zero, nothing.
    pub fn add_state(&mut self, state: &Change) -> Result<()> {
        if !self.rewinds {
            return Err(Error::Invalid("states are of use for a rewind alone".into()));
        }
        // What is newer than the fork comes with the delta.
        if state.uid <= self.from {
            // It is kept until the installation, and may be a share of all that came with it.
            let (key, row) = (Bytes::copy_from_slice(&state.key), Bytes::copy_from_slice(&state.row));
            let Change { table, uid, kind, .. } = *state;
            self.rewind.get_or_insert_default().push(Change { table, key, uid, kind, row });
            self.records += 1;
        }
        Ok(())
    }

    /// The states, each key once.
    fn states(&mut self) -> Vec<Change> {
        let mut states = self.rewind.take().unwrap_or_default();
        states.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
        states.dedup_by(|a, b| (a.table, &a.key) == (b.table, &b.key));
        states
    }

    /// Writes states down: as they are, or, where there is nothing, as a mark right above the fork.
    fn write_states(&self, states: &[Change]) -> Result<Vec<(TableId, NewRun)>> {
        let mut runs = Vec::new();
        for of_table in states.chunk_by(|a, b| a.table == b.table) {
            let mut writer = self.store.new_run(false)?;
            for state in of_table {
                let uid = if state.uid == Uid::ZERO { self.from.next() } else { state.uid };
                writer.add(&state.key, uid, state.kind, &state.row)?;
            }
            let table = of_table.first().map_or(TableId::SYSTEM, |state| state.table);
            runs.extend(writer.finish()?.map(|run| (table, run)));
        }
        Ok(runs)
    }

    fn close(&mut self, full: Option<(TableId, NewRunWriter, Uid)>) -> Result<()> {
        if let Some((table, writer, above)) = full
            && let Some((run, unsynced)) = writer.end()?
        {
            self.outputs.push(Changed { table, run, above, upto: None });
            self.unsynced.push(unsynced)?;
        }
        Ok(())
    }

    /// Keeps what was added so far over the end of the process: it is everything up to a key and a position. The collecting goes
    /// on. Whether it is kept: of very many files it is not, and what was kept before is.
    ///
    /// # Errors
    ///
    /// `Invalid` for a rewind, `Io`, `NoSpace`. What was kept before is still kept, or this is.
    pub fn keep(&mut self, mark: &RefreshMark) -> Result<bool> {
        if self.rewinds {
            return Err(Error::Invalid("of a rewind nothing is kept".into()));
        }
        let open = self.open.take();
        self.close(open)?;
        let (from, hash) = self.store.log_end();
        if from != self.from {
            return Err(Error::Gap { got: mark.base, named: self.from, have: from });
        }
        let kept = KeptRefresh {
            from,
            hash,
            mark: mark.clone(),
            records: self.records,
            boundaries: kept_boundaries(&self.boundaries),
            runs: self.kept.iter().chain(&self.outputs).map(|run| KeptRun::of(run, mark.base)).collect(),
        };
        let files: Vec<_> = kept.files().collect();
        self.unsynced.sync()?;
        let written = self.store.keep_refresh(kept, self.portion.clone());
        if !matches!(written, Ok(false)) {
            // It may be on the disk though it says otherwise.
            self.marked.extend(files);
        }
        written
    }

    /// Interrupts the collecting, to go on with it later from the first key, also in another process. With a mark, what was added
    /// is kept: it is everything up to that. Without, it is dropped, and what was kept before stays.
    ///
    /// # Errors
    ///
    /// As [`Refresh::keep`].
    pub fn suspend(&mut self, reached: Option<&RefreshMark>) -> Result<()> {
        let open = self.open.take();
        self.close(open)?;
        if let Some(mark) = reached {
            self.keep(mark)?;
        }
        self.last = None;
        let outputs = std::mem::take(&mut self.outputs);
        let Some(mark) = reached else {
            let runs = outputs.iter().map(|output| &output.run);
            self.unsynced.forget();
            self.store.discard(runs.filter(|run| !self.marked.contains(&run.file)));
            return Ok(());
        };
        self.kept.extend(outputs.into_iter().map(|output| Changed { upto: Some(mark.base), ..output }));
        self.resumed = Some(((mark.table, mark.key.clone().into()), mark.base));
        Ok(())
    }

    /// Drops what was collected, and what was kept of it.
    ///
    /// # Errors
    ///
    /// `Io`. The next open removes what is left.
    pub fn abandon(mut self) -> Result<()> {
        self.store.keep_nothing()?;
        self.marked.clear();
        Ok(())
    }

    /// Installs what was collected and the live commits behind it, for all fragments in one step, durably. Readers
    /// see the old cut until they see the new one.
    pub fn install(mut self, end: &RefreshEnd) -> Result<()> {
        let open = self.open.take();
        if let Err(error) = self.close(open).and_then(|()| self.unsynced.sync()) {
            // The disk may be full, and have its room again. What is left goes when the store is opened next.
            let _ = self.abandon();
            return Err(error);
        }
        let states = self.states();
        // Where the live commits begin right at the fork, states have no interval of their own.
        let is_narrow = end.base <= self.from.next() && self.outputs.is_empty() && self.kept.is_empty();
        let (states, beneath) =
            if is_narrow { (Vec::new(), states) } else { (self.write_states(&states)?, Vec::new()) };
        let install = Install {
            states,
            beneath,
            rewinds: self.rewinds,
            from: self.from,
            outputs: std::mem::take(&mut self.kept)
                .into_iter()
                .chain(std::mem::take(&mut self.outputs))
                .collect(),
            boundaries: std::mem::take(&mut self.boundaries),
        };
        self.store.narrow_holding_to(end);
        // Its run files are part of the store then, or gone.
        let installed = self.store.install_refresh(&install, end);
        let unkept = self.store.keep_nothing();
        self.store.update_holding()?;
        installed.and(unkept)
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        // An unfinished file is garbage, which the next open removes if it cannot be removed now.
        let open = self.open.take();
        let _ = self.close(open);
        let runs = self.outputs.iter().chain(&self.kept).map(|output| &output.run);
        self.store.discard(runs.filter(|run| !self.marked.contains(&run.file)));
    }
}

impl std::fmt::Debug for Refresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refresh")
            .field("from", &self.from)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}
