use bytes::Bytes;
use planaria_types::{Epoch, History, HistoryHash, Position, TableId, Uid};

use crate::{Commit, Message, Reason, Record, Resume, RewindItem, Span};

/// What is kept of a delta that was interrupted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptDelta {
    /// The position that it is on top of.
    pub since: Uid,
    /// How far it has come, as a primary is told.
    pub resume: Resume,
    /// What was taken in so far, in bytes of keys and rows.
    pub bytes: u64,
}

impl KeptDelta {
    pub(super) fn is_further_than(&self, other: Option<&Self>) -> bool {
        other.is_none_or(|other| self.resume.upto > other.resume.upto)
    }
}

/// What a copy holds, as its engine tells it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Local {
    /// The history.
    pub history: History,
    /// The last UID in the log.
    pub appended: Uid,
    /// The last durable UID.
    pub durable: Uid,
    /// The history hash at `appended`, if known.
    pub hash: Option<HistoryHash>,
    /// The visible cut.
    pub visible: Uid,
    /// Reads as of a UID, and clips, work at or above it.
    pub version_floor: Uid,
    /// No delete mark above it has been dropped.
    pub mark_floor: Uid,
    /// Open intervals that no cut may lie in.
    pub sparse: Vec<(Uid, Uid)>,
}

impl Local {
    /// Whether what lies above `fork` can be cut off, so that the copy reads as it did at `fork`.
    pub fn can_clip(&self, fork: Uid) -> bool {
        fork >= self.version_floor && !self.sparse.iter().any(|&(start, end)| start < fork && fork < end)
    }

    /// Whether every key that was changed above `fork` is known, so that it can be asked for.
    pub fn can_rewind(&self, fork: Uid) -> bool {
        fork >= self.mark_floor
    }

    /// Notes that everything above `to` was taken back.
    pub(super) fn take_back(&mut self, fork: &Position, hash: Option<HistoryHash>) {
        let to = fork.uid;
        self.history.truncate(fork);
        self.appended = to;
        self.durable = to;
        self.hash = hash;
        self.visible = self.visible.min(to);
        self.sparse.retain(|&(start, _)| start < to);
    }
}

/// A refresh that is complete, to be installed by one manifest edit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Install {
    /// Everything up to this UID is now complete: what the copy had, with the rewound keys replaced, and the delta on top.
    pub base: Uid,
    /// The history hash at `base`, if known.
    pub base_hash: Option<HistoryHash>,
    /// The history from now on.
    pub history: History,
    /// Commits above the base, in order, to be in the log from now on.
    pub commits: Vec<Commit>,
    /// No cut above `sparse_from` and below `sparse_to` is readable from now on.
    pub sparse_from: Uid,
    /// See `sparse_from`. With `rewound`, no cut below it at all: it becomes the version floor.
    pub sparse_to: Uid,
    /// Whether keys were rewound, which leaves them no older versions.
    pub rewound: bool,
    /// Whether ranges were compared and replaced. What the copy has above the base disappears, no older versions are
    /// left, and delete marks are gone from what was replaced: version floor and mark floor rise to the cut.
    pub reconciled: bool,
    /// The new visible cut.
    pub cut: Uid,
}

/// What a [`super::Replica`] wants done.
///
/// Actions are carried out one after the other, in this order: what is durable by an earlier one is durable before a
/// later one begins. Those that name a `handle_*` call are answered by it, once, at any time later; a driver may
/// begin the next action before the answer. A failure of any of them is told by [`super::Replica::handle_failure`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Connect to the primary: [`super::Replica::handle_connected`] or [`super::Replica::handle_disconnected`].
    Connect,
    /// Close the connection once everything before has been sent. Not answered.
    Disconnect,
    /// Send on the message's lane.
    Send(Message),
    /// Make the log durable up to its end: [`super::Replica::handle_durable`].
    Sync,
    /// Make the promise durable to follow no epoch older than this.
    PersistEpoch(Epoch),
    /// Make this the durable history.
    PersistHistory(History),
    /// Look up the history hash at a UID: [`super::Replica::handle_hash`].
    ReadHash(Uid),
    /// Keep what the copy shows above the fork as an extract, durably. Doing it twice changes nothing.
    Quarantine {
        /// The fork.
        above: Uid,
        /// The visible cut.
        through: Uid,
    },
    /// Cut off everything above this position, durably; the visible cut falls to it, and the history is truncated to its
    /// epoch. A floor that has passed it is a failure. With it comes the history hash there as the primary knows it, if it does:
    /// the copy's own log may not reach back so far.
    TakeBack(Position, Option<HistoryHash>),
    /// Append commits to the log: [`super::Replica::handle_appended`], and [`super::Replica::handle_durable`] whenever more of
    /// the log becomes durable. A commit that does not follow the end of the log is a failure.
    Append(Vec<Commit>),
    /// Raise the visible cut.
    Show(Uid),
    /// Begin to collect a refresh. One that was begun before is abandoned.
    BeginRefresh {
        /// The round, for [`Action::StoreDelta`], [`Action::ReadRewindItems`] and [`Action::StoreRewind`].
        round: u64,
        /// The position that the delta is on top of.
        since: Uid,
        /// Whether keys will be rewound.
        rewind: bool,
    },
    /// Go on with the refresh that was suspended last. What is stored from now on begins with the first key again.
    ResumeRefresh {
        /// The round from now on.
        round: u64,
    },
    /// The round is over, and the refresh goes on in a later one: keep what was stored in this round, which has everything up to
    /// this key and position; or drop that, and keep what was kept before.
    /// Kept is what a later process can go on from, too: its machine is [`super::Replica::going_on_from`] this.
    SuspendRefresh(Option<KeptDelta>),
    /// Make what was stored so far durable, for a later process to go on from. The round goes on.
    KeepRefresh(KeptDelta),
    /// Collect records of a delta: [`super::Replica::handle_stored`].
    StoreDelta {
        /// Goes back with the answer.
        round: u64,
        /// The records.
        records: Vec<Record>,
    },
    /// List keys and deleted ranges with a local record above the fork: [`super::Replica::handle_rewind_items`].
    ReadRewindItems {
        /// Goes back with the answer.
        round: u64,
        /// The fork.
        above: Uid,
        /// Only what comes after it in the engine's order.
        cursor: Option<(TableId, Bytes)>,
        /// Stop when the items weigh this much, but give at least one if there is one.
        bytes_max: u64,
    },
    /// Collect the newest states of keys: [`super::Replica::handle_stored`].
    StoreRewind {
        /// Goes back with the answer.
        round: u64,
        /// The states, absence included.
        records: Vec<Record>,
    },
    /// Begin to replace ranges, or go on with what was replaced in an earlier round and not abandoned since:
    /// [`super::Replica::handle_reconcile_begun`].
    BeginReconcile {
        /// Goes back with the answer.
        round: u64,
        /// What the copy has above this UID is taken to be gone. Nothing below it is, whatever the fork.
        base: Uid,
    },
    /// Take the fingerprints of the copy's own records, with what was replaced in place of what it replaces, at the
    /// base: [`super::Replica::handle_sums`].
    SumSpans {
        /// Goes back with the answer.
        round: u64,
        /// The spans.
        spans: Vec<Span>,
    },
    /// Collect the records of spans, in place of all that the copy has there: [`super::Replica::handle_stored`].
    StoreRanges {
        /// Goes back with the answer.
        round: u64,
        /// The spans.
        spans: Vec<Span>,
        /// Their records, puts at or below the base, by span and key.
        records: Vec<Record>,
    },
    /// Drop what was collected, the ranges of earlier rounds included.
    AbandonRefresh,
    /// Install the refresh: [`super::Replica::handle_installed`], even if the session ended meanwhile.
    Install(Install),
    /// Fetch run files and install them, together with the history of the source:
    /// [`super::Replica::handle_bulk_installed`] or [`super::Replica::handle_failure`].
    FetchBulk {
        /// Why.
        reason: Reason,
        /// Estimated bytes.
        bytes: u64,
        /// Install no state below this UID: the copy may have acknowledged everything up to it.
        at_least: Uid,
    },
    /// Stop fetching run files, but keep what was fetched for the next attempt. Once this was carried out, none of
    /// them are installed without a new [`Action::FetchBulk`].
    AbandonBulk,
}

/// The keys that a rewind asks for, as read from the engine.
pub(super) type RewindCursor = Option<(TableId, Bytes)>;

/// Keeps the type of an answer next to its question.
pub(super) type RewindItems = Vec<RewindItem>;
