//! Brings the records of an input into a table: read and encoded on one thread, committed on another, in portions.
//!
//! What is there already decides what a record does: the same row again is `unchanged`, so that an import that was
//! interrupted is completed by running it again; another row under the same key is a duplicate, for which there is a
//! policy.

mod encode;
mod loader;
mod parse;
mod seen;

pub(crate) use encode::RowEncoder;
pub(crate) use loader::{Load, Tally};
pub(crate) use parse::ParseOptions;
