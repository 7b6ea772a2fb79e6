use planaria_types::{Position, Uid};

use super::copy::{CopyId, Way};
use super::ledger::{Changes, Key};

/// One step of the group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Op {
    /// A primary draws a UID and appends a commit.
    Commit {
        /// The primary, deposed or not.
        at: CopyId,
        /// What it writes.
        changes: Changes,
    },
    /// What was appended becomes durable; a connected secondary acknowledges.
    Sync {
        /// Where.
        at: CopyId,
    },
    /// What was not synced is lost, and with it every connection; the copy starts again at once.
    Crash {
        /// Where.
        at: CopyId,
    },
    /// The durable part of the log becomes a run.
    Flush {
        /// Where.
        at: CopyId,
    },
    /// Two neighbours of the stack become one.
    Merge {
        /// Where.
        at: CopyId,
        /// Index of the lower rectangle.
        lower: u8,
        /// Index of the upper rectangle.
        upper: u8,
    },
    /// A reader pins the visible cut.
    Pin {
        /// Where.
        at: CopyId,
    },
    /// All pins of a copy end.
    Unpin {
        /// Where.
        at: CopyId,
    },
    /// A copy shakes hands with a primary and follows it; a deposed primary becomes a secondary by it.
    Connect {
        /// The copy that follows.
        copy: CopyId,
        /// The primary.
        to: CopyId,
    },
    /// A connection breaks.
    Disconnect {
        /// The secondary.
        copy: CopyId,
    },
    /// The live stream brings the next commit, if there is one, and what the primary has durable and registered.
    Deliver {
        /// The secondary.
        copy: CopyId,
    },
    /// A refresh brings the next key, read at the primary's current snapshot.
    Chunk {
        /// The secondary.
        copy: CopyId,
    },
    /// A refresh is installed, with all fragments, at the lowest cut allowed.
    Install {
        /// The secondary.
        copy: CopyId,
    },
    /// The operator makes a copy the primary, under a new term.
    Promote {
        /// The copy.
        copy: CopyId,
    },
    /// A primary takes an absent secondary out of the promotable set.
    Leave {
        /// The primary.
        at: CopyId,
        /// The secondary.
        copy: CopyId,
    },
    /// A primary gives an absent secondary up: no delete mark is kept for it any more.
    GiveUp {
        /// The primary.
        at: CopyId,
        /// The secondary.
        copy: CopyId,
    },
}

/// What a step came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Done, with nothing to tell.
    Done,
    /// The commit has this position.
    Committed(Position),
    /// The handshake found this fork.
    Connected {
        /// Where both histories part.
        fork: Position,
        /// Commits that were shown beyond the fork and are in quarantine now.
        quarantined: usize,
        /// How the copy is repaired; `None` means that the log serves the tail.
        refresh: Option<Way>,
    },
    /// The refresh answered for this key.
    Chunk(Key),
    /// The copy reads at this cut now.
    Installed(Uid),
}

/// Why a step is not possible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// There is no such copy.
    UnknownCopy,
    /// Only a primary can do it.
    NotPrimary,
    /// Only a secondary can do it.
    NotSecondary,
    /// The commit is empty, names a key twice, or a key out of range.
    NotNormalised,
    /// Nothing would change.
    NothingToDo,
    /// The copy has no connection, or not in the state it takes.
    NotConnected,
    /// The copy is connected.
    Connected,
    /// The epoch is older than one that the copy has accepted.
    OldEpoch,
    /// The refresh has not heard of all keys, or the live stream has not passed the highest chunk snapshot.
    NotComplete,
    /// The primary has dropped delete marks that the delta would need: the copy must be replaced.
    BelowMarkFloor,
}

/// A fault planted in the model, to prove that the exploration would find it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Planted {
    /// Merges drop delete marks without asking the mark limit.
    DropMarksEarly,
    /// Merges drop shadowed versions without asking the stable UID or the snapshots.
    DropVersionsEarly,
    /// A merge forgets the sparse interval of what it merges.
    MergeAcrossGap,
    /// A delta is installed as if every cut inside it could be read.
    DeltaWithoutGap,
    /// A delta is installed at a cut below the highest chunk snapshot.
    InstallBelowSnapshot,
    /// The first key of a refresh shows before the others have come.
    InstallHalf,
    /// A delta is served from below the mark floor.
    DeltaBelowMarkFloor,
    /// A rewind is trusted although the copy itself dropped delete marks above the fork.
    RewindBelowMarkFloor,
    /// A clip is made below the version floor.
    ClipBelowVersionFloor,
    /// A clip is made inside a sparse interval.
    ClipInsideGap,
    /// A rewind leaves out the keys that the primary answers with absence.
    RewindWithoutAbsence,
    /// A secondary writes its own delete marks for what the primary answers with absence.
    SecondaryDrawsUid,
    /// What lies beyond the fork is kept.
    SkipClip,
    /// What is taken back is dropped.
    SkipQuarantine,
    /// The fork is the smaller of both ends, whatever the epochs say.
    ForkByWatermark,
    /// Taking back drops epochs by the UID that they inherited, not by the fork's epoch.
    ShortenHistoryByUid,
    /// A copy follows a primary of an older epoch than it has accepted.
    AcceptOldEpoch,
    /// A primary that starts again opens no new epoch and draws from its last durable UID.
    ReuseUid,
    /// A secondary shows what the primary has not made durable.
    ShowBeyondDurable,
    /// A secondary applies a commit whose predecessor it does not have.
    IgnorePredecessor,
    /// A crash keeps the first half of a torn commit.
    KeepTornCommit,
    /// A flush makes a run that overlaps the one below it.
    FlushOverlapping,
}

impl Planted {
    /// Every planted fault.
    pub const ALL: [Self; 22] = [
        Self::DropMarksEarly,
        Self::DropVersionsEarly,
        Self::MergeAcrossGap,
        Self::DeltaWithoutGap,
        Self::InstallBelowSnapshot,
        Self::InstallHalf,
        Self::DeltaBelowMarkFloor,
        Self::RewindBelowMarkFloor,
        Self::ClipBelowVersionFloor,
        Self::ClipInsideGap,
        Self::RewindWithoutAbsence,
        Self::SecondaryDrawsUid,
        Self::SkipClip,
        Self::SkipQuarantine,
        Self::ForkByWatermark,
        Self::ShortenHistoryByUid,
        Self::AcceptOldEpoch,
        Self::ReuseUid,
        Self::ShowBeyondDurable,
        Self::IgnorePredecessor,
        Self::KeepTornCommit,
        Self::FlushOverlapping,
    ];
}
