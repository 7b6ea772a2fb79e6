use std::fmt;

use planaria_types::Uid;
use serde::{Deserialize, Serialize};

/// How a secondary is brought up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Way {
    /// The commits since its position, from the log.
    Tail,
    /// The records that changed since its position, while the live stream waits at the receiver.
    Delta,
    /// The records that changed since its position, at one pinned snapshot and without the live stream: one hop.
    PinnedDelta,
    /// The run files as they lie on disk.
    Bulk,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tail => "tail",
            Self::Delta => "delta",
            Self::PinnedDelta => "pinned delta",
            Self::Bulk => "bulk",
        })
    }
}

/// Why a way was chosen, or a round given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reason {
    /// The log still holds every commit since the position.
    LogHoldsAll,
    /// The log released commits that the position needs.
    LogReleased,
    /// The copy holds nothing.
    Empty,
    /// Delete marks above the position have been dropped, so that a delta would be incomplete.
    MarksDropped,
    /// The history hash at the fork differs: the copy cannot be trusted.
    HistoryHash,
    /// Run files are the cheaper way, because most of the data differs.
    MostDiffers,
    /// The live stream outgrew the receiver's buffer.
    LiveOverflow,
    /// The copy dropped delete marks above the fork, so that it cannot find what it must take back.
    ForkBelowMarks,
    /// The pinned snapshot of a round was given up under the caps.
    PinExpired,
}

impl Reason {
    /// A stable name for logs, metrics and JSON.
    pub const fn code(self) -> &'static str {
        match self {
            Self::LogHoldsAll => "log_holds_all",
            Self::LogReleased => "log_released",
            Self::Empty => "empty",
            Self::MarksDropped => "marks_dropped",
            Self::HistoryHash => "history_hash",
            Self::MostDiffers => "most_differs",
            Self::LiveOverflow => "live_overflow",
            Self::ForkBelowMarks => "fork_below_marks",
            Self::PinExpired => "pin_expired",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LogHoldsAll => "the log holds every commit since the position",
            Self::LogReleased => "the log no longer holds every commit since the position",
            Self::Empty => "the copy is empty",
            Self::MarksDropped => "delete marks above the position have been dropped",
            Self::HistoryHash => "the history hash differs at the fork",
            Self::MostDiffers => "most of the data differs",
            Self::LiveOverflow => "the live stream outgrew the receiver's buffer",
            Self::ForkBelowMarks => "the copy dropped delete marks above the fork",
            Self::PinExpired => "the pinned snapshot was given up",
        })
    }
}

/// What the choice of a way depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Situation {
    /// The last UID that the copy shares with the primary; [`Uid::ZERO`] if it is empty.
    pub since: Uid,
    /// Whether the log holds every commit above `since`.
    pub retained: bool,
    /// The primary's mark floor.
    pub mark_floor: Uid,
    /// Estimated bytes of a tail.
    pub tail_bytes: u64,
    /// Estimated bytes of a delta.
    pub delta_bytes: u64,
    /// Bytes of all run files.
    pub total_bytes: u64,
    /// Whether the receiver cannot hold the live stream during a delta.
    pub without_live: bool,
    /// Whether the copy's history agrees with the primary's as far as both are known.
    pub trusted: bool,
    /// The copy asked for a bulk refresh, for this reason.
    pub bulk: Option<Reason>,
    /// Below this many bytes of run files a bulk refresh is never chosen for its cost.
    pub bulk_bytes_min: u64,
}

/// A chosen way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The way.
    pub way: Way,
    /// Why.
    pub reason: Reason,
    /// Estimated bytes to move.
    pub bytes: u64,
}

/// Chooses the way of a refresh.
///
/// A tail if the log holds everything, else a delta if no mark that it needs was dropped, else bulk. Where a delta
/// or, for an empty copy, a tail would do but moves more than half as much as all run files weigh, run files are
/// cheaper: they are neither decoded nor merged. A copy that is empty needs no marks. A receiver that could not hold
/// the live stream is not sent a tail either: it has keys to rewind, and would have to hold the tail meanwhile.
pub fn choose(situation: &Situation) -> Choice {
    let bulk = |reason| Choice { way: Way::Bulk, reason, bytes: situation.total_bytes };
    let files_cheaper = |bytes: u64| {
        situation.total_bytes >= situation.bulk_bytes_min && situation.total_bytes <= bytes.saturating_mul(2)
    };
    let empty = situation.since == Uid::ZERO;
    if !situation.trusted {
        return bulk(Reason::HistoryHash);
    }
    if let Some(reason) = situation.bulk {
        return bulk(reason);
    }
    let tail = situation.retained && !situation.without_live;
    if tail && !(empty && files_cheaper(situation.tail_bytes)) {
        return Choice { way: Way::Tail, reason: Reason::LogHoldsAll, bytes: situation.tail_bytes };
    }
    if !empty && situation.since < situation.mark_floor {
        return bulk(Reason::MarksDropped);
    }
    if files_cheaper(situation.delta_bytes) || tail {
        return bulk(if empty { Reason::Empty } else { Reason::MostDiffers });
    }
    let (way, reason) = match (situation.without_live, empty) {
        (true, _) => (Way::PinnedDelta, Reason::LiveOverflow),
        (false, true) => (Way::Delta, Reason::Empty),
        (false, false) => (Way::Delta, Reason::LogReleased),
    };
    Choice { way, reason, bytes: situation.delta_bytes }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
