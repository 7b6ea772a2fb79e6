//! The commit path.

use planaria_types::{Epoch, EpochOrder, HistoryHash, TableId, Uid};

use super::catalog::boundary_of;
use super::{Store, Writer, record_kind};
use crate::commit::{EncodedCommit, LoggedCommit, name_commit};
use crate::error::{Error, Result};
use crate::hash;
use crate::planted::planted;
use crate::sync::{Arc, MutexGuard, Ordering};
use crate::version::{Fragment, GroupRecord, Role, SegmentRecord, StoreVersion};

/// UIDs are drawn at most this far ahead of what recovery knows, in milliseconds.
const RESERVE_AHEAD_MS: u64 = 5_000;

/// A batch in the commit queue.
pub(crate) struct Pending {
    /// The encoded batch, not yet named.
    pub(crate) encoded: Vec<u8>,
    /// Whether the writer waits for the disk.
    pub(crate) sync: bool,
    /// What makes the batch one and the same when it comes again.
    pub(crate) token: Option<Token>,
}

/// The token of a commit and the fingerprint of its batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token {
    pub(crate) token: u128,
    pub(crate) fingerprint: u64,
}

/// What became of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// The commit.
    pub uid: Uid,
    /// Whether it had been made before, under the same token.
    pub again: bool,
}

/// Whether a primary takes commits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gate {
    /// It does.
    Open,
    /// Not now: another copy is about to lead.
    HandingOver,
    /// Not any more: a newer epoch exists.
    Deposed(Epoch),
}

impl Gate {
    /// What the manifest says: a primary that promised a newer epoch than its own is deposed.
    pub(super) fn of(group: &GroupRecord) -> Self {
        let is_newer = group.promised.order(&group.history.current()) == EpochOrder::Newer;
        if group.role == Role::Primary && is_newer { Self::Deposed(group.promised) } else { Self::Open }
    }
}

impl Store {
    /// Commits a batch and returns its UID, after a sync if it asked for one.
    pub(crate) fn commit(&self, pending: Pending) -> Result<Written> {
        let is_quick = !pending.sync;
        self.queue.submit(pending, is_quick, |group| self.commit_group(group))
    }

    /// Fails unless commits are taken.
    pub(super) fn check_gate(&self) -> Result<()> {
        match *self.gate.lock() {
            _ if self.role() == Role::Secondary => Err(Error::ReadOnly),
            Gate::Open => Ok(()),
            Gate::HandingOver => Err(Error::HandingOver),
            Gate::Deposed(epoch) => Err(Error::Deposed(epoch)),
        }
    }

    /// The leader's work: one append, one sync, one publication for the whole group.
    fn commit_group(&self, group: Vec<Pending>) -> Vec<Result<Written>> {
        let count = group.len();
        let sync = group.iter().any(|pending| pending.sync);
        match self.log_group(group, sync) {
            Ok(written) => written,
            Err(error) => (0..count).map(|_| Err(error.clone())).collect(),
        }
    }

    fn log_group(&self, group: Vec<Pending>, sync: bool) -> Result<Vec<Result<Written>>> {
        self.check_sound()?;
        self.wait_for_room()?;
        let mut writer = self.writer.lock();
        // Whoever had the lock before may have failed to put a manifest in place that says where the log goes on.
        self.check_sound()?;
        self.check_gate()?;
        self.begin_epoch_if_due(&writer)?;
        let mut next = *writer;
        let mut logged = Vec::with_capacity(group.len());
        let mut written: Vec<Result<Written>> = Vec::with_capacity(group.len());
        let mut tokens: Vec<(Token, Uid)> = Vec::new();
        for pending in group {
            if let Some(token) = pending.token
                && let Some(known) = self.known_commit(token, &tokens).transpose()
            {
                written.push(known.map(|uid| Written { uid, again: true }));
                continue;
            }
            let uid = self.draw_uid(&next);
            self.reserve(&mut writer, uid)?;
            let commit = name_commit(pending.encoded, uid, next.last);
            next.hash = hash::extend_history(next.hash, uid, hash::commit_hash(commit.bytes()));
            next.last = uid;
            logged.push(LoggedCommit { commit, hash: next.hash });
            tokens.extend(pending.token.map(|token| (token, uid)));
            written.push(Ok(Written { uid, again: false }));
        }
        self.append_commits(&mut writer, &logged)?;
        self.insert(&logged, writer.segment);
        let rebases = writer.rebases;
        drop(writer);
        if sync {
            self.sync_log()?;
        }
        // Another group cannot have been published meanwhile: groups are handled one after the other.
        let writer = self.writer.lock();
        if writer.rebases != rebases {
            return Err(Error::Invalid("the commit was taken back: another primary leads".into()));
        }
        self.publish(next.last);
        drop(writer);
        if !sync || self.log.lacks_spare() {
            // Or the commit that does not fit any more would wait until a segment is filled.
            self.work.signal_sync();
        }
        self.rotate_if_full(logged_bytes(&logged));
        Ok(written)
    }

    /// Appends commits that follow the last one, and moves the end of the log behind them.
    pub(super) fn append_commits(&self, writer: &mut Writer, logged: &[LoggedCommit]) -> Result<()> {
        let Some(end) = logged.last() else { return Ok(()) };
        let records: Vec<_> =
            logged.iter().map(|logged| (record_kind::COMMIT, &logged.commit.bytes()[..])).collect();
        let appended = self.log.append(&records)?;
        self.enter_segment(writer, appended.segment);
        writer.last = end.commit.uid();
        writer.hash = end.hash;
        self.appended.store(writer.last.get(), Ordering::Release);
        self.feed.push(logged);
        self.feed.notify();
        Ok(())
    }

    /// Notes where a new segment begins: right behind the state that the writer has.
    pub(super) fn enter_segment(&self, writer: &mut Writer, segment: u64) {
        if segment != writer.segment {
            writer.segment = segment;
            self.segments.lock().push_back(SegmentRecord {
                number: segment,
                uid: writer.last,
                hash: writer.hash,
            });
        }
    }

    /// Has the log go on in a new segment, unless there is little in the one that it is in: once what came before lies in runs,
    /// neither a start nor a clone reads the old one again.
    pub(super) fn begin_short_segment(&self) -> Result<()> {
        let mut writer = self.lock_writer();
        if self.log.active_bytes() <= self.little_log() {
            return Ok(());
        }
        // A bound that is known already changes nothing.
        let reserved = self.reserved.load(Ordering::Acquire);
        let begun = self.log.append_apart(&[(record_kind::RESERVE, &reserved.to_le_bytes()[..])])?;
        self.enter_segment(&mut writer, begun.segment);
        Ok(())
    }

    /// The UID of the commit that follows the state of the writer.
    pub(super) fn draw_uid(&self, writer: &Writer) -> Uid {
        writer.last.max(writer.draw_above).tick(self.options.os.now_millis())
    }

    /// Sees to it that `uid` lies below a durable bound, so that no later start draws it again.
    pub(super) fn reserve(&self, writer: &mut MutexGuard<'_, Writer>, uid: Uid) -> Result<()> {
        if uid.get() < self.reserved.load(Ordering::Acquire) {
            return Ok(());
        }
        let bound = Uid::from_millis(uid.millis() + RESERVE_AHEAD_MS);
        let appended = self.log.append(&[(record_kind::RESERVE, &bound.get().to_le_bytes()[..])])?;
        self.enter_segment(writer, appended.segment);
        self.log.sync()?;
        self.reserved.store(bound.get(), Ordering::Release);
        Ok(())
    }

    /// Closes the past: no commit at or below the result will be drawn any more, whatever the clock does, and all those
    /// that were are in the log.
    pub(crate) fn close_past(&self) -> Result<Uid> {
        let mut writer = self.writer.lock();
        if self.check_gate().is_err() || !self.epoch_begun.load(Ordering::Acquire) {
            return Ok(writer.last);
        }
        let closed = Uid::from_millis(self.options.os.now_millis()).max(writer.last);
        self.reserve(&mut writer, closed)?;
        writer.draw_above = writer.draw_above.max(closed);
        Ok(closed)
    }

    /// Raises the bound ahead of need, so that a commit does not wait for it.
    pub(super) fn reserve_ahead(&self) -> Result<()> {
        let now = self.options.os.now_millis();
        let left_ms = Uid::new(self.reserved.load(Ordering::Acquire)).millis().saturating_sub(now);
        let mut writer = self.writer.lock();
        if self.role() == Role::Primary
            && left_ms < RESERVE_AHEAD_MS / 2
            && writer.last.millis() + 60_000 > now
        {
            let uid = Uid::from_millis(now + RESERVE_AHEAD_MS / 2).max(writer.last);
            self.reserve(&mut writer, uid)?;
        }
        Ok(())
    }

    /// Puts the records of logged commits into the memtables; not yet visible.
    pub(super) fn insert(&self, logged: &[LoggedCommit], segment: u64) {
        let mut version = self.published.version();
        for logged in logged {
            let uid = logged.commit.uid();
            // The operations of a commit are in order, so the fragment of one holds those behind it up to its end.
            let mut fragment: Option<Arc<Fragment>> = None;
            for op in logged.commit.ops() {
                if let Some(boundary) = boundary_of(&op) {
                    self.ensure_boundary(&boundary, uid.prev());
                    version = self.published.version();
                    fragment = None;
                }
                let holds = |own: &Arc<Fragment>| own.table == op.table && own.range.is_below_end(op.key);
                if !fragment.as_ref().is_some_and(holds) {
                    fragment = version.find(op.table, op.key).cloned();
                }
                // A table's first fragment is created by an operation before; without one the commit was checked by
                // nobody. What is flushed already lies in a run.
                if let Some(fragment) = fragment.as_ref().filter(|fragment| uid > fragment.flushed) {
                    fragment.active.insert(op.key, uid, op.kind, op.row, segment);
                }
            }
        }
    }

    /// Moves the visible cut forward.
    pub(super) fn publish(&self, uid: Uid) {
        self.published.show(uid);
    }

    /// Makes everything appended so far durable.
    pub(crate) fn sync_log(&self) -> Result<Uid> {
        let moved = {
            // A rebase, which may take commits back, comes before or after.
            let _synced = self.synced.lock();
            let appended = self.appended();
            if !planted!(self.options, SkipLogSync) {
                self.log.sync()?;
            }
            self.durable.fetch_max(appended.get(), Ordering::AcqRel) < appended.get()
        };
        if moved {
            self.feed.notify();
        }
        Ok(self.durable())
    }

    /// Logs commits of the primary, checked to follow the last one here and to lead to the history hash that each
    /// states; they are neither durable nor visible yet.
    pub(crate) fn append_replicated(&self, logged: &[LoggedCommit]) -> Result<()> {
        self.check_sound()?;
        self.wait_for_room()?;
        let mut writer = self.writer.lock();
        if self.role() == Role::Primary {
            return Err(Error::Invalid("a primary follows nobody".into()));
        }
        let mut next = *writer;
        for logged in logged {
            next = follow(&next, &logged.commit, logged.hash)?;
        }
        self.append_commits(&mut writer, logged)?;
        self.insert(logged, writer.segment);
        drop(writer);
        if self.log.lacks_spare() {
            // Or the commit that does not fit any more would wait until one is filled.
            self.work.signal_sync();
        }
        self.rotate_if_full(logged_bytes(logged));
        Ok(())
    }

    /// Shows a secondary's readers everything at or below `cut` that is durable here.
    pub(crate) fn show(&self, cut: Uid) -> Result<Uid> {
        let mut writer = self.writer.lock();
        let cut = cut.min(self.durable());
        if cut > self.visible() {
            let appended = self.log.append(&[(record_kind::CUT, &cut.get().to_le_bytes()[..])])?;
            self.enter_segment(&mut writer, appended.segment);
            self.publish(cut);
        }
        Ok(self.visible())
    }

    pub(crate) fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock()
    }

    /// The last commit in the log and the history hash behind it.
    pub(crate) fn log_end(&self) -> (Uid, HistoryHash) {
        let writer = self.writer.lock();
        (writer.last, writer.hash)
    }
}

fn logged_bytes(logged: &[LoggedCommit]) -> usize {
    logged.iter().map(|logged| logged.commit.bytes().len()).sum()
}

/// The state after `commit`, which must follow `state` and lead to `hash`.
pub(super) fn follow(state: &Writer, commit: &EncodedCommit, hash: HistoryHash) -> Result<Writer> {
    if commit.prev() != state.last || commit.uid() <= state.last {
        return Err(Error::Gap { got: commit.uid(), named: commit.prev(), have: state.last });
    }
    let reached = hash::extend_history(state.hash, commit.uid(), hash::commit_hash(commit.bytes()));
    if reached != hash {
        return Err(Error::Invalid(format!(
            "commit {} leads to another history here than at the primary: the copies differ",
            commit.uid()
        )));
    }
    Ok(Writer { last: commit.uid(), hash, ..*state })
}

/// Inserts one version into its fragment's memtable, unless it lies in a run already.
pub(super) fn insert_op(
    version: &StoreVersion,
    table: TableId,
    key: &[u8],
    uid: Uid,
    kind: crate::cursor::RecordKind,
    row: &[u8],
    segment: u64,
) {
    // A table's first fragment is created by an operation before; without one the commit was checked by nobody.
    if let Some(fragment) = version.find(table, key).filter(|fragment| uid > fragment.flushed) {
        fragment.active.insert(key, uid, kind, row, segment);
    }
}
