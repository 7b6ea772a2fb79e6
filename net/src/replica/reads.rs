//! Reads that ask for what was written before: a copy waits until it shows it, or says that it does not.

use std::time::Duration;

use planaria_engine::{Database, Role};
use planaria_types::{Epoch, EpochOrder, Uid};

use super::Slot;
use super::clock::now;
use crate::wire::message::RemoteError;

/// How long is waited if the client does not say.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client may have it wait: each wait takes one of the node's calls.
const PATIENCE_MAX: Duration = Duration::from_mins(1);
/// How long is waited between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// What reads are to show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// A commit.
    pub after: Option<Uid>,
    /// The epoch under which it was written, where that matters.
    pub epoch: Option<Epoch>,
    /// How old what is shown may be, in milliseconds.
    pub staleness_max_ms: Option<u64>,
    /// How long is waited, in milliseconds; 0 for five seconds.
    pub timeout_ms: u32,
}

/// Waits until reads show it; `closed` tells up to where nothing is missing, on a secondary.
///
/// # Errors
///
/// `not_reached` or `too_stale` when the time is up, `taken_back` if the commit is of another history.
pub fn wait(slot: &Slot, closed: impl Fn() -> Option<Uid>, wanted: &Wanted) -> Result<(), RemoteError> {
    let patience = match wanted.timeout_ms {
        0 => PATIENCE,
        ms => Duration::from_millis(ms.into()).min(PATIENCE_MAX),
    };
    let begun = now();
    loop {
        let Some(lacks) = look(&slot.get(), closed(), wanted)? else { return Ok(()) };
        if u128::from(now().since(begun).0) >= patience.as_millis() {
            return Err(lacks);
        }
        std::thread::park_timeout(BETWEEN_LOOKS);
    }
}

/// What reads lack now; an error at once if waiting would not help.
pub fn look(db: &Database, closed: Option<Uid>, wanted: &Wanted) -> Result<Option<RemoteError>, RemoteError> {
    if let Some(after) = wanted.after {
        let visible = db.visible();
        if visible < after {
            let mut error = RemoteError::new(
                "not_reached",
                format!("this copy shows commits up to {visible}, not {after}"),
            );
            error.hint = "ask again later, or ask the primary".into();
            return Ok(Some(error));
        }
        let written_under = db.history().epoch_of(after);
        // One that was deposed, or has not heard of the next primary yet, has not got what that one wrote.
        let is_later = |epoch: &Epoch| epoch.order(&db.epoch()) == EpochOrder::Newer;
        if let Some(epoch) = wanted.epoch.filter(is_later) {
            let what =
                format!("this copy has not got to commit {after} of epoch {epoch}: it knows {}", db.epoch());
            let mut error = RemoteError::new("not_reached", what);
            error.hint = "ask the primary of that epoch, or this copy once it follows it".into();
            return Ok(Some(error));
        }
        if let Some(epoch) = wanted.epoch.filter(|epoch| *epoch != written_under) {
            let what =
                format!("commit {after} of epoch {epoch} is not in this copy's history: it was taken back");
            let mut error = RemoteError::new("taken_back", what);
            error.hint =
                "`planaria quarantine list` on the copy that had it may show it; write it again".into();
            return Err(error);
        }
    }
    let Some(bound) = wanted.staleness_max_ms else { return Ok(None) };
    let stale_ms = match (db.role(), db.deposed()) {
        (Role::Primary, None) => 0,
        (Role::Primary, Some(epoch)) => return Err(deposed(epoch)),
        (Role::Secondary, _) => db.now_millis().saturating_sub(closed.unwrap_or_default().millis()),
    };
    if stale_ms <= bound {
        return Ok(None);
    }
    let what = format!("this copy is up to {stale_ms} ms behind its primary, and {bound} ms were asked for");
    let mut error = RemoteError::new("too_stale", what);
    error.hint = "ask again later, or ask the primary".into();
    Ok(Some(error))
}

fn deposed(epoch: Epoch) -> RemoteError {
    let error = planaria_engine::Error::Deposed(epoch);
    RemoteError::new(error.code(), error.to_string())
}
