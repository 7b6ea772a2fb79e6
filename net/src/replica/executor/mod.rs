//! What the state machines ask of the engine, carried out: an action goes in, the engine is called, the answer goes
//! back to the machine.
//!
//! There is no thread, socket or clock in here: time is an argument, and what is the driver's (connections, messages,
//! transfers) is handed back to it. So the same code runs under the sessions of [`super::Primary`] and
//! [`super::Follower`], and under a simulation that takes one step at a time.

/// Whether a fault is planted; never without the feature.
macro_rules! planted {
    ($db:expr, $fault:ident) => {{
        #[cfg(feature = "planted")]
        let planted = $db.is_planted(planaria_engine::Planted::$fault);
        #[cfg(not(feature = "planted"))]
        let planted = {
            let _ = &$db;
            false
        };
        planted
    }};
}

pub mod bulk;
mod following;
mod leading;
pub mod promotion;

pub use following::{FollowingCopy, local};
pub(crate) use leading::estimate;
pub use leading::{
    Answer, Kept, Leading, Outcome, Registrar, SessionReads, begin_above, lead, persist_sets, tell_epoch,
    tell_news,
};

#[cfg(test)]
mod executor_tests;
