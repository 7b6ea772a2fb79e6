use bytes::Bytes;
use planaria_engine::{Change, Database, Reconcile, Refresh, RefreshEnd, RefreshMark};
use planaria_replication::secondary::{Action, Identity, Install, KeptDelta, Local, Replica};
use planaria_replication::{Millis, Options, Record, Resume, RewindItem, Span};
use planaria_types::{GroupId, InstanceId, Portion, TableId, Uid};

use super::super::convert;
use crate::{Error, Result};

const TOO_LARGE: &str =
    "the refresh has grown too large for more of it to be kept over the end of the process";

/// Keys to ask the primary for, and the last of them if there are more.
type RewindItems = (Vec<RewindItem>, Option<(TableId, Bytes)>);

/// What a reconcile has replaced since that was kept last.
#[derive(Debug, Default)]
struct Unkept {
    bytes: u64,
    since: Millis,
}

/// A copy that follows, and the refresh that it collects, if there is one.
#[derive(Debug)]
pub struct FollowingCopy {
    db: Database,
    /// What the copy is to hold, if it is partial.
    portion: Option<Portion>,
    refresh: Option<Refresh>,
    /// How far it had come in an earlier process.
    kept: Option<KeptDelta>,
    /// Ranges that are replaced; kept over a break of the session.
    reconcile: Option<Reconcile>,
    unkept: Unkept,
    /// Records of the commits that were appended to the log.
    logged_records: u64,
}

impl FollowingCopy {
    /// A copy that was opened.
    pub fn new(db: Database) -> Self {
        Self::holding(db, None)
    }

    /// A copy that was opened, and is to hold this portion if it is partial; what it holds if none is given.
    pub fn holding(db: Database, portion: Option<Portion>) -> Self {
        let portion = db.portion().map(|held| portion.unwrap_or(held));
        // Of another portion other records are missing.
        let kept = db.kept_refresh().filter(|(kept, _)| kept.portion() == portion.as_ref());
        let (refresh, kept) = kept.unzip();
        let kept = kept.zip(refresh.as_ref()).map(|(mark, refresh)| kept_delta(mark, refresh));
        let reconcile = db.kept_reconcile().filter(|kept| kept.portion() == portion.as_ref());
        Self { db, portion, refresh, kept, reconcile, unkept: Unkept::default(), logged_records: 0 }
    }

    /// The copy.
    pub fn database(&self) -> &Database {
        &self.db
    }

    /// How many records the commits had that were appended to its log since it was opened.
    pub fn logged_records(&self) -> u64 {
        self.logged_records
    }

    /// The state machine that begins with what the copy holds.
    pub fn machine(&self, name: String, options: Options, now: Millis) -> Replica {
        let InstanceId(seed) = self.db.instance();
        let identity =
            Identity { database: self.db.id(), group: GroupId(1), instance: self.db.instance(), name };
        let former = self.db.former_instances().unwrap_or_else(|error| {
            tracing::warn!(%error, "it is not known whose place this copy has taken: its primary keeps them until they are forgotten");
            Vec::new()
        });
        let machine = Replica::new(identity, options, self.db.promised(), local(&self.db), seed as u64, now)
            .succeeding(former)
            .going_on_from(self.kept.clone())
            .having_replaced(self.reconcile.is_some());
        match &self.portion {
            Some(portion) => machine.holding(portion.clone(), self.db.portion().as_ref() == Some(portion)),
            None => machine,
        }
    }

    /// Makes what was appended durable, once for all that came together, and tells the machine. A flush may have synced
    /// it before; the machine has yet to hear of it. A refresh that is being collected waits for nothing of it. Whether
    /// there was anything.
    pub fn sync_appended(&mut self, machine: &mut Replica, now: Millis) -> Result<bool> {
        let due = self.db.log_end().0 > machine.local().durable && self.refresh.is_none();
        if due {
            let durable =
                if planted!(self.db, AckUnsynced) { self.db.log_end().0 } else { self.db.sync()? };
            machine.handle_durable(durable, now);
        }
        Ok(due)
    }

    /// Tells retention what the promotable set has, as far as the copy shares it.
    pub fn update_floors(&self, machine: &Replica) {
        self.db.set_floors(Some(machine.status().stable), None);
    }

    /// The engine could not do something: the session ends, and the next begins from what the copy holds.
    pub fn failed(&mut self, what: &str, machine: &mut Replica, now: Millis) {
        self.abandon();
        machine.handle_failure(local(&self.db), what, now);
    }

    /// Carries out one action and answers it. An action that is the driver's comes back: connections, messages, and
    /// the transfer of run files.
    pub fn perform(&mut self, action: Action, machine: &mut Replica, now: Millis) -> Result<Option<Action>> {
        match action {
            Action::Sync => {
                let durable = self.db.sync()?;
                machine.handle_durable(durable, now);
            }
            Action::PersistEpoch(epoch) => self.db.promise(epoch)?,
            Action::PersistHistory(history) => self.db.adopt_history(&history)?,
            Action::ReadHash(uid) => {
                let hash = self.db.history_hash_at(uid)?;
                machine.handle_hash(uid, hash, now);
            }
            Action::Quarantine { above, through } => self.db.quarantine(above, through)?,
            Action::TakeBack(fork, known) => {
                let hash = self.db.history_hash_at(fork.uid)?.or(known).ok_or_else(|| {
                    Error::Protocol(format!("nobody knows the history hash at the fork {}", fork.uid))
                })?;
                self.db.take_back(fork, hash)?;
            }
            Action::Append(commits) => {
                let last = commits.last().map_or(Uid::ZERO, |commit| commit.uid);
                let commits = convert::commits_in(&commits)?;
                self.db.append_replicated(&commits)?;
                self.logged_records +=
                    commits.iter().map(|logged| u64::from(logged.commit.op_count())).sum::<u64>();
                machine.handle_appended(last, now);
            }
            Action::Show(cut) => {
                self.db.show(cut)?;
            }
            Action::BeginRefresh { .. }
            | Action::ResumeRefresh { .. }
            | Action::SuspendRefresh(_)
            | Action::KeepRefresh(_)
            | Action::StoreDelta { .. }
            | Action::ReadRewindItems { .. }
            | Action::StoreRewind { .. } => self.perform_refresh(action, machine, now)?,
            Action::BeginReconcile { .. } | Action::SumSpans { .. } | Action::StoreRanges { .. } => {
                self.perform_reconcile(action, machine, now)?;
            }
            Action::AbandonRefresh => self.abandon(),
            Action::Install(install) => {
                self.install(install)?;
                machine.handle_installed(local(&self.db), now);
            }
            Action::Connect
            | Action::Disconnect
            | Action::Send(_)
            | Action::FetchBulk { .. }
            | Action::AbandonBulk => return Ok(Some(action)),
        }
        Ok(None)
    }

    /// Carries out an action of a delta or a rewind.
    fn perform_refresh(&mut self, action: Action, machine: &mut Replica, now: Millis) -> Result<()> {
        match action {
            Action::BeginRefresh { since, rewind, .. } => {
                self.abandon();
                let refresh = self.db.begin_refresh(rewind.then_some(since))?;
                self.refresh = Some(refresh.holding(self.portion.clone()));
            }
            // What was collected is on top of what the copy holds still: it has had no session since.
            Action::ResumeRefresh { .. } => {
                let records = self.refresh.as_ref().ok_or(Error::Closed)?.records();
                tracing::info!(records, "the delta goes on from what an interrupted one has brought");
            }
            Action::SuspendRefresh(kept) => {
                let refresh = self.refresh.as_mut().ok_or(Error::Closed)?;
                refresh.suspend(kept.map(refresh_mark).as_ref())?;
            }
            Action::KeepRefresh(kept) => {
                let refresh = self.refresh.as_mut().ok_or(Error::Closed)?;
                if !refresh.keep(&refresh_mark(kept))? {
                    tracing::warn!("{TOO_LARGE}");
                }
            }
            Action::StoreDelta { round, records } => {
                let refresh = self.refresh.as_mut().ok_or(Error::Closed)?;
                for record in records {
                    refresh.add(&convert::record_in(record)?)?;
                }
                machine.handle_stored(round, now);
            }
            Action::ReadRewindItems { round, above, cursor, bytes_max } => {
                let (items, next) = self.rewind_items(above, cursor, bytes_max)?;
                machine.handle_rewind_items(round, items, next, now);
            }
            Action::StoreRewind { round, records } => {
                let refresh = self.refresh.as_mut().ok_or(Error::Closed)?;
                for record in records {
                    refresh.add_state(&convert::record_in(record)?)?;
                }
                machine.handle_stored(round, now);
            }
            _ => {}
        }
        Ok(())
    }

    /// Carries out an action of a reconcile.
    fn perform_reconcile(&mut self, action: Action, machine: &mut Replica, now: Millis) -> Result<()> {
        match action {
            Action::BeginReconcile { round, base } => {
                self.begin_reconcile(base, now)?;
                let tables = self.reconcile.as_mut().ok_or(Error::Closed)?.table_ids()?;
                machine.handle_reconcile_begun(round, &tables, now);
            }
            Action::SumSpans { round, spans } => {
                let sums = self.sum_spans(&spans)?;
                machine.handle_sums(round, &sums, now);
            }
            Action::StoreRanges { round, spans, records } => {
                let bytes = records.iter().map(Record::weight).sum();
                self.store_ranges(spans, records)?;
                self.keep_ranges(bytes, machine.options(), now)?;
                machine.handle_stored(round, now);
            }
            _ => {}
        }
        Ok(())
    }

    fn rewind_items(
        &self,
        above: Uid,
        cursor: Option<(TableId, Bytes)>,
        bytes_max: u64,
    ) -> Result<RewindItems> {
        let from = cursor.map(|(table, key)| (table, [&key[..], &[0]].concat()));
        let from = from.as_ref().map_or((TableId::SYSTEM, &[][..]), |(table, key)| (*table, &key[..]));
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let chunk = self.db.snapshot_of_all().changes(above, from, bytes_max)?;
        let last = chunk.changes.last().map(|change| (change.table, change.key.clone()));
        let item = |change: Change| RewindItem::Key(change.table, change.key);
        Ok((chunk.changes.into_iter().map(item).collect(), chunk.next.and(last)))
    }

    fn abandon(&mut self) {
        let refresh = self.refresh.take().map(Refresh::abandon);
        let reconcile = self.reconcile.take().map(Reconcile::abandon);
        for error in [refresh, reconcile].into_iter().flatten().filter_map(Result::err) {
            tracing::warn!(%error, "what a refresh has kept goes when the copy is opened next");
        }
    }

    /// Keeps what was replaced over the end of the process, once in a while.
    fn keep_ranges(&mut self, bytes: u64, options: &Options, now: Millis) -> Result<()> {
        self.unkept.bytes += bytes;
        if !options.is_mark_due(self.unkept.bytes, now.since(self.unkept.since)) {
            return Ok(());
        }
        if let Some(reconcile) = &mut self.reconcile
            && !reconcile.keep()?
        {
            tracing::warn!("{TOO_LARGE}");
        }
        self.unkept = Unkept { bytes: 0, since: now };
        Ok(())
    }

    /// Goes on with what an earlier round replaced, if there is something.
    fn begin_reconcile(&mut self, base: Uid, now: Millis) -> Result<()> {
        self.unkept = Unkept { bytes: 0, since: now };
        if let Some(refresh) = self.refresh.take() {
            refresh.abandon()?;
        }
        if let Some(kept) = &mut self.reconcile {
            kept.rebase(base)?;
        } else {
            let reconcile = self.db.begin_reconcile(base)?;
            self.reconcile = Some(reconcile.holding(self.portion.clone()));
        }
        Ok(())
    }

    fn sum_spans(&mut self, spans: &[Span]) -> Result<Vec<[u8; 8]>> {
        let reconcile = self.reconcile.as_mut().ok_or(Error::Closed)?;
        let sum = |span: &Span| Ok(reconcile.fingerprint(span.table, &span.keys)?.short());
        spans.iter().map(sum).collect()
    }

    fn store_ranges(&mut self, spans: Vec<Span>, records: Vec<Record>) -> Result<()> {
        let reconcile = self.reconcile.as_mut().ok_or(Error::Closed)?;
        let ranges: Vec<_> = spans.into_iter().map(|span| (span.table, span.keys)).collect();
        let records: Vec<_> = records.into_iter().map(convert::record_in).collect::<Result<_>>()?;
        reconcile.replace(&ranges, &records)?;
        Ok(())
    }

    fn install(&mut self, install: Install) -> Result<()> {
        let base_hash = install.base_hash.ok_or_else(|| {
            Error::Protocol("the primary does not know the history hash where its live stream begins".into())
        })?;
        let end = RefreshEnd {
            base: install.base,
            base_hash,
            history: install.history,
            live: convert::commits_in(&install.commits)?,
            sparse_to: install.sparse_to,
            cut: install.cut,
            portion: self.portion.clone(),
        };
        if install.reconciled {
            self.reconcile.take().ok_or(Error::Closed)?.install(&end)?;
        } else {
            self.refresh.take().ok_or(Error::Closed)?.install(&end)?;
        }
        Ok(())
    }
}

/// What an earlier process has kept.
fn kept_delta(mark: RefreshMark, refresh: &Refresh) -> KeptDelta {
    let RefreshMark { table, key, base, read_at, bytes } = mark;
    let resume = Resume { upto: (table, key.into()), base, read_at };
    KeptDelta { since: refresh.from(), resume, bytes }
}

fn refresh_mark(kept: KeptDelta) -> RefreshMark {
    let Resume { upto: (table, key), base, read_at } = kept.resume;
    RefreshMark { table, key: key.into(), base, read_at, bytes: kept.bytes }
}

/// What a copy holds.
pub fn local(db: &Database) -> Local {
    let (appended, hash) = db.log_end();
    Local {
        history: db.history(),
        appended,
        durable: db.durable(),
        hash: Some(hash),
        visible: db.visible(),
        version_floor: db.version_floor(),
        mark_floor: db.mark_floor(),
        sparse: db.sparse(),
    }
}
