//! The control center's decisions: which copy a clone is taken from, which clones begin and how fast, and who leads after a
//! primary was lost.
//!
//! Pure functions. What the nodes reported and how long ago is an argument; the answer is a choice with a reason for every
//! copy that was looked at, to be shown and stored.

mod gates;
mod place;
mod queue;
mod route;
mod source;
mod stored;
mod succession;
#[cfg(test)]
mod testing;

pub use gates::{Ceiling, Gate, GateKind, Limits, Place};
pub use place::{Distance, LABELS, Labels};
pub use queue::{
    KEEPS_AFTER_MS, Plan, Priority, QueuedSource, RISES_AFTER_MS, RunningClone, Start, Wait, WaitReason,
    WaitingClone, plan,
};
pub use route::{ReadCopy, ReadReason, ReadVerdict, choose_readers};
pub use source::{
    Destination, Obstacle, SourceChoice, SourceCopy, SourceReason, SourceRule, SourceVerdict, StoreAccess,
    choose_source,
};
pub use stored::{StoredState, WhyNoState, choose_stored};
pub use succession::{
    Contender, ContenderReason, ContenderVerdict, Reign, Succession, SuccessionRule, WhyNobody,
    choose_successor,
};

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a copy of a database is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum InstanceRole {
    /// It takes updates.
    Primary,
    /// It follows, and may lead next.
    #[default]
    Standby,
    /// It follows, and clones are taken from it.
    Backup,
}

impl InstanceRole {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Primary, Self::Standby, Self::Backup];

    /// Its name in commands and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby => "standby",
            Self::Backup => "backup",
        }
    }
}

impl fmt::Display for InstanceRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a copy stands to its group, as its node reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum CopyState {
    /// It leads.
    Primary,
    /// It led, and knows that another one does.
    Deposed,
    /// It has reached the tail of its primary.
    Online,
    /// It has a session, and has not reached the tail.
    Stale,
    /// It is being refreshed.
    Refreshing,
    /// It has no session with a primary.
    #[default]
    Offline,
    /// It holds a portion of the database alone: it leads never, and is a source of nothing.
    Partial,
}

impl CopyState {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Primary,
        Self::Deposed,
        Self::Online,
        Self::Stale,
        Self::Refreshing,
        Self::Offline,
        Self::Partial,
    ];

    /// Its name in commands and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Deposed => "deposed",
            Self::Online => "online",
            Self::Stale => "stale",
            Self::Refreshing => "refreshing",
            Self::Offline => "offline",
            Self::Partial => "partial",
        }
    }
}

impl fmt::Display for CopyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
