use bytes::Bytes;
use planaria_types::{Epoch, HistoryHash, InstanceId, Portion, TableId, Uid};

use crate::{Commit, Message, PromotableSets, Record, RewindItem, Span, Tiling};

/// What a [`super::Group`] wants done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupAction {
    /// Write the promotable sets down in the system fragment, by a commit; then call
    /// [`super::Group::handle_promotable`] with it, or [`super::Group::handle_promotable_failed`]. The primary itself is
    /// among them.
    PersistPromotable(PromotableSets),
    /// A newer epoch exists: stop taking updates. Nothing that a protected level acknowledged is at risk, because
    /// those who acknowledge refuse this epoch from now on.
    Deposed(Epoch),
    /// A copy has promised this epoch, which has the number of the one led under, and holds nothing of it: it follows nobody
    /// under that number. Begin the next incarnation, durably, unless the epoch led under is newer by now; then call
    /// [`super::Group::handle_began`] before anything more is committed or told, and commit something under it.
    BeginAbove(Epoch),
    /// This copy is gone for good, and another one has its place: forget its position, durably; then call
    /// [`super::Group::handle_let_go`], or [`super::Group::handle_let_go_failed`].
    LetGo(InstanceId),
}

/// What a [`super::Session`] wants done, in this order.
///
/// Reads are answered by the `handle_*` call named, once each, at any time later.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SessionAction {
    /// Send on the message's lane.
    Send(Message),
    /// End the session: close the connection once everything before has been sent, and release its pin, if any.
    Close,
    /// Remember the durable position of a secondary, so that delete marks above it are kept.
    Register {
        /// The copy.
        instance: InstanceId,
        /// Its name, for people.
        name: String,
        /// Everything up to this UID is durable there, and shared with this primary.
        durable: Uid,
    },
    /// Tell what a handshake depends on: [`super::Session::handle_survey`].
    Survey {
        /// Goes back with the answer.
        round: u64,
        /// The last UID that the secondary shares with this primary.
        since: Uid,
        /// What a partial copy is to hold. Until the next survey deltas, parts and ranges are read as if the database held
        /// nothing else: what of it exists at the round's pinned snapshot, and all that the database says of itself.
        portion: Option<Portion>,
    },
    /// Read commits in order: [`super::Session::handle_commits`].
    ReadCommits {
        /// Goes back with the answer.
        round: u64,
        /// The first commit to read is the one right above this UID.
        after: Uid,
        /// Stop when the commits weigh this much, but give at least one.
        bytes_max: u64,
    },
    /// Read a chunk of a delta: [`super::Session::handle_delta`].
    ReadDelta {
        /// Goes back with the answer.
        round: u64,
        /// Only records whose newest version is above this UID.
        since: Uid,
        /// Only keys above this one.
        cursor: Option<(TableId, Bytes)>,
        /// Wait until the visible snapshot has reached this UID.
        at_least: Uid,
        /// Read at one snapshot for the whole round, pinned at its first read.
        pinned: bool,
        /// Stop when the records weigh this much, but give at least one if there is one.
        bytes_max: u64,
    },
    /// Read the newest state of keys and ranges: [`super::Session::handle_states`].
    ReadStates {
        /// Goes back with the answer.
        round: u64,
        /// What to read.
        items: Vec<RewindItem>,
        /// Wait until the visible snapshot has reached this UID.
        at_least: Uid,
        /// Read at the round's pinned snapshot, which is pinned now if it was not before.
        pinned: bool,
        /// Stop when the records weigh this much, but finish at least one record.
        bytes_max: u64,
    },
    /// Cut spans into parts and take their fingerprints: [`super::Session::handle_parts`].
    ReadParts {
        /// Goes back with the answer.
        round: u64,
        /// The spans; none for all tables from their first key to their last.
        spans: Vec<Span>,
        /// Into how many parts each is cut, at most.
        parts: u32,
        /// Wait until the visible snapshot has reached this UID.
        at_least: Uid,
        /// Read at the round's pinned snapshot, which is pinned now if it was not before.
        pinned: bool,
    },
    /// Read the live records of spans: [`super::Session::handle_ranges`].
    ReadRanges {
        /// Goes back with the answer.
        round: u64,
        /// The spans.
        spans: Vec<Span>,
        /// Wait until the visible snapshot has reached this UID.
        at_least: Uid,
        /// Read at the round's pinned snapshot, which is pinned now if it was not before.
        pinned: bool,
        /// Stop when the records weigh this much, but give at least one if there is one.
        bytes_max: u64,
    },
    /// Release the pinned snapshot, if there is one: the round is over.
    ReleasePin,
}

/// What a handshake depends on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Survey {
    /// The round that was asked for.
    pub round: u64,
    /// Whether the log or the ring holds every commit above the position.
    pub retained: bool,
    /// The history hash at the position, if known.
    pub hash: Option<HistoryHash>,
    /// The mark floor.
    pub mark_floor: Uid,
    /// The snapshot that a read would see now.
    pub visible: Uid,
    /// The history hash at `visible`, if known.
    pub visible_hash: Option<HistoryHash>,
    /// Estimated bytes of the commits above the position.
    pub tail_bytes: u64,
    /// Estimated bytes of the records that changed above the position.
    pub delta_bytes: u64,
    /// Bytes of all run files.
    pub total_bytes: u64,
}

/// Commits that were read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CommitsRead {
    /// In order; empty if there are none yet.
    Commits(Vec<Commit>),
    /// The log no longer holds them all.
    NotRetained,
}

/// A chunk of a delta that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeltaRead {
    /// The records.
    Chunk {
        /// The snapshot that was read.
        snapshot: Uid,
        /// The history hash at the snapshot, if known.
        snapshot_hash: Option<HistoryHash>,
        /// The mark floor of the version of the store that was read.
        mark_floor: Uid,
        /// The records, in key order, range deletes first.
        records: Vec<Record>,
        /// Where the next chunk goes on; `None` after the last.
        next: Option<(TableId, Bytes)>,
    },
    /// The pinned snapshot was given up under the caps.
    PinExpired,
}

/// States that were read for a rewind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StatesRead {
    /// The states.
    States {
        /// The snapshot that was read.
        snapshot: Uid,
        /// The newest state of each key, absence included; for a range, all records in it and then its absence.
        records: Vec<Record>,
        /// What did not fit.
        rest: Vec<RewindItem>,
    },
    /// The pinned snapshot was given up under the caps.
    PinExpired,
}

/// Parts that were read for a comparison.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PartsRead {
    /// The parts.
    Parts {
        /// The snapshot that was read.
        snapshot: Uid,
        /// One for each span, in the same order; for each table that exists, if none was named.
        tilings: Vec<Tiling>,
    },
    /// The pinned snapshot was given up under the caps.
    PinExpired,
}

/// Records that were read for ranges that differ.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RangesRead {
    /// The records.
    Ranges {
        /// The snapshot that was read.
        snapshot: Uid,
        /// How many spans were read wholly.
        done: u32,
        /// The first key of the span behind them that was not looked at; `None` if nothing of it was.
        next: Option<Bytes>,
        /// All live records of what was read, by span and key.
        records: Vec<Record>,
    },
    /// The pinned snapshot was given up under the caps.
    PinExpired,
}
