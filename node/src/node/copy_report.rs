//! What a node tells the control center of its copy.

use planaria_engine::{Database, Role};
use planaria_net::replica::FollowStatus;
use planaria_net::replica::executor::promotion::newest_of;
use planaria_net::wire::control::{BoundedSet, CopyReport, HISTORY_ENTRIES_MAX, SET_MAX};
use planaria_replication::control::{CopyState, InstanceRole};
use planaria_replication::secondary::State;
use planaria_types::{History, InstanceId, Uid};

use super::leadership::Leadership;

/// How the copy of a node is now.
pub(super) fn copy_report(leadership: &Leadership, name: &str, role: InstanceRole) -> CopyReport {
    let db = leadership.slot.get();
    let following = leadership.following().map(|(_, status)| status);
    let state = state_of(&db, following.as_ref());
    let mut damage = db.damage().unwrap_or_default();
    let mut damaged = |error: planaria_engine::Error| damage = error.to_string();
    let bytes = db.status().map_or_else(
        |error| {
            damaged(error);
            0
        },
        |status| status.run_bytes + status.log_bytes,
    );
    let lead = db.lead().unwrap_or_else(|error| {
        damaged(error);
        None
    });
    let replica = following.map(|following| following.replica).unwrap_or_default();
    let set = |ids: &std::collections::BTreeSet<InstanceId>| ids.iter().copied().take(SET_MAX).collect();
    let update = if state == CopyState::Primary {
        // It has all that there is.
        db.visible().max(Uid::from_millis(db.now_millis()))
    } else {
        replica.closed.max(db.visible())
    };
    CopyReport {
        database: db.id(),
        name: name.to_owned(),
        instance: db.instance(),
        role,
        state,
        is_diverged: replica.diverged,
        damage,
        epoch: db.epoch(),
        promised: newest_of(&db),
        position: db.position(),
        update,
        lag_ms: replica.primary_durable.millis().saturating_sub(db.durable().millis()),
        bytes,
        level: lead.as_ref().map(|lead| lead.level.clone()).unwrap_or_default(),
        primary: leadership.leader(),
        promotable: lead.as_ref().map(|lead| set(&lead.promotable)).unwrap_or_default(),
        next_promotable: lead.and_then(|lead| lead.next).map(|next| BoundedSet(set(&next))),
        history: youngest(&db.history()),
    }
}

fn state_of(db: &Database, following: Option<&FollowStatus>) -> CopyState {
    if db.portion().is_some() {
        return CopyState::Partial;
    }
    match (db.role(), following.map(|following| following.replica.state)) {
        (Role::Primary, _) if db.deposed().is_some() => CopyState::Deposed,
        (Role::Primary, _) => CopyState::Primary,
        (Role::Secondary, Some(State::Online)) => CopyState::Online,
        (Role::Secondary, Some(State::Stale)) => CopyState::Stale,
        (Role::Secondary, Some(State::Refreshing)) => CopyState::Refreshing,
        (Role::Secondary, Some(State::Offline) | None) => CopyState::Offline,
    }
}

/// The youngest entries of a history: enough to tell whether two copies share one.
fn youngest(history: &History) -> History {
    let entries = history.entries();
    let from = entries.len().saturating_sub(HISTORY_ENTRIES_MAX);
    let youngest = entries.get(from..).unwrap_or_default().to_vec();
    History::from_entries(youngest).unwrap_or_default()
}
