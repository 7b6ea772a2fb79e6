use std::fmt;

use bytes::Bytes;
use planaria_types::{
    DatabaseId, Epoch, GroupId, History, HistoryEntry, HistoryHash, InstanceId, Portion, Position, TableId,
    Uid,
};
use serde::{Deserialize, Serialize};

use crate::{
    CHAIN_MAX, Commit, Compare, Parts, RangesReply, RangesRequest, Reason, Record, RecordKind, RewindItem,
    Way,
};

/// The version of the messages in this file.
pub const PROTOCOL_VERSION: u16 = 1;

/// A feature: copies that hold a portion of the database are served.
pub(crate) const FEATURE_PORTIONS: u64 = 1;
/// The optional features that this side understands.
pub(crate) const FEATURES: u64 = FEATURE_PORTIONS;

const NAME_BYTES_MAX: usize = 255;
/// The most former instances that a hello names.
pub(crate) const FORMER_MAX: usize = 8;
const TEXT_BYTES_MAX: usize = 4_096;
const HISTORY_ENTRIES_MAX: usize = 65_536;
const ITEMS_MAX: usize = 1 << 20;

/// The stream of a session that a message travels on. Messages of one lane arrive in order; lanes are independent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// Everything that is small or live. Outranks bulk.
    Control,
    /// Records of deltas and rewinds; parts and records of ranges.
    Bulk,
}

/// What the two sides of a session say to each other.
///
/// New variants are added at the end, because encodings may number them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// Secondary: who and where I am. Opens a session, and each further round in it.
    Hello(Box<Hello>),
    /// Primary: how you will be brought up to date.
    Welcome(Box<Welcome>),
    /// Primary: you will not.
    Refused(Refused),
    /// Primary: commits, and news of what is durable.
    Live(Live),
    /// Secondary: what is durable, visible and received.
    Ack(Ack),
    /// Secondary: send chunks of the delta, up to this number.
    DeltaRequest(DeltaRequest),
    /// Primary: a chunk of the delta.
    DeltaChunk(DeltaChunk),
    /// Secondary: tell me the newest state of these.
    RewindRequest(RewindRequest),
    /// Primary: the newest state.
    RewindReply(RewindReply),
    /// Primary: this round cannot go on; say hello again.
    Again(Again),
    /// Either: I am there.
    Heartbeat,
    /// Either: the session ends.
    Bye(Bye),
    /// Secondary: tell me the fingerprints of the parts of these spans.
    Compare(Compare),
    /// Primary: the fingerprints.
    Parts(Parts),
    /// Secondary: tell me all records of these spans.
    RangesRequest(RangesRequest),
    /// Primary: the records, which take the place of what the copy has there.
    RangesReply(RangesReply),
}

/// The first message of a round.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The lowest protocol version understood.
    pub version_min: u16,
    /// The highest protocol version understood.
    pub version_max: u16,
    /// A bit set of optional features understood.
    pub features: u64,
    /// The database that the copy is of.
    pub database: DatabaseId,
    /// The copy.
    pub instance: InstanceId,
    /// The name of the copy, for people. At most 255 bytes.
    pub name: String,
    /// The group.
    pub group: GroupId,
    /// Rises with each hello of one process; everything that belongs to a round repeats it.
    pub round: u64,
    /// The newest epoch that the copy has durably promised to follow.
    pub promised: Epoch,
    /// The copy's history.
    pub history: History,
    /// The last UID up to which the copy holds everything, durably.
    pub durable: Uid,
    /// The history hash at `durable`, if known.
    pub hash: Option<HistoryHash>,
    /// The live stream cannot be held during a delta: hop to a pinned snapshot first.
    pub without_live: bool,
    /// The copy cannot be brought up to date by what changed since its position, for this reason.
    pub bulk: Option<Reason>,
    /// The way that an operator asked for. It is taken where it leads to the primary's state.
    pub asked: Option<Way>,
    /// What a partial copy is to hold; none of a copy that holds everything. It takes the feature bit 0.
    pub portion: Option<Portion>,
    /// The copies that this one has taken the place of in its directory, newest first; at most 8. They are gone for good, and this
    /// one has at least what they had acknowledged and promised.
    pub former: Vec<InstanceId>,
    /// What is kept of a delta that was interrupted: the next one goes on from there, if the primary has that history.
    pub resume: Option<Resume>,
}

/// What a copy keeps of a delta from its durable position that was interrupted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resume {
    /// Up to this key in this table, in the order of tables and keys, it has the records whose newest version was at or below
    /// `base`. What is newer, and what lies behind the key, is still to come.
    pub upto: (TableId, Bytes),
    /// Where the live stream began that would have brought what is newer.
    pub base: Uid,
    /// The highest position that was read at. A record that was newer than the base there must still be.
    pub read_at: Position,
}

/// The answer to a hello.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol version chosen.
    pub version: u16,
    /// The optional features that both sides understand.
    pub features: u64,
    /// The round that this answers.
    pub round: u64,
    /// The primary's epoch.
    pub epoch: Epoch,
    /// The primary's history.
    pub history: History,
    /// The last position that both share. What the copy has beyond it must be taken back.
    pub fork: Position,
    /// The history hash at the fork, if known.
    pub fork_hash: Option<HistoryHash>,
    /// The way of the refresh.
    pub way: Way,
    /// Why this way.
    pub reason: Reason,
    /// Estimated bytes to move.
    pub bytes: u64,
    /// The live stream carries every commit above this UID: the fork for a tail, S0 for a delta.
    pub live_from: Uid,
    /// The history hash at `live_from`, if known.
    pub live_from_hash: Option<HistoryHash>,
    /// The last UID that the primary had appended; a copy that reached it is online.
    pub tail: Uid,
    /// The last UID that is durable on the primary.
    pub durable: Uid,
    /// Whether the sender follows, too, and passes on what it has. What is said of the primary is then what the sender may
    /// pass on: it ends at its visible cut.
    pub fed: bool,
    /// The copies that commits come through, from the sender to the primary, as far as is known; at most [`CHAIN_MAX`].
    pub chain: Vec<InstanceId>,
    /// The delta goes on from what the hello says is kept.
    pub resumes: bool,
}

/// Why a hello was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Refusal {
    /// No protocol version in common.
    Version,
    /// The copy is of another database.
    ForeignDatabase,
    /// The primary does not lead this group here.
    UnknownGroup,
    /// The hello came from the primary's own instance: a directory was copied.
    SameInstance,
    /// The copy and the primary have no epoch in common.
    UnrelatedHistory,
    /// The copy has promised a newer epoch: this primary is deposed.
    Deposed,
    /// Two primaries lead under one number. Neither is followed until a new term.
    EpochConflict,
    /// A newer session of the same copy exists.
    Superseded,
    /// A copy that says to be partial counts for levels as one that holds everything.
    CountsAsWhole,
    /// A copy that was partial says to hold everything.
    WasPartial,
    /// The copy that is followed follows as well, and has not yet what the one that asks has, or not its epoch.
    Behind,
    /// The copy that is followed follows as well, and may not pass on what it has: it has not heard of a primary that
    /// shares it, or is being brought up to date itself.
    NotReady,
    /// The copy that is followed follows the one that asks.
    Loop,
    /// The chain of copies is too long.
    TooDeep,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "no protocol version in common: upgrade the older side",
            Self::ForeignDatabase => "the copy is of another database: check the address, or clone anew",
            Self::UnknownGroup => "the group is not led here: check the address",
            Self::SameInstance => {
                "the copy has the primary's own instance id: clone instead of copying a directory"
            }
            Self::UnrelatedHistory => "the histories have no epoch in common: clone anew",
            Self::Deposed => "the copy has promised a newer epoch: this primary is deposed",
            Self::EpochConflict => {
                "two primaries lead under one epoch number, as after a directory was copied or put back from an older state: promote a copy that \
                 has more, or start the one anew that is to lead"
            },
            Self::Superseded => "a newer session of this copy exists",
            Self::CountsAsWhole => {
                "the copy counts as one that holds everything: forget it, and begin the partial one in an empty directory"
            }
            Self::WasPartial => {
                "the copy is registered as a partial one: begin one that holds everything in an empty directory"
            }
            Self::Behind => "the copy that is followed has less than this one: it is waited for",
            Self::NotReady => {
                "the copy that is followed is no primary, and follows none that shares what it has: it is waited for"
            }
            Self::Loop => "the copy that is followed follows this one: have one of them follow the primary",
            Self::TooDeep => "too many copies follow one another: follow one that is nearer to the primary",
        })
    }
}

/// The answer to a hello that cannot be served.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// The round that this answers.
    pub round: u64,
    /// Why.
    pub code: Refusal,
    /// The primary's epoch.
    pub epoch: Epoch,
}

/// A stretch of the live stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Live {
    /// The round.
    pub round: u64,
    /// The primary's epoch.
    pub epoch: Epoch,
    /// Epochs that began since the welcome and were not told yet; they come before the commits.
    pub began: Vec<HistoryEntry>,
    /// Commits, in order; may be empty.
    pub commits: Vec<Commit>,
    /// The last UID that is durable on the primary.
    pub durable: Uid,
    /// The stable UID.
    pub stable: Uid,
    /// No commit at or below this UID will follow.
    pub closed: Uid,
}

/// What a secondary has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ack {
    /// The round.
    pub round: u64,
    /// The epoch under which this is acknowledged; it is durable at the sender.
    pub epoch: Epoch,
    /// Everything up to this UID is durable here and on the primary.
    pub durable: Uid,
    /// Everything up to this UID is visible here.
    pub visible: Uid,
    /// The weight of all commits of this round that were taken in; gives the sender new credit.
    pub received_bytes: u64,
}

/// Permission to send chunks of a delta.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeltaRequest {
    /// The round.
    pub round: u64,
    /// Chunks with a number below this may be sent.
    pub grant: u64,
}

/// Records whose newest version is above the fork, in key order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DeltaChunk {
    /// The round.
    pub round: u64,
    /// The number of the chunk, from 0 on.
    pub number: u64,
    /// The snapshot that it was read at.
    pub snapshot: Uid,
    /// The history hash at the snapshot, if known.
    pub snapshot_hash: Option<HistoryHash>,
    /// The records.
    pub records: Vec<Record>,
    /// Whether this is the last chunk.
    pub last: bool,
}

/// A question of a rewind. Each is answered by exactly one reply.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RewindRequest {
    /// The round.
    pub round: u64,
    /// What to tell; empty to go on with what the last reply left over.
    pub items: Vec<RewindItem>,
}

/// An answer of a rewind.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RewindReply {
    /// The round.
    pub round: u64,
    /// The snapshot that it was read at.
    pub snapshot: Uid,
    /// The newest state of what was asked, absence included.
    pub records: Vec<Record>,
    /// Whether everything asked so far has been answered.
    pub complete: bool,
}

/// The round cannot go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Again {
    /// The round.
    pub round: u64,
    /// Why.
    pub reason: Reason,
}

/// Why a session ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ByeCode {
    /// One side shuts down in good order.
    Shutdown,
    /// The other side broke a rule of the protocol.
    Protocol,
    /// A commit does not follow the last one received.
    Gap,
    /// The message is of an epoch older than the one promised.
    OldEpoch,
    /// Two primaries lead under one epoch number.
    EpochConflict,
    /// Nothing was heard for too long.
    Timeout,
    /// A newer session of the same copy exists.
    Superseded,
    /// The primary is deposed.
    Deposed,
    /// The engine failed.
    Engine,
    /// What the copy was fed on is another one now: it says hello again.
    Moved,
    /// The copy that is followed follows this one.
    Loop,
}

impl fmt::Display for ByeCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shutdown => "shut down",
            Self::Protocol => "the protocol was broken",
            Self::Gap => "a commit is missing",
            Self::OldEpoch => "the epoch is older than the one promised",
            Self::EpochConflict => "two primaries lead under one epoch number",
            Self::Timeout => "nothing was heard for too long",
            Self::Superseded => "a newer session of this copy exists",
            Self::Deposed => "the primary is deposed",
            Self::Engine => "the engine failed",
            Self::Moved => "what it is fed on has changed",
            Self::Loop => "two copies follow each other",
        })
    }
}

/// The last message of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bye {
    /// Why.
    pub code: ByeCode,
    /// More, for people. At most 4 KiB.
    pub reason: String,
}

/// A message that no correct peer sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("invalid message: {0}")]
pub struct InvalidMessage(pub &'static str);

impl Message {
    /// The lane that the message travels on.
    pub const fn lane(&self) -> Lane {
        match self {
            Self::DeltaChunk(_) | Self::RewindReply(_) | Self::Parts(_) | Self::RangesReply(_) => Lane::Bulk,
            _ => Lane::Control,
        }
    }

    /// Checks what decoding alone does not: limits, and order within the message.
    ///
    /// # Errors
    ///
    /// Says which rule the message breaks. The session must end.
    pub fn validate(&self) -> Result<(), InvalidMessage> {
        match self {
            Self::Hello(hello) => validate_hello(hello),
            Self::Welcome(welcome) => validate_welcome(welcome),
            Self::Live(live) => validate_live(live),
            Self::DeltaChunk(chunk) => validate_chunk(chunk),
            Self::RewindRequest(request) if request.items.len() > ITEMS_MAX => {
                Err(InvalidMessage("too many keys in a rewind"))
            }
            Self::RewindReply(reply) if reply.records.len() > ITEMS_MAX => {
                Err(InvalidMessage("too many records in a rewind"))
            }
            Self::RewindReply(reply) if reply.records.iter().any(|record| record.uid > reply.snapshot) => {
                Err(InvalidMessage("a record is newer than its snapshot"))
            }
            Self::Compare(compare) => compare.validate(),
            Self::Parts(parts) => parts.validate(),
            Self::RangesRequest(request) => request.validate(),
            Self::RangesReply(reply) => reply.validate(),
            Self::Bye(bye) if bye.reason.len() > TEXT_BYTES_MAX => {
                Err(InvalidMessage("a reason is too long"))
            }
            _ => Ok(()),
        }
    }
}

fn validate_hello(hello: &Hello) -> Result<(), InvalidMessage> {
    if hello.name.len() > NAME_BYTES_MAX {
        return Err(InvalidMessage("a name is too long"));
    }
    if hello.former.len() > FORMER_MAX {
        return Err(InvalidMessage("too many former instances"));
    }
    if hello.version_min > hello.version_max {
        return Err(InvalidMessage("the protocol versions are in the wrong order"));
    }
    if let Some(portion) = &hello.portion {
        portion.validate().map_err(|_| InvalidMessage("a portion breaks its limits"))?;
        if hello.features & FEATURE_PORTIONS == 0 {
            return Err(InvalidMessage("a portion without its feature"));
        }
    }
    let kept = hello.resume.as_ref();
    if kept.is_some_and(|kept| kept.base < hello.durable || kept.read_at.uid < kept.base) {
        return Err(InvalidMessage("what is kept of a delta does not fit to the copy"));
    }
    validate_history(&hello.history)?;
    if hello.durable > Uid::ZERO && hello.history.entries().is_empty() {
        return Err(InvalidMessage("a copy with data has no history"));
    }
    Ok(())
}

fn validate_welcome(welcome: &Welcome) -> Result<(), InvalidMessage> {
    if welcome.live_from > Uid::ZERO && welcome.history.entries().is_empty() {
        return Err(InvalidMessage("a primary with data has no history"));
    }
    if welcome.chain.len() > CHAIN_MAX {
        return Err(InvalidMessage("too many copies follow one another"));
    }
    if welcome.resumes && !matches!(welcome.way, Way::Delta | Way::PinnedDelta) {
        return Err(InvalidMessage("only a delta goes on"));
    }
    validate_history(&welcome.history)
}

/// Checks a history that came from outside: its length, and that its epochs rise.
///
/// # Errors
///
/// What is wrong with it.
pub fn validate_history(history: &History) -> Result<(), InvalidMessage> {
    if history.entries().len() > HISTORY_ENTRIES_MAX {
        return Err(InvalidMessage("a history is too long"));
    }
    if history.entries().first().is_some_and(|first| first.inherited > Uid::ZERO) {
        return Err(InvalidMessage("the first epoch of a history inherits data of no epoch"));
    }
    // Decoding alone does not check the order of the entries.
    let ordered = History::from_entries(history.entries().to_vec());
    ordered.map(|_| ()).ok_or(InvalidMessage("the epochs of a history do not rise"))
}

fn validate_live(live: &Live) -> Result<(), InvalidMessage> {
    if live.commits.len() > ITEMS_MAX || live.began.len() > HISTORY_ENTRIES_MAX {
        return Err(InvalidMessage("too many commits in a message"));
    }
    if live.commits.iter().any(|commit| commit.uid <= commit.predecessor) {
        return Err(InvalidMessage("a commit is not above its predecessor"));
    }
    Ok(())
}

fn validate_chunk(chunk: &DeltaChunk) -> Result<(), InvalidMessage> {
    if chunk.records.len() > ITEMS_MAX {
        return Err(InvalidMessage("too many records in a chunk"));
    }
    if chunk.records.iter().any(|record| record.uid > chunk.snapshot) {
        return Err(InvalidMessage("a record is newer than its snapshot"));
    }
    let absent = |kind: &RecordKind| matches!(kind, RecordKind::Absent | RecordKind::RangeAbsent(_));
    if chunk.records.iter().any(|record| absent(&record.kind)) {
        return Err(InvalidMessage("a delta tells of absence"));
    }
    Ok(())
}
