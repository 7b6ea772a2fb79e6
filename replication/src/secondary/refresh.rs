//! A refresh: collect what changed, hold what comes live, install both at one cut.

use bytes::Bytes;
use planaria_types::{Epoch, History, HistoryHash, TableId, Uid};

use super::action::{Action, Install, KeptDelta, Local, RewindCursor, RewindItems};
use super::reconcile::Comparison;
use super::replica::{Phase, Replica};
use super::session::{End, breach};
use super::tail::{Tail, follow};
use crate::options::planted;
use crate::{
    Commit, DeltaChunk, DeltaRequest, Message, Millis, Options, RecordKind, Resume, RewindReply,
    RewindRequest, Way, Welcome,
};

/// The state of one round.
///
/// Invariants: `held` follows `base` without a gap; `snapshot` is the highest that anything was read at; in a pinned
/// round nothing is held and everything was read at one snapshot, which becomes the base.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what a round consists of is independent of how far its parts are"
)]
pub(super) struct Refresh {
    pub(super) round: u64,
    pub(super) epoch: Epoch,
    pub(super) history: History,
    pub(super) since: Uid,
    pub(super) bytes: u64,
    pub(super) held_bytes: u64,
    /// The primary gave the round up while it was being installed.
    pub(super) again: bool,
    target: Uid,
    base: Uid,
    base_hash: Option<HistoryHash>,
    pinned: bool,
    pin: Option<Uid>,
    snapshot: Uid,
    held: Vec<Commit>,
    last_held: Uid,
    /// The weight of the commits that left `held` for the log.
    passed_bytes: u64,
    delta: bool,
    chunk_number: u64,
    granted: u64,
    chunks_complete: bool,
    rewinding: bool,
    rewind: Rewind,
    /// There in a round that compares ranges.
    pub(super) comparison: Option<Comparison>,
    /// Batches that the engine has not confirmed.
    storing: u64,
    /// What an earlier round has kept, and this one goes on from.
    resumed: Option<KeptDelta>,
    /// The last key of the chunks so far: everything up to it came.
    reached: Option<(TableId, Bytes)>,
    /// What had come, in bytes, when it was kept last, and when that was.
    marked: (u64, Millis),
}

/// How far a rewind has come.
#[derive(Debug, PartialEq, Eq)]
enum Rewind {
    /// Nothing was to be rewound, or everything has been.
    Complete,
    /// Keys are to be listed, from here on.
    List(RewindCursor),
    /// The engine lists keys.
    Listing,
    /// Keys were asked for; then the listing goes on, if there is more.
    Asked { next: RewindCursor },
    /// The answer did not fit into one reply; the rest is asked for once this part is stored.
    Rest { next: RewindCursor },
}

impl Refresh {
    pub(super) fn new(round: u64, welcome: Welcome, rewind: bool) -> Self {
        let delta = matches!(welcome.way, Way::Delta | Way::PinnedDelta);
        Self {
            round,
            epoch: welcome.epoch,
            history: welcome.history,
            since: welcome.fork.uid,
            bytes: 0,
            held_bytes: 0,
            again: false,
            target: welcome.tail,
            base: welcome.live_from,
            base_hash: welcome.live_from_hash,
            pinned: welcome.way.is_pinned(),
            pin: None,
            snapshot: welcome.live_from,
            held: Vec::new(),
            last_held: welcome.live_from,
            passed_bytes: 0,
            delta,
            chunk_number: 0,
            granted: 0,
            chunks_complete: !delta,
            rewinding: rewind,
            rewind: if rewind { Rewind::List(None) } else { Rewind::Complete },
            comparison: welcome.way.reconciles().then(Comparison::new),
            storing: 0,
            resumed: None,
            reached: None,
            marked: (0, Millis::default()),
        }
    }

    /// The same, on top of what an earlier round has kept.
    pub(super) fn on_top_of(mut self, resumed: Option<KeptDelta>, now: Millis) -> Self {
        self.bytes = resumed.as_ref().map_or(0, |resumed| resumed.bytes);
        self.marked = (self.bytes, now);
        self.resumed = resumed;
        self
    }

    /// What can be kept of the round: of a delta what came up to a key. The states of keys that are rewound are read again.
    fn kept(&self) -> Option<KeptDelta> {
        if !self.delta || self.rewinding {
            return None;
        }
        let read_at = self.history.position_of(self.snapshot);
        let resume = Resume { upto: self.reached.clone()?, base: self.base, read_at };
        Some(KeptDelta { since: self.since, resume, bytes: self.bytes })
    }

    /// What is to be kept over the end of the process: once in a while, if it is further than what was kept before.
    fn mark(&mut self, options: &Options, now: Millis) -> Option<KeptDelta> {
        let (bytes, since) = self.marked;
        let more = self.bytes.saturating_sub(bytes);
        if self.chunks_complete || !options.is_mark_due(more, now.since(since)) {
            return None;
        }
        let own = self.kept().filter(|own| own.is_further_than(self.resumed.as_ref()))?;
        self.marked = (self.bytes, now);
        Some(own)
    }

    /// Where the live stream begins.
    pub(super) fn base(&self) -> Uid {
        self.base
    }

    /// Batches that the engine has not confirmed.
    pub(super) fn storing(&self) -> u64 {
        self.storing
    }

    pub(super) fn received_bytes(&self) -> u64 {
        self.passed_bytes.saturating_add(self.held_bytes)
    }

    /// The engine has stored one more batch.
    pub(super) fn stored(&mut self) {
        self.storing = self.storing.saturating_sub(1);
    }

    /// The engine has listed keys: the question to send, if there are any.
    pub(super) fn listed(&mut self, items: RewindItems, next: RewindCursor) -> Option<RewindRequest> {
        if self.rewind != Rewind::Listing {
            return None;
        }
        if items.is_empty() {
            self.rewind = next.map_or(Rewind::Complete, |next| Rewind::List(Some(next)));
            return None;
        }
        self.rewind = Rewind::Asked { next };
        Some(RewindRequest { round: self.round, items })
    }

    /// Notes the snapshot that something was read at.
    pub(super) fn read_at(
        &mut self,
        options: &Options,
        snapshot: Uid,
        hash: Option<HistoryHash>,
    ) -> Result<(), End> {
        if snapshot < self.base && !planted!(options, LiveFromAppended) {
            return Err(breach("records were read below the start of the live stream"));
        }
        if self.pinned {
            if self.pin.is_some_and(|pin| pin != snapshot) {
                return Err(breach("a pinned round was read at two snapshots"));
            }
            let known = if snapshot == self.base { self.base_hash } else { None };
            self.base_hash = hash.or(known);
            self.pin = Some(snapshot);
            self.base = snapshot;
            self.last_held = snapshot;
        }
        self.snapshot = self.snapshot.max(snapshot);
        Ok(())
    }

    /// New permission to send chunks, in steps of half the window.
    fn grant(&mut self, options: &Options) -> Option<DeltaRequest> {
        let window = u64::from(options.chunks_in_flight.max(1));
        let grant = self.chunk_number.saturating_sub(self.storing).saturating_add(window);
        let step = if self.granted == 0 { 1 } else { (window / 2).max(1) };
        if !self.delta || self.chunks_complete || grant < self.granted.saturating_add(step) {
            return None;
        }
        self.granted = grant;
        Some(DeltaRequest { round: self.round, grant })
    }

    /// Whether all parts are here and stored.
    fn is_complete(&self, options: &Options) -> bool {
        let whole = self.chunks_complete || (planted!(options, InstallHalf) && self.chunk_number > 0);
        let compared = self.comparison.as_ref().is_none_or(|comparison| comparison.is_complete(options));
        whole && compared && self.storing == 0 && self.rewind == Rewind::Complete
    }

    /// The cut to install at: not below the highest snapshot, passed by the live stream, and durable on the primary.
    fn cut(&self, options: &Options, primary_durable: Uid) -> Option<Uid> {
        let cut = self.last_held.min(primary_durable);
        let lowest = if planted!(options, InstallTooLow) { self.base } else { self.snapshot };
        (cut >= lowest).then_some(cut)
    }

    fn install(&mut self, cut: Uid) -> Install {
        self.passed_bytes = self.received_bytes();
        self.held_bytes = 0;
        Install {
            base: self.base,
            base_hash: self.base_hash,
            history: self.history.clone(),
            commits: std::mem::take(&mut self.held),
            sparse_from: self.since,
            sparse_to: self.snapshot,
            rewound: self.rewinding,
            reconciled: self.comparison.is_some(),
            cut,
        }
    }
}

impl Replica {
    /// Gives up a round. Ranges that were replaced are kept: the next comparison finds them equal, as far as they are.
    pub(super) fn abandon_refresh(&mut self) {
        let Phase::Refreshing(refresh) = &self.phase else { return };
        match &refresh.comparison {
            Some(comparison) => self.kept |= comparison.has_begun(),
            None => self.suspend(),
        }
    }

    /// Keeps of a delta what is of use to the next one. What came in a round that did not get further than an earlier one
    /// is dropped, so that one key and one position say what there is.
    fn suspend(&mut self) {
        let Phase::Refreshing(refresh) = &mut self.phase else { return };
        let before = refresh.resumed.take();
        let is_further = |own: &KeptDelta| own.is_further_than(before.as_ref());
        let own = refresh.kept().filter(is_further);
        self.actions.push_back(match (&own, &before) {
            (Some(own), _) => Action::SuspendRefresh(Some(own.clone())),
            (None, Some(_)) => Action::SuspendRefresh(None),
            (None, None) => Action::AbandonRefresh,
        });
        self.suspended = own.or(before);
    }

    /// What the next delta may go on from.
    pub(super) fn resume(&self) -> Option<Resume> {
        let fits = |suspended: &&KeptDelta| suspended.since == self.local.durable;
        self.suspended.as_ref().filter(fits).map(|suspended| suspended.resume.clone())
    }

    /// Drops what was kept of a delta, because this round does not go on from it.
    pub(super) fn drop_suspended(&mut self) {
        if self.suspended.take().is_some() {
            self.actions.push_back(Action::AbandonRefresh);
        }
    }

    /// A delta goes on only from what was kept, and on top of what it was on top of.
    pub(super) fn check_resumption(&self, welcome: &Welcome) -> Result<(), End> {
        let fits = |suspended: &KeptDelta| {
            suspended.since == welcome.fork.uid
                && self.local.durable == welcome.fork.uid
                && (suspended.resume.read_at.uid <= welcome.live_from || planted!(self.options, ResumeBehind))
        };
        if welcome.resumes && !self.suspended.as_ref().is_some_and(fits) {
            return Err(breach("a delta goes on that was not begun"));
        }
        Ok(())
    }

    /// Drops ranges that an earlier round replaced, because this one goes another way.
    pub(super) fn drop_kept(&mut self) {
        if std::mem::take(&mut self.kept) {
            self.actions.push_back(Action::AbandonRefresh);
        }
    }

    /// Begins to compare ranges.
    pub(super) fn begin_comparison(&mut self, refresh: Refresh, now: Millis) {
        self.phase = Phase::Refreshing(Box::new(refresh));
        self.advance(now);
    }

    pub(super) fn begin_refresh(&mut self, refresh: Refresh, now: Millis) {
        let Refresh { round, since, rewinding: rewind, .. } = refresh;
        self.actions.push_back(match &refresh.resumed {
            Some(_) => Action::ResumeRefresh { round },
            None => Action::BeginRefresh { round, since, rewind },
        });
        self.status.counters.resumptions += u64::from(refresh.resumed.is_some());
        self.phase = Phase::Refreshing(Box::new(refresh));
        self.advance(now);
    }

    /// Keeps commits until the refresh is installed. While the engine installs, new ones are held without giving
    /// credit for more, so that the sender's window bounds them.
    pub(super) fn hold(&mut self, commits: Vec<Commit>) -> Result<(), End> {
        let (Phase::Refreshing(refresh) | Phase::Installing(refresh)) = &mut self.phase else {
            return Ok(());
        };
        if refresh.pinned && !commits.is_empty() {
            return Err(breach("live commits in a round without the live stream"));
        }
        refresh.last_held = follow(&commits, refresh.last_held)?;
        for commit in commits {
            refresh.held_bytes = refresh.held_bytes.saturating_add(commit.weight());
            refresh.held.push(commit);
        }
        let overflows = refresh.held_bytes > self.options.held_bytes_max;
        if overflows && matches!(self.phase, Phase::Refreshing(_)) {
            self.status.counters.overflows += 1;
            self.without_live = true;
            self.abandon_refresh();
            self.greet();
        }
        Ok(())
    }

    pub(super) fn on_chunk(&mut self, chunk: DeltaChunk, now: Millis) -> Result<(), End> {
        let Phase::Refreshing(refresh) = &mut self.phase else {
            return Ok(());
        };
        if chunk.number != refresh.chunk_number || refresh.chunks_complete || chunk.number >= refresh.granted
        {
            return Err(breach("a chunk out of turn"));
        }
        refresh.read_at(&self.options, chunk.snapshot, chunk.snapshot_hash)?;
        refresh.chunk_number += 1;
        refresh.chunks_complete = chunk.last;
        let mut records = chunk.records;
        if let Some(last) = records.last() {
            // A share of the message would keep all of it.
            refresh.reached = Some((last.table, Bytes::copy_from_slice(&last.key)));
        }
        let came = records.len();
        let base = refresh.base;
        // What is newer than the base comes in the live stream, and may only be seen from there on.
        records.retain(|record| record.uid <= base);
        self.status.counters.records_dropped += (came - records.len()) as u64;
        let bytes: u64 = records.iter().map(crate::Record::weight).sum();
        let round = refresh.round;
        self.took(records.len(), bytes);
        self.actions.push_back(Action::StoreDelta { round, records });
        if let Phase::Refreshing(refresh) = &mut self.phase
            && let Some(kept) = refresh.mark(&self.options, now)
        {
            self.actions.push_back(Action::KeepRefresh(kept));
        }
        self.advance(now);
        Ok(())
    }

    pub(super) fn on_rewind(&mut self, reply: RewindReply, now: Millis) -> Result<(), End> {
        let Phase::Refreshing(refresh) = &mut self.phase else {
            return Ok(());
        };
        let Rewind::Asked { next } = &mut refresh.rewind else {
            return Err(breach("an answer that was not asked for"));
        };
        let next = next.take();
        refresh.rewind = match (reply.complete, next) {
            (false, next) => Rewind::Rest { next },
            (true, None) => Rewind::Complete,
            (true, next) => Rewind::List(next),
        };
        refresh.read_at(&self.options, reply.snapshot, None)?;
        let (base, round) = (refresh.base, refresh.round);
        let clear = |record: crate::Record| {
            if record.uid > base { record.cleared() } else { record }
        };
        let mut records: Vec<_> = reply.records.into_iter().map(clear).collect();
        if planted!(self.options, RewindForgetsAbsent) {
            records.retain(|record| record.kind != RecordKind::Absent);
        }
        let bytes: u64 = records.iter().map(crate::Record::weight).sum();
        self.took(records.len(), bytes);
        self.actions.push_back(Action::StoreRewind { round, records });
        self.advance(now);
        Ok(())
    }

    /// Counts records that came.
    pub(super) fn took(&mut self, records: usize, bytes: u64) {
        self.status.counters.records += records as u64;
        self.status.counters.refresh_bytes += bytes;
        if let Phase::Refreshing(refresh) = &mut self.phase {
            refresh.bytes = refresh.bytes.saturating_add(bytes);
            refresh.storing += 1;
        }
    }

    /// Does what a refresh can do next: ask for more, or install.
    pub(super) fn advance(&mut self, now: Millis) {
        let Phase::Refreshing(refresh) = &mut self.phase else {
            return;
        };
        if let Some(request) = refresh.grant(&self.options) {
            self.actions.push_back(Action::Send(Message::DeltaRequest(request)));
        }
        match &mut refresh.rewind {
            Rewind::List(cursor) => {
                let cursor = cursor.take();
                let (round, above) = (refresh.round, refresh.since);
                let bytes_max = self.options.rewind_request_bytes;
                refresh.rewind = Rewind::Listing;
                self.actions.push_back(Action::ReadRewindItems { round, above, cursor, bytes_max });
            }
            Rewind::Rest { next } if refresh.storing == 0 => {
                let next = next.take();
                refresh.rewind = Rewind::Asked { next };
                let request = RewindRequest { round: refresh.round, items: Vec::new() };
                self.actions.push_back(Action::Send(Message::RewindRequest(request)));
            }
            Rewind::Complete | Rewind::Listing | Rewind::Asked { .. } | Rewind::Rest { .. } => {}
        }
        self.advance_comparison();
        let Phase::Refreshing(refresh) = &mut self.phase else {
            return;
        };
        if refresh.is_complete(&self.options)
            && let Some(cut) = refresh.cut(&self.options, self.primary_durable)
        {
            self.actions.push_back(Action::Install(refresh.install(cut)));
            self.start_installing(now);
        }
    }

    fn start_installing(&mut self, now: Millis) {
        let phase = std::mem::replace(&mut self.phase, Phase::Apart { until: now });
        self.phase = match phase {
            Phase::Refreshing(refresh) => Phase::Installing(refresh),
            other => other,
        };
    }

    /// The engine has installed a refresh: follow from there, or begin the next round after a hop.
    pub(super) fn installed(&mut self, refresh: Refresh, local: Local, now: Millis) {
        self.status.diverged = false;
        self.status.counters.refreshes += 1;
        if refresh.comparison.is_some() {
            self.status.counters.reconciles += 1;
            self.bulk = None;
            self.kept = false;
            self.reconcile_failures = 0;
        }
        self.asked = None;
        self.note_settled();
        self.feeds_under = Some(refresh.epoch);
        let received = local.appended;
        self.local = local;
        // A partial copy has no other rounds; they say nothing of the link.
        if refresh.pinned && self.partial.is_none() {
            self.status.counters.hops += 1;
            let progress = &mut self.status.progress;
            progress.hop_before_bytes = progress.hop_bytes.replace(refresh.bytes);
        }
        self.without_live = false;
        if !self.connected {
            return self.part(now);
        }
        if self.partial.is_some() && !refresh.again {
            return self.rest(refresh.epoch, now);
        }
        if refresh.pinned || refresh.again {
            self.phase = Phase::Settling { asked: false };
            return self.settle();
        }
        // What came while the engine installed carries on from what was installed.
        let mut tail = Tail::new(received, refresh.epoch, refresh.target);
        tail.received_bytes = refresh.passed_bytes;
        self.phase = Phase::Tailing(tail);
        if self.local.history != refresh.history {
            self.local.history = refresh.history.clone();
            self.actions.push_back(Action::PersistHistory(refresh.history));
        }
        if let Err((code, why)) = self.log(refresh.held) {
            self.end(code, &why, now);
        }
    }
}
