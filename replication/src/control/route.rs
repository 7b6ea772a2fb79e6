//! Which copies a client's reads go to.

use std::cmp::Reverse;
use std::fmt;

use planaria_types::InstanceId;

use super::{CopyState, InstanceRole};

/// A copy that reads might go to, as its node last reported it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadCopy {
    /// The copy.
    pub instance: InstanceId,
    /// What it is for when it does not lead.
    pub role: InstanceRole,
    /// How it is.
    pub state: CopyState,
    /// Whether its node has been heard lately.
    pub is_reachable: bool,
    /// Whether nothing of it has been taken back or is to be, and its checksums are clean, as far as is known.
    pub is_sound: bool,
    /// How old what it shows was when it reported, in milliseconds.
    pub age_ms: u64,
}

/// Why reads go to a copy, or do not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadReason {
    /// It leads: whatever a read must show, it has.
    Leads,
    /// It is fresh enough.
    Fresh,
    /// What it shows is older than a read may show.
    Old {
        /// By its last report, in milliseconds.
        age_ms: u64,
        /// What a read may show, in milliseconds.
        staleness_max_ms: u64,
    },
    /// Reads must show the newest, and it follows.
    Follows,
    /// Its node has not been heard lately.
    Unreachable,
    /// It led, and another one does.
    Deposed,
    /// It holds a portion of the database alone.
    Partial,
    /// Something of it is wrong, or is to be taken back.
    Unsound,
}

impl ReadReason {
    /// A stable name.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Leads => "leads",
            Self::Fresh => "fresh",
            Self::Old { .. } => "old",
            Self::Follows => "follows",
            Self::Unreachable => "unreachable",
            Self::Deposed => "deposed",
            Self::Partial => "partial",
            Self::Unsound => "unsound",
        }
    }

    /// Whether reads may go there.
    pub const fn serves(self) -> bool {
        matches!(self, Self::Leads | Self::Fresh)
    }
}

impl fmt::Display for ReadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leads => f.write_str("it leads"),
            Self::Fresh => f.write_str("it is fresh enough"),
            Self::Old { age_ms, staleness_max_ms } => {
                write!(f, "what it shows is {age_ms} ms old, {staleness_max_ms} ms are allowed")
            }
            Self::Follows => f.write_str("it follows, and the newest is wanted"),
            Self::Unreachable => f.write_str("its node was not heard lately"),
            Self::Deposed => f.write_str("it led, and another one does"),
            Self::Partial => f.write_str("it holds a portion alone"),
            Self::Unsound => f.write_str("something of it is wrong, or is to be taken back"),
        }
    }
}

/// What was found of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadVerdict {
    /// The copy.
    pub instance: InstanceId,
    /// Whether reads go there, and why.
    pub reason: ReadReason,
}

/// The copies in the order in which a client is to try them, those that do not serve last.
///
/// Without a bound on staleness the primary alone serves. With one, standbys that are fresh enough come first, in turns from
/// one client to the next, so that each gets its share; then backups, whose business is clones; then the primary, which
/// has to take all updates.
pub fn choose_readers(copies: &[ReadCopy], staleness_max_ms: Option<u64>, turn: u64) -> Vec<ReadVerdict> {
    let mut judged: Vec<_> = copies.iter().map(|copy| (copy, judge(copy, staleness_max_ms))).collect();
    // The same order on every call, whatever that of the copies; the turn moves on from there.
    judged.sort_by_key(|(copy, reason)| (Reverse(reason.serves()), rank(copy), copy.instance));
    let is_turned = |copy: &ReadCopy, reason: ReadReason, of: InstanceRole| {
        reason == ReadReason::Fresh && copy.role == of
    };
    for role in [InstanceRole::Standby, InstanceRole::Backup] {
        let first = judged.iter().position(|(copy, reason)| is_turned(copy, *reason, role));
        let count = judged.iter().filter(|(copy, reason)| is_turned(copy, *reason, role)).count();
        if let Some(alike) = first.and_then(|first| judged.get_mut(first..first + count)) {
            alike.rotate_left((turn % count as u64) as usize);
        }
    }
    judged.into_iter().map(|(copy, reason)| ReadVerdict { instance: copy.instance, reason }).collect()
}

fn rank(copy: &ReadCopy) -> u8 {
    match (copy.state, copy.role) {
        (CopyState::Primary, _) | (_, InstanceRole::Primary) => 2,
        (_, InstanceRole::Backup) => 1,
        (_, InstanceRole::Standby) => 0,
    }
}

fn judge(copy: &ReadCopy, staleness_max_ms: Option<u64>) -> ReadReason {
    if !copy.is_reachable {
        return ReadReason::Unreachable;
    }
    match copy.state {
        CopyState::Primary => return ReadReason::Leads,
        CopyState::Deposed => return ReadReason::Deposed,
        CopyState::Partial => return ReadReason::Partial,
        CopyState::Online | CopyState::Stale | CopyState::Refreshing | CopyState::Offline => {}
    }
    if !copy.is_sound {
        return ReadReason::Unsound;
    }
    match staleness_max_ms {
        None => ReadReason::Follows,
        Some(staleness_max_ms) if copy.age_ms > staleness_max_ms => {
            ReadReason::Old { age_ms: copy.age_ms, staleness_max_ms }
        }
        Some(_) => ReadReason::Fresh,
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
