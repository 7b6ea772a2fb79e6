//! What a refresh of a secondary would take, and having it refreshed.

use planaria_net::replica::FollowStatus;
use planaria_net::wire::message::{RefreshInfo, RemoteError, Request, Response};
use planaria_replication::{Reason, Way};
use planaria_types::{History, HistoryHash, Portion, Uid};

use super::leadership::Leadership;

/// Tells what a refresh would take and, unless only that was asked for, begins it.
pub(super) fn refresh(
    leadership: &Leadership,
    dry_run: bool,
    way: Option<&str>,
) -> Result<RefreshInfo, RemoteError> {
    let Some((primary, last)) = leadership.following() else {
        let mut error = RemoteError::new("not_a_secondary", "this node follows nobody");
        error.hint = "ask a secondary: planaria replica refresh --node ADDR".into();
        return Err(error);
    };
    let asked = way.map(way_of).transpose()?;
    let db = leadership.slot.get();
    let (durable, hash) = db.log_end();
    let way = way.map(str::to_owned);
    let (history, portion) = (db.history(), leadership.portion());
    let plan = Request::RefreshPlan { history, durable, hash, way, portion };
    let answer = leadership.ask(primary, plan).map_err(|mut error| {
        if error.hint.is_empty() {
            error.hint = format!("see to it that the primary at {primary} runs and can be reached");
        }
        error
    })?;
    let Response::Refresh(mut info) = answer else {
        return Err(RemoteError::new("protocol", "the primary gave an answer to another question"));
    };
    info.ms = Some(estimate_ms(&last, info.bytes));
    if !dry_run {
        leadership.refresh(asked.unwrap_or(way_of(&info.way)?));
    }
    Ok(info)
}

/// A refresh that moved less than this says nothing of the rate: round trips and syncs were most of it.
const TELLING_BYTES: u64 = 1 << 20;
/// What is assumed where no refresh has told: a link and a disk that take a gigabit a second.
const ASSUMED_BYTES_PER_SECOND: u64 = 125_000_000;
/// Round trips of a refresh beside what it moves: the handshake, the end of the stream, the acknowledgement.
const ROUND_TRIPS: u32 = 3;

/// About the time that so many bytes take, in milliseconds: at the rate of the last refresh, if that moved enough to have one.
fn estimate_ms(last: &FollowStatus, bytes: u64) -> u64 {
    let moved = last.last_refresh_bytes;
    let measured = last.last_refresh_ms.filter(|ms| *ms > 0 && moved >= TELLING_BYTES);
    let (rate_bytes, rate_ms) = measured.map_or((ASSUMED_BYTES_PER_SECOND, 1_000), |ms| (moved, ms));
    let moving = u128::from(bytes) * u128::from(rate_ms) / u128::from(rate_bytes);
    let waiting = last.round_trip.unwrap_or_default().saturating_mul(ROUND_TRIPS).as_millis();
    u64::try_from(moving + waiting).unwrap_or(u64::MAX).max(1)
}

/// What the refresh of a copy of this primary's would take.
pub(super) fn plan(
    leadership: &Leadership,
    history: &History,
    (durable, hash): (Uid, HistoryHash),
    way: Option<&str>,
    portion: Option<&Portion>,
) -> Result<RefreshInfo, RemoteError> {
    let primary = leadership.serving();
    let primary =
        primary.ok_or_else(|| RemoteError::new("not_a_primary", "this node neither leads nor follows"))?;
    let asked = way.map(way_of).transpose()?;
    let malformed = |what: String| RemoteError::new("protocol", what);
    planaria_replication::validate_history(history).map_err(|error| malformed(error.to_string()))?;
    portion.map_or(Ok(()), Portion::validate).map_err(|error| malformed(error.to_string()))?;
    let plan = primary
        .plan(history, durable, Some(hash), asked, portion)
        .map_err(|error| RemoteError::new("refresh", error.to_string()))?;
    Ok(RefreshInfo {
        records: plan.records,
        bytes: plan.choice.bytes,
        ..refresh_info(plan.choice.way, plan.choice.reason)
    })
}

/// The last refresh of a secondary, if there was one since its node was started.
pub(super) fn last(last: &FollowStatus) -> Option<RefreshInfo> {
    let (way, reason) = last.last_refresh_way.zip(last.last_refresh_reason)?;
    Some(RefreshInfo {
        // How many records run files hold is not told.
        records: (way != Way::Bulk).then_some(last.last_refresh_records),
        bytes: last.last_refresh_bytes,
        ms: last.last_refresh_ms,
        ..refresh_info(way, reason)
    })
}

fn refresh_info(way: Way, reason: Reason) -> RefreshInfo {
    RefreshInfo {
        way: way.to_string(),
        reason: reason.code().to_owned(),
        why: reason.to_string(),
        ..RefreshInfo::default()
    }
}

/// The way of that name.
fn way_of(name: &str) -> Result<Way, RemoteError> {
    match name {
        "tail" => Ok(Way::Tail),
        "delta" | "pinned delta" => Ok(Way::Delta),
        "reconcile" | "pinned reconcile" => Ok(Way::Reconcile),
        "bulk" => Ok(Way::Bulk),
        _ => Err(RemoteError::new(
            "usage",
            format!("{name:?} is no way of a refresh: tail, delta, reconcile, bulk"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_refresh_is_estimated_by_one_that_moved_enough_to_tell_the_rate() {
        let none = FollowStatus::default();
        assert_eq!(estimate_ms(&none, 0), 1);
        assert_eq!(estimate_ms(&none, ASSUMED_BYTES_PER_SECOND * 2), 2_000);
        let large = FollowStatus {
            last_refresh_ms: Some(500),
            last_refresh_bytes: 5_000_000,
            ..FollowStatus::default()
        };
        assert_eq!(estimate_ms(&large, 50_000_000), 5_000);
        let small = FollowStatus { last_refresh_bytes: 134, ..large.clone() };
        assert_eq!(
            estimate_ms(&small, ASSUMED_BYTES_PER_SECOND),
            1_000,
            "134 bytes in half a second tell nothing"
        );
        let far = FollowStatus { round_trip: Some(Duration::from_millis(40)), ..large };
        assert_eq!(estimate_ms(&far, 0), 120);
    }
}
