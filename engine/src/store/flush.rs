//! Memtables become runs.

use std::collections::VecDeque;

use planaria_types::{FileId, KeyRange, Uid};

use super::{Store, Writer};
use crate::cursor::{Cursor, RecordKind};
use crate::error::{Error, Result};
use crate::memtable::Memtable;
use crate::planted::planted;
use crate::run::{Codec, Run, RunIdentity, RunMeta, RunOptions, RunWriter, Unsynced};
use crate::sync::{Arc, Ordering};
use crate::version::{Fragment, Frozen, RunRef, StoreVersion, run_dir, run_path};

/// Memtables are measured whenever this part of their budget was logged.
const MEASURE_PARTS: u64 = 64;

/// Run files that are complete and not synced yet, so that they stay open.
const UNSYNCED_MAX: usize = 4;

/// What a merge may drop.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Retain {
    /// A version whose successor is at or below may go: nobody will read between them.
    pub(crate) versions: Uid,
    /// A delete mark at or below may go once nothing lies beneath it.
    pub(crate) marks: Uid,
    /// The highest delete mark that was dropped.
    pub(crate) marks_dropped: Uid,
    /// Reads at or above find all that they need.
    pub(crate) thinned_to: Uid,
}

impl Retain {
    /// Whether a version stays that is shadowed by `successor`, or by nothing in this merge. Notes what goes.
    pub(crate) fn keeps(&mut self, uid: Uid, kind: RecordKind, successor: Option<Uid>, bottom: bool) -> bool {
        match successor {
            Some(successor) if successor <= self.versions => {
                self.thinned_to = self.thinned_to.max(successor);
                false
            }
            None if bottom && kind == RecordKind::Delete && uid <= self.marks && uid <= self.versions => {
                self.marks_dropped = self.marks_dropped.max(uid);
                false
            }
            _ => true,
        }
    }
}

impl Store {
    /// Freezes the largest memtable if all of them together are over their budget. Cheap enough for every commit.
    pub(super) fn rotate_if_full(&self, logged_bytes: usize) {
        let unmeasured = self.unmeasured.fetch_add(logged_bytes as u64, Ordering::Relaxed);
        if unmeasured < self.options.memtable_bytes as u64 / MEASURE_PARTS {
            return;
        }
        self.unmeasured.store(0, Ordering::Relaxed);
        let version = self.published.version();
        let bytes: usize = version.fragments().iter().map(|fragment| fragment.active.bytes()).sum();
        if bytes < self.options.memtable_bytes {
            return;
        }
        let largest = version.fragments().iter().max_by_key(|fragment| fragment.active.bytes());
        if let Some(id) = largest.map(|fragment| fragment.id) {
            self.freeze(|fragment| fragment.id == id);
        }
    }

    /// Freezes the memtables of the chosen fragments and wakes the flush.
    pub(crate) fn freeze(&self, chosen: impl Fn(&Fragment) -> bool) {
        self.freeze_at(&self.lock_writer(), chosen);
        self.work.signal_flush();
    }

    /// Freezes the memtables of the chosen fragments where the log ends now. The caller is the writer.
    fn freeze_at(&self, writer: &Writer, chosen: impl Fn(&Fragment) -> bool) {
        self.published.replace(|version| {
            let frozen: Vec<_> = version
                .fragments()
                .iter()
                .filter(|fragment| fragment.active.records() > 0 && chosen(fragment))
                .map(|fragment| {
                    let mut new = Fragment::clone(fragment);
                    new.frozen.push(Frozen { memtable: Arc::clone(&fragment.active), upto: writer.last });
                    new.active = Arc::new(Memtable::new());
                    Arc::new(new)
                })
                .collect();
            let ids: Vec<_> = frozen.iter().map(|fragment| fragment.id).collect();
            (!ids.is_empty()).then(|| version.replace(&ids, frozen))
        });
    }

    /// Writes everything in memory out as runs, and leaves the log behind that held it.
    pub(crate) fn write_out(&self) -> Result<()> {
        match self.begin_short_segment() {
            // Where there is no room for a segment, the one that is there goes on.
            Ok(()) | Err(Error::NoSpace { .. }) => self.flush_all(),
            Err(error) => Err(error),
        }
    }

    /// Writes everything in memory out as runs.
    pub(crate) fn flush_all(&self) -> Result<()> {
        self.freeze(|_| true);
        while self.flush_oldest()? {}
        Ok(())
    }

    /// Writes everything in memory out as runs while no commit can come. The caller is the writer.
    pub(super) fn flush_at(&self, writer: &Writer) -> Result<()> {
        self.freeze_at(writer, |_| true);
        while self.flush_oldest()? {}
        Ok(())
    }

    /// Writes the memtable with the oldest log segment out; `false` if none waits.
    pub(super) fn flush_oldest(&self) -> Result<bool> {
        let _one_at_a_time = self.work.flushing();
        let version = self.published.version();
        let oldest = version
            .fragments()
            .iter()
            .filter_map(|fragment| fragment.frozen.first())
            .min_by_key(|frozen| frozen.memtable.first_segment());
        let Some(oldest) = oldest.cloned() else { return Ok(false) };
        let mut retain = self.retain();
        let outputs: Vec<_> = self.write_memtable(&version, &oldest, &mut retain)?.into_iter().collect();
        self.install(
            &outputs,
            |version, new| flushed_version(version, &oldest, new.first()),
            |group| self.raise_floors(group, &retain),
        )?;
        self.work.flushed();
        Ok(true)
    }

    /// Writes a memtable out as one run; `None` if retention leaves nothing of it.
    fn write_memtable(
        &self,
        version: &StoreVersion,
        frozen: &Frozen,
        retain: &mut Retain,
    ) -> Result<Option<NewRun>> {
        let mut cursor = frozen.memtable.cursor(None);
        cursor.seek_to_last()?;
        if !cursor.is_valid() {
            return Ok(None);
        }
        let last = cursor.key().to_vec();
        cursor.seek_to_first()?;
        let keys = KeyRange::inclusive(cursor.key(), &last);
        let bottom = holders(version, &frozen.memtable).all(|fragment| lies_at_bottom(fragment, &keys));
        let mut writer = self.new_run(bottom)?;
        let mut key = Vec::new();
        let mut successor = None;
        while cursor.is_valid() {
            if cursor.key() != key.as_slice() || successor.is_none() {
                key.clear();
                key.extend_from_slice(cursor.key());
                successor = None;
            }
            let (uid, kind) = (cursor.uid(), cursor.kind());
            if retain.keeps(uid, kind, successor, bottom) {
                writer.add(&key, uid, kind, cursor.row_ref())?;
            }
            successor = Some(uid);
            cursor.next()?;
        }
        writer.finish()
    }

    /// A new run file, not yet part of the store.
    pub(crate) fn new_run(&self, bottom: bool) -> Result<NewRunWriter> {
        self.create_run(RunOptions {
            codec: if bottom { self.options.bottom_codec } else { Codec::None },
            block_bytes: self.options.block_bytes,
            fingerprints: bottom,
            ..RunOptions::default()
        })
    }

    /// A new run file for records of one commit that has no UID yet: they are added at UID zero. It is compressed as
    /// at the bottom, where most of such files go.
    pub(crate) fn new_run_of_one_commit(&self) -> Result<NewRunWriter> {
        self.create_run(RunOptions {
            codec: self.options.bottom_codec,
            block_bytes: self.options.block_bytes,
            one_commit: true,
            ..RunOptions::default()
        })
    }

    fn create_run(&self, options: RunOptions) -> Result<NewRunWriter> {
        let file = FileId(self.next_file.fetch_add(1, Ordering::AcqRel));
        let path = run_path(&self.dir, file);
        let identity = RunIdentity { store: self.instance(), file };
        let writer = RunWriter::create(&self.options.os, &path, identity, options)?;
        Ok(NewRunWriter { writer: Some(writer), file, records: 0 })
    }

    /// Opens a finished run file under its number here.
    pub(crate) fn open_run(&self, file: FileId, meta: &RunMeta) -> Result<Arc<Run>> {
        let path = run_path(&self.dir, file);
        Run::open(&self.options.os, &path, meta.identity, meta, &self.cache, self.options.read_mode)
    }

    /// Makes the names of new run files durable.
    pub(crate) fn sync_run_dir(&self) -> Result<()> {
        if planted!(self.options, SkipRunDirSync) {
            return Ok(());
        }
        let dir = run_dir(&self.dir);
        self.options.os.sync_dir(&dir).map_err(Self::io("sync", &dir))
    }

    /// Opens what writers finished.
    pub(crate) fn adopt(&self, finished: &NewRun) -> Result<RunRefParts> {
        let run = self.open_run(finished.file, &finished.meta)?;
        // Known by now, no clone waits for it. What cannot be read is found by whoever needs it.
        let _ = run.hashes_as_it_lies();
        let keys = KeyRange::inclusive(&finished.meta.smallest_key, &finished.meta.largest_key);
        Ok(RunRefParts { file: finished.file, run, keys })
    }

    /// Removes run files that did not become part of the store. Once it is not known whether the manifest on disk
    /// names them, they stay: the next open removes what is garbage.
    pub(crate) fn discard<'a>(&self, outputs: impl IntoIterator<Item = &'a NewRun>) {
        if self.check_sound().is_err() {
            return;
        }
        for output in outputs {
            // A file that stays behind is garbage that the next open removes.
            let _ = self.options.os.remove_file(&run_path(&self.dir, output.file));
        }
    }
}

/// A run file in the making. Dropping it removes the file.
pub(crate) struct NewRunWriter {
    /// There until the file is complete.
    writer: Option<RunWriter>,
    file: FileId,
    records: u64,
}

impl NewRunWriter {
    pub(crate) fn add(&mut self, key: &[u8], uid: Uid, kind: RecordKind, row: &[u8]) -> Result<()> {
        self.records += 1;
        match &mut self.writer {
            Some(writer) => writer.add(key, uid, kind, row),
            None => Err(Error::Invalid("a run that is complete takes no more records".into())),
        }
    }

    /// Bytes so far, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.writer.as_ref().map_or(0, RunWriter::estimated_bytes)
    }

    /// Completes and syncs the file; `None`, and no file, if nothing was added.
    pub(crate) fn finish(mut self) -> Result<Option<NewRun>> {
        let Some(writer) = self.writer.take_if(|_| self.records > 0) else { return Ok(None) };
        Ok(Some(NewRun { file: self.file, meta: writer.finish()? }))
    }

    /// As [`Self::finish`], but for the sync.
    pub(crate) fn end(mut self) -> Result<Option<(NewRun, Unsynced)>> {
        let Some(writer) = self.writer.take_if(|_| self.records > 0) else { return Ok(None) };
        let (meta, unsynced) = writer.end()?;
        Ok(Some((NewRun { file: self.file, meta }, unsynced)))
    }
}

impl Drop for NewRunWriter {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            // A file that stays behind is garbage that the next open removes.
            let _ = writer.discard();
        }
    }
}

/// Complete run files that are synced before anything names them. The system writes them meanwhile, so that a sync waits for
/// little: whoever makes one file behind the other does not wait for the disk after each.
#[derive(Debug, Default)]
pub(crate) struct UnsyncedRuns {
    files: VecDeque<Unsynced>,
    /// Why one of them may not be durable, though a later sync says that all is well.
    failed: Option<Error>,
}

impl UnsyncedRuns {
    /// Adds one; of too many, syncs the oldest.
    pub(crate) fn push(&mut self, file: Unsynced) -> Result<()> {
        self.files.push_back(file);
        self.sync_but(UNSYNCED_MAX)
    }

    /// Syncs all of them. After an error it is not known what is durable: none of them may be named, and no later sync succeeds.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.sync_but(0)
    }

    fn sync_but(&mut self, count: usize) -> Result<()> {
        let mut files = self.files.drain(..self.files.len().saturating_sub(count));
        let synced = files.try_for_each(Unsynced::sync);
        drop(files);
        self.failed = self.failed.take().or(synced.err());
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Nobody will name them.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// A finished run file that is not part of the store yet.
#[derive(Clone, Debug)]
pub(crate) struct NewRun {
    pub(crate) file: FileId,
    pub(crate) meta: RunMeta,
}

/// An opened run with its keys: a reference but for the interval.
#[derive(Clone, Debug)]
pub(crate) struct RunRefParts {
    pub(crate) file: FileId,
    pub(crate) run: Arc<Run>,
    pub(crate) keys: KeyRange,
}

impl RunRefParts {
    pub(crate) fn reference(&self, keys: KeyRange, above: Uid, upto: Uid) -> RunRef {
        RunRef { file: self.file, run: Arc::clone(&self.run), keys, above, upto }
    }
}

/// The fragments that show a memtable: one, or, after splits, several.
fn holders<'a>(
    version: &'a StoreVersion,
    memtable: &'a Arc<Memtable>,
) -> impl Iterator<Item = &'a Arc<Fragment>> {
    version
        .fragments()
        .iter()
        .filter(|fragment| fragment.frozen.iter().any(|frozen| Arc::ptr_eq(&frozen.memtable, memtable)))
}

/// Whether nothing of the fragment's runs lies beneath `keys`.
pub(crate) fn lies_at_bottom(fragment: &Fragment, keys: &KeyRange) -> bool {
    !fragment.references().any(|reference| reference.keys.overlaps(keys))
}

/// `version` with a memtable replaced by the run that it was written to.
fn flushed_version(
    version: &StoreVersion,
    frozen: &Frozen,
    new: Option<&RunRefParts>,
) -> Result<StoreVersion> {
    let mut changed = Vec::new();
    for fragment in holders(version, &frozen.memtable) {
        let mut next = Fragment::clone(fragment);
        next.frozen.retain(|other| !Arc::ptr_eq(&other.memtable, &frozen.memtable));
        if let Some((parts, keys)) =
            new.and_then(|parts| Some((parts, parts.keys.intersect(&fragment.range)?)))
        {
            let above = if lies_at_bottom(fragment, &keys) { Uid::ZERO } else { fragment.flushed };
            let mut references: Vec<_> = next.references().cloned().collect();
            references.push(parts.reference(keys, above, frozen.upto));
            next.set_references(references)?;
        }
        next.flushed = frozen.upto;
        changed.push(Arc::new(next));
    }
    let ids: Vec<_> = changed.iter().map(|fragment| fragment.id).collect();
    if ids.is_empty() {
        return Err(Error::Invalid("a memtable was written out that nobody shows".into()));
    }
    Ok(version.replace(&ids, changed))
}
