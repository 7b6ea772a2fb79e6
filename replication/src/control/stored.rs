//! Which backup of a store a clone is taken from.

use planaria_types::{InstanceId, Uid};

/// A backup of a database in a store, and how far the store's log goes on from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoredState {
    /// The copy that it was taken of.
    pub instance: InstanceId,
    /// Its last commit.
    pub uid: Uid,
    /// Every state from that one up to here can be had: the log leads there, or nothing was committed meanwhile.
    pub reach: Uid,
    /// When it was taken, in milliseconds since 1970.
    pub taken_ms: u64,
    /// Whether its last commit is part of the history that leads now.
    pub is_on_history: bool,
}

/// Why no backup of a store gives what is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WhyNoState {
    /// There is none.
    Empty,
    /// None that does is on the history that leads now.
    OffHistory,
    /// The state that is asked for lies before all of them, behind all of them, or where the log has a gap.
    OutsideKept,
}

/// Chooses the backup that gives a state, or the newest one where none is asked for, as its place in the list.
///
/// Of those on the current history from which the log reaches the state it is the one with the latest update time, which takes the
/// least log. A state behind a backup is on the history if the backup is that brought the log: what a copy had committed before is part
/// of what it had then.
pub fn choose_stored(as_of: Option<Uid>, states: &[StoredState]) -> Result<usize, WhyNoState> {
    if states.is_empty() {
        return Err(WhyNoState::Empty);
    }
    let gives = |state: &StoredState| as_of.is_none_or(|uid| state.uid <= uid && uid <= state.reach);
    let is_sound = |state: &StoredState| {
        let Some(wanted) = as_of else { return state.is_on_history };
        let within = |other: &&StoredState| {
            other.instance == state.instance && other.uid >= state.uid && other.uid <= state.reach
        };
        let along = || states.iter().filter(within);
        let brings = along().filter(|other| other.uid >= wanted).min_by_key(|other| other.uid);
        // Where nothing was committed any more, the last one has it all.
        let brings = brings.or_else(|| along().max_by_key(|other| other.uid));
        brings.is_some_and(|last| last.is_on_history)
    };
    let giving = || states.iter().enumerate().filter(|(_, state)| gives(state));
    let best =
        giving().filter(|(_, state)| is_sound(state)).max_by_key(|(_, state)| (state.uid, state.taken_ms));
    match best {
        Some((at, _)) => Ok(at),
        None if giving().next().is_some() => Err(WhyNoState::OffHistory),
        None => Err(WhyNoState::OutsideKept),
    }
}

#[cfg(test)]
#[path = "stored_tests.rs"]
mod tests;
