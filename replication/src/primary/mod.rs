//! The primary's side: one [`Group`], and a [`Session`] for each connected secondary.

mod action;
mod compare;
mod doubts;
mod feeding;
mod former;
mod group;
mod serve;
mod session;

pub use action::{
    CommitsRead, DeltaRead, GroupAction, PartsRead, RangesRead, SessionAction, StatesRead, Survey,
};
pub use doubts::{Doubt, DoubtKind};
pub use group::{Group, Identity, Member, SessionId, WentBack};
pub use session::Session;
