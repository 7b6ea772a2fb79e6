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
    /// The ranges that differ, found by comparing fingerprints, while the live stream waits at the receiver.
    Reconcile,
    /// The ranges that differ, at one pinned snapshot and without the live stream: one hop.
    PinnedReconcile,
}

impl Way {
    /// Whether fingerprints of ranges are compared.
    pub const fn reconciles(self) -> bool {
        matches!(self, Self::Reconcile | Self::PinnedReconcile)
    }

    /// Whether everything is read at one pinned snapshot, without the live stream.
    pub const fn is_pinned(self) -> bool {
        matches!(self, Self::PinnedDelta | Self::PinnedReconcile)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tail => "tail",
            Self::Delta => "delta",
            Self::PinnedDelta => "pinned delta",
            Self::Bulk => "bulk",
            Self::Reconcile => "reconcile",
            Self::PinnedReconcile => "pinned reconcile",
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
    /// An operator asked for the way.
    Asked,
    /// The copy could not be read, or not be repaired in place.
    Unreadable,
    /// The copy is partial, and follows in rounds.
    Partial,
    /// The copy is to hold another portion than it does.
    PortionChanged,
    /// The log holds every commit since the position, and is much longer than what they changed in the end.
    LogIsLonger,
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
            Self::Asked => "asked",
            Self::Unreadable => "unreadable",
            Self::Partial => "partial",
            Self::PortionChanged => "portion_changed",
            Self::LogIsLonger => "log_is_longer",
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
            Self::Asked => "it was asked for",
            Self::Unreadable => "the copy could not be read or repaired in place",
            Self::Partial => "the copy is partial, and is told what changed in rounds",
            Self::PortionChanged => "the copy is to hold another portion than it does",
            Self::LogIsLonger => "the log since the position is much longer than what has changed",
        })
    }
}

/// What the choice of a way depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
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
    /// The copy cannot be brought up to date by what changed since, for this reason.
    pub bulk: Option<Reason>,
    /// The way that an operator asked for.
    pub asked: Option<Way>,
    /// Below this many bytes of run files a bulk refresh is never chosen for its cost.
    pub bulk_bytes_min: u64,
    /// Up to this many bytes of log a tail is never passed over for its cost.
    pub tail_bytes_free: u64,
    /// Whether the copy holds a portion of the database alone.
    pub is_partial: bool,
    /// Whether the copy has a part of a delta that may go on.
    pub is_begun: bool,
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
/// A tail if the log holds everything and is not much longer than what has changed, as it is where the same records are
/// written again and again; else a delta if no mark that it needs was dropped. Where neither leads to the
/// primary's state, ranges are compared; an empty copy, and one that cannot be read, is taken by run files. So is any
/// other where run files are cheaper than records, which is so once more than half as much would move as all run files
/// weigh: they are neither decoded nor merged. A copy that is empty needs no marks. A receiver that could not hold
/// the live stream is not sent a tail either: it has keys to rewind, and would have to hold the tail meanwhile.
///
/// A way that an operator asked for is taken if it leads to the primary's state, whatever it costs.
pub fn choose(situation: &Situation) -> Choice {
    if situation.is_partial {
        return choose_round(situation);
    }
    let empty = situation.since == Uid::ZERO;
    let not_by_changes = match (situation.trusted, situation.bulk) {
        (false, _) => Some(Reason::HistoryHash),
        (true, Some(reason)) => Some(reason),
        (true, None) => None,
    };
    if situation.asked == Some(Way::Bulk) {
        return bulk(situation, Reason::Asked);
    }
    if situation.asked.is_some_and(Way::reconciles) && !empty && situation.bulk != Some(Reason::Unreadable) {
        return compared(situation, not_by_changes.unwrap_or(Reason::Asked));
    }
    if let Some(reason) = not_by_changes {
        return repair(situation, reason);
    }
    let tail = situation.retained && !situation.without_live;
    let delta_asked =
        situation.asked == Some(Way::Delta) && (empty || situation.since >= situation.mark_floor);
    if tail && situation.asked.is_none() && !empty && delta_cheaper(situation) {
        return Choice { way: Way::Delta, reason: Reason::LogIsLonger, bytes: situation.delta_bytes };
    }
    let files_for_tail = empty && files_cheaper(situation, situation.tail_bytes);
    if tail && !delta_asked && (!files_for_tail || situation.asked == Some(Way::Tail)) {
        return Choice { way: Way::Tail, reason: Reason::LogHoldsAll, bytes: situation.tail_bytes };
    }
    if !empty && situation.since < situation.mark_floor {
        return repair(situation, Reason::MarksDropped);
    }
    if !delta_asked && (files_cheaper(situation, situation.delta_bytes) || tail) {
        return bulk(situation, if empty { Reason::Empty } else { Reason::MostDiffers });
    }
    let (way, reason) = match (situation.without_live, empty) {
        (true, _) => (Way::PinnedDelta, Reason::LiveOverflow),
        (false, _) if delta_asked => (Way::Delta, Reason::Asked),
        (false, true) => (Way::Delta, Reason::Empty),
        (false, false) => (Way::Delta, Reason::LogReleased),
    };
    Choice { way, reason, bytes: situation.delta_bytes }
}

/// Chooses the way of a round of a partial copy: what changed in its portion, or, where that does not lead to the primary's
/// state, the ranges that differ. Run files hold more than a portion, and a commit's hash covers more than a portion of
/// it, so neither run files nor a tail are a way.
fn choose_round(situation: &Situation) -> Choice {
    let asked = situation.asked.is_some_and(Way::reconciles).then_some(Reason::Asked);
    let dropped = (situation.since < situation.mark_floor).then_some(Reason::MarksDropped);
    let untrusted = (!situation.trusted).then_some(Reason::HistoryHash);
    let empty = situation.since == Uid::ZERO;
    let compares = if empty { None } else { asked.or(dropped) };
    if let Some(reason) = untrusted.or(situation.bulk).or(compares) {
        return Choice { way: Way::PinnedReconcile, ..compared(situation, reason) };
    }
    let reason = if empty { Reason::Empty } else { Reason::Partial };
    Choice { way: Way::PinnedDelta, reason, bytes: situation.delta_bytes }
}

fn bulk(situation: &Situation, reason: Reason) -> Choice {
    Choice { way: Way::Bulk, reason, bytes: situation.total_bytes }
}

fn files_cheaper(situation: &Situation, bytes: u64) -> bool {
    situation.total_bytes >= situation.bulk_bytes_min && situation.total_bytes <= bytes.saturating_mul(2)
}

/// How many times more than a delta a tail must cost to be passed over for it. After a delta the copy's own log begins anew: those that
/// it feeds need a delta as well, and while it is collected the copy shows its old cut and acknowledges nothing.
const TAIL_TIMES: u64 = 4;
/// A delta may have to read all blocks for the few records of each that have changed, which takes about as long as moving this part
/// of them.
const READ_PART: u64 = 16;

/// Whether a delta leads to the primary's state, and costs much less than a tail, or has come a part of the way.
fn delta_cheaper(situation: &Situation) -> bool {
    let delta_cost = situation.delta_bytes.saturating_add(situation.total_bytes / READ_PART);
    situation.since >= situation.mark_floor
        && situation.tail_bytes > situation.tail_bytes_free
        && (situation.is_begun || delta_cost.saturating_mul(TAIL_TIMES) <= situation.tail_bytes)
}

/// Where what changed since the position does not lead to the primary's state: ranges are compared, unless there is
/// nothing to compare or run files are cheaper.
fn repair(situation: &Situation, reason: Reason) -> Choice {
    let compared = compared(situation, reason);
    let nothing_to_compare = situation.since == Uid::ZERO || reason == Reason::Unreadable;
    if nothing_to_compare || files_cheaper(situation, compared.bytes) {
        return bulk(situation, reason);
    }
    compared
}

/// A comparison moves what changed, and fingerprints: the first level, and a few for each record that differs, but never
/// more than about a byte for each record.
fn compared(situation: &Situation, reason: Reason) -> Choice {
    let way = if situation.without_live { Way::PinnedReconcile } else { Way::Reconcile };
    let fingerprints = (situation.total_bytes / 64).min(situation.delta_bytes.saturating_add(8 << 10));
    Choice { way, reason, bytes: situation.delta_bytes.saturating_add(fingerprints) }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
