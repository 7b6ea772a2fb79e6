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
    info.ms = estimate_ms(&last, info.bytes);
    if !dry_run {
        leadership.refresh(asked.unwrap_or(way_of(&info.way)?));
    }
    Ok(info)
}

/// The time that so many bytes take at the rate of the last refresh which moved something.
fn estimate_ms(last: &FollowStatus, bytes: u64) -> Option<u64> {
    let ms = last.last_refresh_ms.filter(|ms| *ms > 0 && last.last_refresh_bytes > 0)?;
    let estimate = u128::from(bytes) * u128::from(ms) / u128::from(last.last_refresh_bytes);
    Some(u64::try_from(estimate).unwrap_or(u64::MAX))
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
