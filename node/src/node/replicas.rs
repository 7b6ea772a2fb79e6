//! The secondaries of a node, in the words of the client protocol.

use planaria_engine::{Database, Registration};
use planaria_net::replica::{Primary, ReplicaState, WardError};
use planaria_net::wire::message::{RemoteError, ReplicaAction, ReplicaInfo};

use crate::handler::remote;

pub(super) fn replica_info(state: ReplicaState) -> ReplicaInfo {
    ReplicaInfo {
        instance: state.instance,
        node: state.name,
        address: state.address.map(|address| address.to_string()).unwrap_or_default(),
        state: state.state.to_owned(),
        promotable: state.promotable,
        durable: state.durable,
        visible: state.visible,
        lag_ms: state.lag.ms,
        lag_commits: state.lag.commits,
        lag_bytes: state.lag.bytes,
        preserved_bytes: state.preserved.bytes,
        preserved_age_ms: state.preserved.age_ms,
        given_up: state.given_up.map(|given_up| given_up.to_string()).unwrap_or_default(),
        way: state.moved.way.map(|(way, _)| way.to_string()).unwrap_or_default(),
        reason: state.moved.way.map(|(_, reason)| reason.code().to_owned()).unwrap_or_default(),
        moved_records: state.moved.records,
        moved_commits: state.moved.commits,
        moved_bytes: state.moved.bytes,
        holds: state.portion.map(|portion| portion.to_string()).unwrap_or_default(),
    }
}

/// What a directory knows of a secondary while nobody serves it.
pub(crate) fn registered_info(db: &Database, known: Registration) -> ReplicaInfo {
    let lead = db.lead();
    let (lag, preserved) = (db.lag(known.durable), db.preserved(known.durable));
    ReplicaInfo {
        instance: known.instance,
        node: known.name,
        address: known.address.map(|address| address.to_string()).unwrap_or_default(),
        state: if known.paused { "paused" } else { "offline" }.to_owned(),
        promotable: lead.is_ok_and(|lead| lead.is_some_and(|lead| lead.promotable.contains(&known.instance))),
        durable: known.durable,
        lag_ms: lag.ms,
        lag_commits: lag.commits,
        lag_bytes: lag.bytes,
        preserved_bytes: preserved.bytes,
        preserved_age_ms: preserved.age_ms,
        given_up: known.given_up.map(|given_up| given_up.to_string()).unwrap_or_default(),
        holds: known.portion.map(|portion| portion.to_string()).unwrap_or_default(),
        ..ReplicaInfo::default()
    }
}

/// Does what an operator wants with one secondary.
pub(super) fn replica_do(primary: &Primary, named: &str, action: ReplicaAction) -> Result<(), RemoteError> {
    let failed = |error: planaria_net::Error| RemoteError::new(error.code(), error.to_string());
    let instance = primary.replica_named(named).map_err(refused)?;
    match action {
        ReplicaAction::Pause => primary.pause(instance, true).map_err(failed),
        ReplicaAction::Resume => primary.pause(instance, false).map_err(failed),
        ReplicaAction::Forget => primary.forget(instance).map_err(failed)?.map_err(refused),
    }
}

/// The same for a database that nobody serves.
pub(crate) fn registered_do(db: &Database, named: &str, action: ReplicaAction) -> Result<(), RemoteError> {
    let known = db.registrations().map_err(remote)?;
    let is_meant = |known: &Registration| known.name == named || known.instance.to_string() == named;
    let mut meant = known.into_iter().filter(is_meant);
    let known = match (meant.next(), meant.next()) {
        (Some(known), None) => known,
        (None, _) => return Err(refused(WardError::Unknown(named.to_owned()))),
        (Some(_), Some(_)) => return Err(refused(WardError::Ambiguous(named.to_owned()))),
    };
    let done = match action {
        ReplicaAction::Forget => db.forget(known.instance),
        ReplicaAction::Pause | ReplicaAction::Resume => {
            let paused = action == ReplicaAction::Pause;
            db.register(&Registration { paused, ..known }, planaria_engine::Durability::Synced)
        }
    };
    done.map(drop).map_err(remote)
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn refused(error: WardError) -> RemoteError {
    let (code, hint) = match &error {
        WardError::Connected(_) => (
            "connected",
            "stop its node, or have it wait by `planaria replica pause`; of one that has just died it is noticed within half a minute",
        ),
        WardError::Ambiguous(_) => ("ambiguous", "name it by its instance; `planaria replica list` shows it"),
        WardError::Unknown(_) => ("unknown_replica", "`planaria replica list` shows those that are"),
    };
    let mut refusal = RemoteError::new(code, error.to_string());
    hint.clone_into(&mut refusal.hint);
    refusal
}
