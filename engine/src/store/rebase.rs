//! Steps after which the log begins anew: installing a refresh, taking back, becoming a secondary.

use std::collections::BTreeMap;

use bytes::Bytes;
use planaria_types::{DatabaseId, HistoryHash, Portion, Position, TableId, Uid};

use super::catalog::{boundary_in, boundary_of, with_boundary};
use super::flush::{NewRun, RunRefParts};
use super::write::follow;
use super::{Gate, Store, Writer, record_kind};
use crate::commit::LoggedCommit;
use crate::cursor::Cursor;
use crate::error::{Error, Result};
use crate::memtable::Memtable;
use crate::planted::planted;
use crate::read::Change;
use crate::refresh::RefreshEnd;
use crate::sync::{Arc, MutexGuard, Ordering};
use crate::version::{Fragment, GroupRecord, Manifest, Role, RunRef, SegmentRecord, StoreVersion};

/// What a refresh has collected.
pub(crate) struct Install {
    /// The state that it builds on.
    pub(crate) from: Uid,
    /// Whether what lies above `from` disappears.
    pub(crate) rewinds: bool,
    /// Run files with the states of rewound keys, each of one table.
    pub(crate) states: Vec<(TableId, NewRun)>,
    /// The same where no UID lies between the fork and the base: they are written beneath the live commits.
    pub(crate) beneath: Vec<Change>,
    /// Run files with changed records, oldest first.
    pub(crate) outputs: Vec<Changed>,
    /// System records among what was collected, as (key, row).
    pub(crate) boundaries: Vec<(Bytes, Bytes)>,
}

/// A run file with changed records of one table.
pub(crate) struct Changed {
    pub(crate) table: TableId,
    pub(crate) run: NewRun,
    /// It has what changed above this UID ...
    pub(crate) above: Uid,
    /// ... up to this one; the base if none is said.
    pub(crate) upto: Option<Uid>,
}

/// An opened run of one table and the interval that it owns.
pub(super) struct Layer {
    pub(super) table: TableId,
    pub(super) parts: RunRefParts,
    pub(super) above: Uid,
    pub(super) upto: Uid,
}

impl Store {
    /// Installs a refresh; see [`crate::refresh::Refresh::install`].
    pub(crate) fn install_refresh(&self, install: &Install, end: &RefreshEnd) -> Result<()> {
        let states = install.states.iter().map(|(_, run)| run);
        let mut files: Vec<NewRun> =
            states.chain(install.outputs.iter().map(|output| &output.run)).cloned().collect();
        if let Err(error) = self.flush_all() {
            self.discard(&files);
            return Err(error);
        }
        let mut writer = self.lock_writer();
        let installed = self.install_layers(&mut writer, install, end, &mut files);
        if installed.is_err() {
            self.discard(&files);
        }
        installed
    }

    fn install_layers(
        &self,
        writer: &mut MutexGuard<'_, Writer>,
        install: &Install,
        end: &RefreshEnd,
        files: &mut Vec<NewRun>,
    ) -> Result<()> {
        self.check_flushed()?;
        let state = check_end(writer, install, end)?;
        let live = self.write_live(&end.live, (&install.beneath, install.from), files)?;
        let mut layers = Vec::new();
        // States of rewound keys own one UID right above the fork, the changed records what lies above.
        let delta_above = if install.rewinds { install.from.next() } else { install.from };
        for (table, run) in &install.states {
            layers.push(Layer {
                table: *table,
                parts: self.adopt(run)?,
                above: install.from,
                upto: delta_above,
            });
        }
        for Changed { table, run, above, upto } in &install.outputs {
            let (above, upto) = ((*above).max(delta_above), upto.unwrap_or(end.base));
            layers.push(Layer { table: *table, parts: self.adopt(run)?, above, upto });
        }
        for (table, run) in live.iter().filter(|_| !planted!(self.options, InstallHalf)) {
            layers.push(Layer { table: *table, parts: self.adopt(run)?, above: end.base, upto: state.last });
        }
        self.sync_run_dir()?;
        let collected = install.boundaries.iter().filter_map(|(key, row)| boundary_in(key, row));
        let ops = end.live.iter().flat_map(|logged| logged.commit.ops());
        let boundaries: Vec<_> = collected.chain(ops.filter_map(|op| boundary_of(&op))).collect();
        let change = |version: &StoreVersion| {
            let mut version =
                if install.rewinds { clipped_version(version, install.from)? } else { version.clone() };
            for boundary in &boundaries {
                if let Some(changed) = with_boundary(&version, boundary, install.from) {
                    version = changed;
                }
            }
            layered_version(&version, &layers, state.last)
        };
        let next_fragment =
            boundaries.iter().map(|boundary| boundary.id.0.saturating_add(1)).max().unwrap_or(0);
        self.next_fragment.fetch_max(next_fragment, Ordering::AcqRel);
        self.check_portion(end)?;
        self.rebase(writer, state, change, end.cut, |group| {
            group.history = end.history.clone();
            group.portion.clone_from(&end.portion);
            if install.from == Uid::ZERO {
                // An empty copy is brought what is there, and of what was deleted only the marks that were kept.
                group.mark_floor = group.mark_floor.max(end.sparse_to);
            }
            if install.rewinds {
                // Rewound keys have no older versions left: nothing below the new cut can be read.
                group.sparse.clear();
                group.version_floor = group.version_floor.max(end.cut);
            } else if end.sparse_to > install.from {
                note_sparse(group, (install.from, end.sparse_to));
            }
        })
    }

    /// Writes live commits out as runs, one for each table, and beneath them the states of keys at a fork.
    pub(super) fn write_live(
        &self,
        live: &[LoggedCommit],
        (beneath, fork): (&[Change], Uid),
        files: &mut Vec<NewRun>,
    ) -> Result<Vec<(TableId, NewRun)>> {
        let mut memtables: BTreeMap<TableId, Arc<Memtable>> = BTreeMap::new();
        for state in beneath {
            let memtable = memtables.entry(state.table).or_insert_with(|| Arc::new(Memtable::new()));
            let uid = if state.uid == Uid::ZERO { fork.max(Uid::ZERO.next()) } else { state.uid };
            memtable.insert(&state.key, uid, state.kind, &state.row, 0);
        }
        for logged in live {
            for op in logged.commit.ops() {
                let memtable = memtables.entry(op.table).or_insert_with(|| Arc::new(Memtable::new()));
                memtable.insert(op.key, logged.commit.uid(), op.kind, op.row, 0);
            }
        }
        let mut runs = Vec::new();
        for (table, memtable) in memtables {
            let mut writer = self.new_run(false)?;
            let mut cursor = memtable.cursor(None);
            cursor.seek_to_first()?;
            while cursor.is_valid() {
                writer.add(cursor.key(), cursor.uid(), cursor.kind(), cursor.row_ref())?;
                cursor.next()?;
            }
            if let Some(run) = writer.finish()? {
                files.push(run.clone());
                runs.push((table, run));
            }
        }
        Ok(runs)
    }

    /// Puts a changed version in place together with a log that begins behind `state`, and shows `cut`.
    pub(super) fn rebase(
        &self,
        writer: &mut MutexGuard<'_, Writer>,
        state: Writer,
        change: impl Fn(&StoreVersion) -> Result<StoreVersion>,
        cut: Uid,
        group: impl FnOnce(&mut GroupRecord),
    ) -> Result<()> {
        self.work().check_open()?;
        self.log.seal()?;
        // The segment from which recovery will start must be there before the manifest says so. It begins with a bound
        // that is known already, which changes nothing for a recovery that does not get to see the manifest.
        let reserved = self.reserved.load(Ordering::Acquire);
        let begun = self.log.append(&[(record_kind::RESERVE, &reserved.to_le_bytes()[..])])?;
        self.enter_segment(writer, begun.segment);
        self.log.sync()?;
        let segment = SegmentRecord { number: begun.segment, uid: state.last, hash: state.hash };
        let mut structure = self.lock_structure();
        let next = change(&self.pin().0)?;
        self.name_above(&next);
        let mut manifest = self.describe(&structure, &next);
        group(&mut manifest.group);
        manifest.group.visible = cut;
        manifest.log_start = segment.number;
        manifest.segments = vec![segment];
        let holding = self.holding_at(&next, cut, manifest.group.portion.as_ref());
        let synced = self.synced.lock();
        self.write_manifest(&manifest)?;
        let old = self.published.rebase(next, cut);
        if let Some(held) = holding {
            self.holding.set(held);
        }
        *self.segments.lock() = [segment].into();
        **writer = Writer { segment: segment.number, ..state };
        self.appended.store(state.last.get(), Ordering::Release);
        self.durable.store(state.last.get(), Ordering::Release);
        drop(synced);
        self.feed.clear();
        self.after_write(&mut structure, manifest, &old);
        drop(structure);
        self.feed.notify();
        self.work.flushed();
        Ok(())
    }

    /// Takes back everything above `fork`; see [`crate::Database::take_back`].
    pub(crate) fn take_back(&self, position: Position, hash: HistoryHash) -> Result<()> {
        self.check_readable(position.uid)?;
        // What the fork shows must outlive the flush, too.
        self.floors.lock().fork = Some(position.uid);
        let taken = self.take_back_above(position, hash);
        self.floors.lock().fork = None;
        taken
    }

    /// Fails unless a cut at `fork` finds all the versions that it shows.
    pub(crate) fn check_readable(&self, fork: Uid) -> Result<()> {
        let group = self.manifest().group;
        if fork < group.version_floor || group.sparse.iter().any(|(from, to)| *from < fork && fork < *to) {
            return Err(Error::SnapshotTooOld(fork));
        }
        Ok(())
    }

    /// Fails if something is in memory only: a log that begins anew would leave it behind. The caller is the writer.
    pub(super) fn check_flushed(&self) -> Result<()> {
        let in_memory =
            |fragment: &Arc<Fragment>| fragment.active.records() > 0 || !fragment.frozen.is_empty();
        if self.pin().0.fragments().iter().any(in_memory) {
            return Err(Error::Invalid(
                "commits arrived while the state that they build on was changed".into(),
            ));
        }
        Ok(())
    }

    fn take_back_above(&self, position: Position, hash: HistoryHash) -> Result<()> {
        let fork = position.uid;
        self.flush_all()?;
        let _no_compaction = self.work().compacting();
        let mut writer = self.lock_writer();
        self.check_flushed()?;
        self.check_readable(fork)?;
        let state = Writer { last: fork, hash, rebases: writer.rebases + 1, ..*writer };
        let cut = self.visible().min(fork);
        self.rebase(
            &mut writer,
            state,
            |version| clipped_version(version, fork),
            cut,
            |group| {
                group.history.truncate(&position);
            },
        )
    }

    /// Fails if a refresh would make a whole copy a partial one, or the other way round.
    pub(super) fn check_portion(&self, end: &RefreshEnd) -> Result<()> {
        if self.group(|group| group.portion.is_some()) == end.portion.is_some() {
            return Ok(());
        }
        Err(Error::Invalid(
            "a copy is partial or whole for as long as it lives: begin anew in an empty directory".into(),
        ))
    }

    /// Makes this empty copy a partial one of `database`; see [`crate::Database::become_partial`].
    pub(crate) fn become_partial(&self, database: DatabaseId) -> Result<()> {
        let writer = self.lock_writer();
        let mut structure = self.lock_structure();
        if structure.group.portion.is_some() && structure.database == database {
            return Ok(());
        }
        if writer.last > Uid::ZERO {
            return Err(Error::Invalid(
                "this directory holds a whole copy, or one of another database: a partial copy starts from an empty \
                 directory"
                    .into(),
            ));
        }
        let mut manifest = Manifest { generation: structure.generation + 1, database, ..structure.clone() };
        manifest.group.role = Role::Secondary;
        manifest.group.portion = Some(Portion::default());
        self.write_manifest(&manifest)?;
        *structure = manifest;
        self.secondary.store(true, Ordering::Release);
        drop(structure);
        *self.gate.lock() = Gate::Open;
        Ok(())
    }

    /// Makes this copy a secondary of `database`; see [`crate::Database::become_secondary`].
    pub(crate) fn become_secondary(&self, database: DatabaseId) -> Result<()> {
        let writer = self.lock_writer();
        let mut structure = self.lock_structure();
        if structure.group.role == Role::Secondary && structure.database == database {
            return Ok(());
        }
        if structure.database != database && writer.last > Uid::ZERO {
            return Err(Error::Invalid(format!(
                "this directory holds database {}, the primary's is {database}: a secondary starts from an empty \
                 directory or from a copy of the primary's database",
                structure.database
            )));
        }
        let mut manifest = structure.clone();
        manifest.generation += 1;
        manifest.database = database;
        manifest.group.role = Role::Secondary;
        self.write_manifest(&manifest)?;
        *structure = manifest;
        self.secondary.store(true, Ordering::Release);
        drop(structure);
        *self.gate.lock() = Gate::Open;
        self.forget_tokens();
        // What a primary has appended it also shows: whoever takes something back must know all of it.
        self.sync_log()?;
        self.publish(writer.last);
        Ok(())
    }
}

/// Intervals without a readable cut that are told apart. A copy that is refreshed again and again would have ever more.
const SPARSE_MAX: usize = 64;

/// Notes that no cut within an interval is readable. Of too many, the oldest are below the version floor from then on: a
/// fork there is rewound to instead of clipped at.
fn note_sparse(group: &mut GroupRecord, interval: (Uid, Uid)) {
    group.sparse.push(interval);
    let over = group.sparse.len().saturating_sub(SPARSE_MAX);
    let oldest = group.sparse.drain(..over).map(|(_, end)| end).max();
    group.version_floor = group.version_floor.max(oldest.unwrap_or(Uid::ZERO));
    let floor = group.version_floor;
    group.sparse.retain(|(_, end)| *end > floor);
}

/// The state that a refresh leads to, if its parts fit together.
fn check_end(writer: &Writer, install: &Install, end: &RefreshEnd) -> Result<Writer> {
    let too_close = install.rewinds && end.base <= install.from.next();
    if too_close && !install.states.is_empty() || end.live.is_empty() && !install.beneath.is_empty() {
        return Err(Error::Invalid("there is no room between the fork and the base for rewound keys".into()));
    }
    if writer.last != install.from && !install.rewinds {
        return Err(Error::Gap { got: end.base, named: install.from, have: writer.last });
    }
    let mut state = Writer { last: end.base, hash: end.base_hash, rebases: writer.rebases + 1, ..*writer };
    for logged in &end.live {
        state = follow(&state, &logged.commit, logged.hash)?;
    }
    if end.base < install.from || end.cut < end.sparse_to || end.cut > state.last {
        return Err(Error::Invalid(format!(
            "a refresh from {} to {} cannot show the cut {}: it holds {} to {}",
            install.from, end.base, end.cut, end.sparse_to, state.last
        )));
    }
    Ok(state)
}

/// `version` with layers put on top, oldest first; everything at or below `flushed` lies in runs then.
pub(super) fn layered_version(
    version: &StoreVersion,
    layers: &[Layer],
    flushed: Uid,
) -> Result<StoreVersion> {
    let changed = version.fragments().iter().map(|fragment| {
        let mut next = Fragment::clone(fragment);
        let mut references: Vec<RunRef> = fragment.references().cloned().collect();
        for layer in layers.iter().filter(|layer| layer.table == fragment.table) {
            let Some(keys) = layer.parts.keys.intersect(&fragment.range) else { continue };
            let is_bottom = !references.iter().any(|beneath| beneath.keys.overlaps(&keys));
            let above = if is_bottom { Uid::ZERO } else { layer.above };
            references.push(layer.parts.reference(keys, above, layer.upto));
        }
        next.set_references(references)?;
        next.flushed = flushed;
        Ok(Arc::new(next))
    });
    Ok(StoreVersion::new(changed.collect::<Result<_>>()?))
}

/// `version` without anything above `fork`.
pub(super) fn clipped_version(version: &StoreVersion, fork: Uid) -> Result<StoreVersion> {
    let changed = version.fragments().iter().map(|fragment| {
        let mut next = Fragment::clone(fragment);
        let kept = fragment
            .references()
            .filter(|reference| reference.above < fork && reference.run.meta().smallest_uid <= fork)
            .map(|reference| RunRef { upto: reference.upto.min(fork), ..reference.clone() });
        let kept: Vec<_> = kept.collect();
        next.set_references(kept)?;
        next.flushed = fragment.flushed.min(fork);
        Ok(Arc::new(next))
    });
    Ok(StoreVersion::new(changed.collect::<Result<_>>()?))
}
