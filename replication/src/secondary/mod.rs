//! The secondary's side: a [`Replica`] follows one group.

mod action;
mod feed;
mod reconcile;
mod refresh;
mod replica;
mod rounds;
mod session;
mod status;
mod tail;

pub use action::{Action, Install, KeptDelta, Local};
pub use replica::{Identity, Replica};
pub use status::{Counters, Outlook, Progress, State, Status};
