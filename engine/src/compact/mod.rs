//! Compaction: neighbours in the order of UIDs are merged, what nobody can read any more is left out.

mod merge;
mod plan;

pub(crate) use plan::{Plan, Tier, plan};
