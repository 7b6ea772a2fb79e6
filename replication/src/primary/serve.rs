//! What a session serves in one round: the live stream, a delta, a rewind.

use bytes::Bytes;
use planaria_types::{TableId, Uid};

use super::action::{DeltaRead, SessionAction, StatesRead};
use super::group::Group;
use crate::options::planted;
use crate::{Commit, DeltaChunk, Live, Message, Options, Reason, Resume, RewindItem, RewindReply, Welcome};

/// Why something read cannot be sent: the round must begin again, or the driver broke its contract.
pub(super) type Stop = Result<Reason, &'static str>;

/// The live stream of one round.
///
/// Invariant: `sent_bytes - received_bytes` stays below the window plus one commit; what the window does not allow
/// is not read.
#[derive(Debug)]
pub(super) struct LiveServing {
    with_commits: bool,
    sent: Uid,
    sent_bytes: u64,
    received_bytes: u64,
    reading: bool,
    told_durable: Uid,
    told_stable: Uid,
    told_closed: Uid,
    told_epochs: usize,
}

impl LiveServing {
    pub(super) fn new(welcome: &Welcome, with_commits: bool) -> Self {
        Self {
            with_commits,
            sent: welcome.live_from,
            sent_bytes: 0,
            received_bytes: 0,
            reading: false,
            told_durable: welcome.durable,
            told_stable: Uid::ZERO,
            told_closed: Uid::ZERO,
            told_epochs: welcome.history.entries().len(),
        }
    }

    pub(super) fn stop(&mut self) {
        self.with_commits = false;
    }

    /// The copy shows everything up to `visible`, though it was sent no commit of it.
    pub(super) fn installed(&mut self, visible: Uid) {
        self.sent = self.sent.max(visible);
    }

    /// Takes an acknowledgement of received bytes; false if more was received than sent.
    pub(super) fn credit(&mut self, received_bytes: u64) -> bool {
        self.received_bytes = self.received_bytes.max(received_bytes);
        received_bytes <= self.sent_bytes
    }

    pub(super) fn poll(&mut self, group: &Group, options: &Options, round: u64) -> Option<SessionAction> {
        let room =
            options.live_window_bytes.saturating_sub(self.sent_bytes.saturating_sub(self.received_bytes));
        if self.with_commits && !self.reading && room > 0 && group.appended() > self.sent {
            self.reading = true;
            let bytes_max = room.min(options.live_batch_bytes);
            return Some(SessionAction::ReadCommits { round, after: self.sent, bytes_max });
        }
        let news = group.durable() > self.told_durable
            || group.stable() > self.told_stable
            || self.closed(group) > self.told_closed
            || group.history().entries().len() > self.told_epochs;
        news.then(|| SessionAction::Send(Message::Live(self.frame(group, round, Vec::new()))))
    }

    /// Turns commits that were read into a message. The log may have grown since the group was told of its end: what is
    /// beyond is read again.
    pub(super) fn take(
        &mut self,
        group: &Group,
        round: u64,
        mut commits: Vec<Commit>,
    ) -> Result<Option<Live>, &'static str> {
        self.reading = false;
        commits.retain(|commit| commit.uid <= group.appended());
        if !self.with_commits || commits.is_empty() {
            return Ok(None);
        }
        for commit in &commits {
            if commit.predecessor != self.sent {
                return Err("the log gave commits out of order");
            }
            self.sent = commit.uid;
            self.sent_bytes = self.sent_bytes.saturating_add(commit.weight());
        }
        Ok(Some(self.frame(group, round, commits)))
    }

    /// A closed UID may only be told when every commit at or below it has been sent.
    fn closed(&self, group: &Group) -> Uid {
        if self.sent >= group.appended() { group.closed() } else { group.closed().min(self.sent) }
    }

    fn frame(&mut self, group: &Group, round: u64, commits: Vec<Commit>) -> Live {
        let began = group.history().entries().get(self.told_epochs..).unwrap_or_default().to_vec();
        self.told_epochs = group.history().entries().len();
        self.told_durable = group.durable();
        self.told_stable = group.stable();
        self.told_closed = self.closed(group);
        Live {
            round,
            epoch: group.epoch(),
            began,
            commits,
            durable: self.told_durable,
            stable: self.told_stable,
            closed: self.told_closed,
        }
    }
}

/// A delta under way.
#[derive(Debug)]
pub(super) struct DeltaServing {
    since: Uid,
    at_least: Uid,
    pinned: bool,
    /// What the copy has kept of an earlier delta, until the chunks have got that far.
    resumed: Option<Resume>,
    cursor: Option<(TableId, Bytes)>,
    next_number: u64,
    granted: u64,
    reading: bool,
    done: bool,
}

impl DeltaServing {
    pub(super) fn new(since: Uid, at_least: Uid, pinned: bool, resumed: Option<Resume>) -> Self {
        Self {
            since,
            at_least,
            pinned,
            resumed,
            cursor: None,
            next_number: 0,
            granted: 0,
            reading: false,
            done: false,
        }
    }

    pub(super) fn grant(&mut self, grant: u64) {
        self.granted = self.granted.max(grant);
    }

    /// What the records that are read next are newer than.
    fn since(&self) -> Uid {
        self.resumed.as_ref().map_or(self.since, |resumed| resumed.base)
    }

    pub(super) fn poll(&mut self, options: &Options, round: u64) -> Option<SessionAction> {
        if let Some(resumed) = self.resumed.take_if(|_| planted!(options, ResumeAtCursor)) {
            self.cursor = Some(resumed.upto);
        }
        if self.reading || self.done || self.next_number >= self.granted {
            return None;
        }
        self.reading = true;
        Some(SessionAction::ReadDelta {
            round,
            since: self.since(),
            cursor: self.cursor.clone(),
            at_least: if planted!(options, LiveFromAppended) { Uid::ZERO } else { self.at_least },
            pinned: self.pinned,
            bytes_max: options.chunk_bytes,
        })
    }

    pub(super) fn take(
        &mut self,
        options: &Options,
        round: u64,
        read: DeltaRead,
    ) -> Result<DeltaChunk, Stop> {
        self.reading = false;
        let DeltaRead::Chunk { snapshot, snapshot_hash, mark_floor, mut records, mut next } = read else {
            return Err(Ok(Reason::PinExpired));
        };
        // The empty copy has nothing that a mark could delete.
        let since = self.since();
        if since > Uid::ZERO && mark_floor > since && !planted!(options, DeltaBelowMarkFloor) {
            return Err(Ok(Reason::MarksDropped));
        }
        if snapshot < self.at_least && !planted!(options, LiveFromAppended) {
            return Err(Err("a delta was read at too old a snapshot"));
        }
        if planted!(options, LoseCursor) && self.next_number == 1 {
            records.clear();
        }
        // Behind the key that the copy had got to, more is new to it.
        if let Some(resumed) = &self.resumed {
            let before = records
                .partition_point(|record| (record.table, &record.key) <= (resumed.upto.0, &resumed.upto.1));
            if before < records.len() || next.is_none() {
                records.truncate(before);
                next = self.resumed.take().map(|resumed| resumed.upto);
            }
        }
        self.done = next.is_none();
        self.cursor = next;
        let number = self.next_number;
        self.next_number += 1;
        Ok(DeltaChunk { round, number, snapshot, snapshot_hash, records, last: self.done })
    }
}

/// A rewind under way: one question at a time, each answered by one reply.
#[derive(Debug)]
pub(super) struct RewindServing {
    at_least: Uid,
    pinned: bool,
    rest: Vec<RewindItem>,
    asked: bool,
    reading: bool,
}

impl RewindServing {
    pub(super) fn new(at_least: Uid, pinned: bool) -> Self {
        Self { at_least, pinned, rest: Vec::new(), asked: false, reading: false }
    }

    /// Takes a question; false if one is still open.
    pub(super) fn ask(&mut self, items: Vec<RewindItem>) -> bool {
        let free = !self.asked && (items.is_empty() || self.rest.is_empty());
        if free {
            self.asked = true;
            if !items.is_empty() {
                self.rest = items;
            }
        }
        free
    }

    pub(super) fn poll(&mut self, options: &Options, round: u64) -> Option<SessionAction> {
        if !self.asked || self.reading {
            return None;
        }
        self.reading = true;
        Some(SessionAction::ReadStates {
            round,
            items: std::mem::take(&mut self.rest),
            at_least: self.at_least,
            pinned: self.pinned,
            bytes_max: options.rewind_reply_bytes,
        })
    }

    pub(super) fn take(&mut self, round: u64, read: StatesRead) -> Result<RewindReply, Stop> {
        self.reading = false;
        self.asked = false;
        let StatesRead::States { snapshot, records, rest } = read else {
            return Err(Ok(Reason::PinExpired));
        };
        if snapshot < self.at_least {
            return Err(Err("a rewind was read at too old a snapshot"));
        }
        let complete = rest.is_empty();
        self.rest = rest;
        Ok(RewindReply { round, snapshot, records, complete })
    }
}
