//! Changes of the structure: the manifest first, durably, then what readers see.

use planaria_types::{Epoch, EpochOrder, FileId, HistoryEntry, InstanceId};

use super::flush::{NewRun, RunRefParts};
use super::{Gate, Store, Writer};
use crate::error::{Error, Result};
use crate::planted::planted;
use crate::sync::{MutexGuard, Ordering};
use crate::version::{
    FragmentRecord, GroupRecord, Lineage, Manifest, Role, RunRecord, RunRef, SegmentRecord, StoreVersion,
};

impl Store {
    /// Makes new run files and a new arrangement of runs part of the store: the files' names are synced, the log is
    /// synced (a run may hold what it has not made durable yet), the manifest is written, and readers see the change.
    /// `change` is called twice, the second time with what the commit leader has frozen meanwhile.
    ///
    /// If anything fails before the manifest is in place, the new files are removed and nothing has changed.
    pub(crate) fn install(
        &self,
        outputs: &[NewRun],
        change: impl Fn(&StoreVersion, &[RunRefParts]) -> Result<StoreVersion>,
        group: impl FnOnce(&mut GroupRecord),
    ) -> Result<()> {
        let open = self.work().check_open();
        let installed = open.and_then(|()| self.prepare(outputs)).and_then(|new| {
            let mut structure = self.lock_structure();
            let next = change(&self.pin().0, &new)?;
            let mut manifest = self.describe(&structure, &next);
            group(&mut manifest.group);
            self.write_manifest(&manifest)?;
            // Fragments come and go under the lock that is held here, so what fitted once fits again.
            let old = self.published.replace(|version| change(version, &new).ok());
            let old =
                old.ok_or_else(|| self.poison("the fragments changed while a manifest was written".into()))?;
            self.after_write(&mut structure, manifest, &old);
            Ok(())
        });
        if installed.is_err() {
            self.discard(outputs);
        }
        installed
    }

    fn prepare(&self, outputs: &[NewRun]) -> Result<Vec<RunRefParts>> {
        let new = outputs.iter().map(|output| self.adopt(output)).collect::<Result<_>>()?;
        if !outputs.is_empty() {
            self.sync_run_dir()?;
        }
        self.sync_log()?;
        Ok(new)
    }

    pub(crate) fn lock_structure(&self) -> MutexGuard<'_, Manifest> {
        self.structure.lock()
    }

    /// The manifest of `version`, as the next generation of `last`.
    pub(crate) fn describe(&self, last: &Manifest, version: &StoreVersion) -> Manifest {
        let segments = self.segments.lock().clone();
        let current = segments.back().map_or(last.log_start, |segment| segment.number);
        let log_start = if planted!(self.options, ReleaseLogEarly) {
            current
        } else {
            version.fragments().iter().map(|fragment| fragment.first_segment()).fold(current, u64::min)
        };
        let mut manifest = Manifest {
            generation: last.generation + 1,
            next_file: self.next_file.load(Ordering::Acquire),
            next_fragment: self.next_fragment.load(Ordering::Acquire),
            fragments: version
                .fragments()
                .iter()
                .map(|fragment| FragmentRecord {
                    id: fragment.id,
                    table: fragment.table,
                    range: fragment.range.clone(),
                    flushed: fragment.flushed,
                    references: fragment.references().map(RunRef::record).collect(),
                })
                .collect(),
            runs: run_records(version),
            log_start,
            segments: self.retained_segments(log_start, segments.into()),
            ..last.clone()
        };
        manifest.group.visible = manifest.group.visible.max(self.visible());
        manifest.group.reserved = planaria_types::Uid::new(self.reserved.load(Ordering::Acquire));
        manifest
    }

    /// The segments that are kept: what recovery needs, and before that as much tail as the options allow, by the lengths of the
    /// files. The newest one, which commits go to, is no part of the tail.
    fn retained_segments(&self, log_start: u64, mut segments: Vec<SegmentRecord>) -> Vec<SegmentRecord> {
        let on_disk = self.log.segments();
        let newest = on_disk.last().map_or(0, |segment| segment.number);
        let mut room = self.options.log_tail_bytes;
        let tail = on_disk.iter().rev().skip(1).take_while(|segment| {
            let fits = segment.file_bytes <= room;
            room = room.saturating_sub(segment.file_bytes);
            fits
        });
        let from = log_start.min(tail.last().map_or(newest, |segment| segment.number));
        segments.retain(|segment| segment.number >= from);
        segments
    }

    /// Lets go of what the new manifest does not name any more.
    pub(super) fn after_write(&self, structure: &mut Manifest, manifest: Manifest, old: &StoreVersion) {
        let kept: std::collections::HashSet<FileId> = manifest.runs.iter().map(|run| run.file).collect();
        for reference in old.fragments().iter().flat_map(|fragment| fragment.references()) {
            if !kept.contains(&reference.file) {
                // The file goes when the last reader lets go of it.
                reference.run.mark_obsolete();
            }
        }
        if let Some(first) = manifest.segments.first() {
            self.segments.lock().retain(|segment| segment.number >= first.number);
            // What could not be removed is tried again with the next release.
            let _ = self.log.release(first.number);
        }
        *structure = manifest;
    }

    /// This copy's name.
    pub(crate) fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Begins this start's epoch as a primary, durably, unless it has begun.
    pub(super) fn begin_epoch_if_due(&self, writer: &Writer) -> Result<()> {
        if self.epoch_begun.load(Ordering::Acquire) {
            return Ok(());
        }
        self.begin_next_epoch(writer)?;
        self.epoch_begun.store(true, Ordering::Release);
        Ok(())
    }

    fn begin_next_epoch(&self, writer: &Writer) -> Result<()> {
        // A commit that only the lost process knew may be durable without this start having synced it.
        self.sync_log()?;
        let mut structure = self.lock_structure();
        let last = structure.group.history.current();
        let epoch = Epoch {
            term: last.term.max(1),
            incarnation: last.incarnation + 1,
            nonce: self.options.os.random_u64(),
        };
        self.write_epoch(&mut structure, epoch, writer)
    }

    fn write_epoch(&self, structure: &mut Manifest, epoch: Epoch, writer: &Writer) -> Result<()> {
        let mut manifest = Manifest { generation: structure.generation + 1, ..structure.clone() };
        let entry = HistoryEntry { epoch, inherited: writer.last, hash: writer.hash };
        manifest.group.history.push(entry).map_err(|entry| {
            Error::Invalid(format!("epoch {} does not follow the history of this copy", entry.epoch))
        })?;
        self.write_manifest(&manifest)?;
        *structure = manifest;
        Ok(())
    }

    /// Makes a secondary the primary, under `epoch`; see [`crate::Database::promote`].
    pub(crate) fn promote(&self, epoch: Epoch) -> Result<()> {
        self.work().check_open()?;
        self.check_whole("cannot lead")?;
        let writer = self.lock_writer();
        if self.role() == Role::Primary {
            return Err(Error::Invalid("this copy leads already".into()));
        }
        // Everything that is in the log is inherited, shown yet or not.
        self.sync_log()?;
        let mut structure = self.lock_structure();
        if structure.group.promised.order(&epoch) == EpochOrder::Newer {
            return Err(Error::Deposed(structure.group.promised));
        }
        let mut manifest = Manifest { generation: structure.generation + 1, ..structure.clone() };
        let group = &mut manifest.group;
        group.history = group.history.inherit(writer.last);
        let entry = HistoryEntry { epoch, inherited: writer.last, hash: writer.hash };
        group.history.push(entry).map_err(|entry| {
            Error::Invalid(format!("epoch {} does not follow the history of this copy", entry.epoch))
        })?;
        group.role = Role::Primary;
        group.promised = epoch;
        group.visible = writer.last;
        self.write_manifest(&manifest)?;
        *structure = manifest;
        self.publish(writer.last);
        *self.gate.lock() = Gate::Open;
        self.forget_tokens();
        self.epoch_begun.store(true, Ordering::Release);
        self.secondary.store(false, Ordering::Release);
        drop(structure);
        drop(writer);
        // Its run files go when the store is opened next, and so does what stays of this.
        let _ = self.keep_nothing();
        self.feed.notify();
        Ok(())
    }

    /// Promises, durably, to follow no epoch older than this. A primary of an older one takes no more commits.
    pub(crate) fn promise(&self, epoch: Epoch) -> Result<()> {
        // No commit is in the making meanwhile.
        let _writer = self.lock_writer();
        let promised = self.group(|group| group.promised);
        match epoch.order(&promised) {
            EpochOrder::Newer => self.edit_group(|group| {
                group.promised = epoch;
                Ok(())
            })?,
            EpochOrder::Same => {}
            EpochOrder::Older | EpochOrder::Conflict => return Err(Error::Deposed(promised)),
        }
        let gate = self.group(Gate::of);
        if let Gate::Deposed(_) = gate {
            *self.gate.lock() = gate;
        }
        Ok(())
    }

    /// Begins the epoch of a primary now rather than at its first commit.
    pub(crate) fn begin_epoch(&self) -> Result<()> {
        let writer = self.lock_writer();
        self.check_gate()?;
        self.begin_epoch_if_due(&writer)
    }

    /// Begins the next incarnation unless the epoch is newer than `other`; see [`crate::Database::begin_epoch_above`].
    pub(crate) fn begin_epoch_above(&self, other: Epoch) -> Result<()> {
        let writer = self.lock_writer();
        self.check_gate()?;
        self.begin_epoch_if_due(&writer)?;
        match self.group(|group| group.history.current()).order(&other) {
            EpochOrder::Newer | EpochOrder::Same => Ok(()),
            EpochOrder::Conflict => self.begin_next_epoch(&writer),
            EpochOrder::Older => Err(Error::Deposed(other)),
        }
    }

    /// Says what the store was made of, durably.
    pub(crate) fn set_lineage(&self, lineage: Lineage) -> Result<()> {
        self.edit_manifest(|manifest| {
            manifest.lineage = Some(lineage);
            Ok(())
        })
    }

    /// Changes what the manifest says about the group, durably.
    pub(crate) fn edit_group(&self, change: impl FnOnce(&mut GroupRecord) -> Result<()>) -> Result<()> {
        self.edit_manifest(|manifest| change(&mut manifest.group))
    }

    fn edit_manifest(&self, change: impl FnOnce(&mut Manifest) -> Result<()>) -> Result<()> {
        self.work().check_open()?;
        let mut structure = self.lock_structure();
        let mut manifest = Manifest { generation: structure.generation + 1, ..structure.clone() };
        change(&mut manifest)?;
        self.write_manifest(&manifest)?;
        *structure = manifest;
        Ok(())
    }

    /// Puts the next manifest in place. Where it is not known whether it is, the store is poisoned: what is on disk may
    /// be this manifest or the last one, and both must find what they name.
    pub(super) fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        self.check_sound()?;
        #[cfg(feature = "planted")]
        if planted!(self.options, ManifestInPlace) {
            return manifest.write_in_place(&self.options.os, &self.dir);
        }
        manifest.write(&self.options.os, &self.dir).map_err(|unwritten| {
            if unwritten.is_uncertain {
                self.poison(unwritten.error.to_string());
            }
            unwritten.error
        })
    }

    fn poison(&self, reason: String) -> Error {
        let mut poisoned = self.poisoned.lock();
        Error::Poisoned { reason: poisoned.get_or_insert(reason).clone() }
    }

    /// Fails once the store is poisoned.
    pub(super) fn check_sound(&self) -> Result<()> {
        match &*self.poisoned.lock() {
            Some(reason) => Err(Error::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }
}

/// The run files of a version, each once.
fn run_records(version: &StoreVersion) -> Vec<RunRecord> {
    let mut records: Vec<_> = version
        .fragments()
        .iter()
        .flat_map(|fragment| fragment.references())
        .map(|reference| RunRecord { file: reference.file, meta: reference.run.meta().clone() })
        .collect();
    records.sort_by_key(|record| record.file);
    records.dedup_by_key(|record| record.file);
    records
}
