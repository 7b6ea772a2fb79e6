//! Backups in object stores: a directory, or anything that speaks S3.
//!
//! A backup is a small manifest and what it names: objects that are called by their content, so that what is there is never
//! sent again. It is taken of the files of one cut ([`create`]) and keeps the log since the backup before, so that
//! [`restore`] can give every commit in between. Nothing that is read from a store is believed before its hash is checked.
//! `docs/FORMAT.md` has the bytes.
#![forbid(unsafe_code)]

mod catalog;
mod contents;
mod create;
mod directory;
mod error;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod fuzzing;
mod index;
mod manifest;
mod object;
mod place;
mod plan;
mod prune;
mod restore;
mod source;
mod store;
mod verify;

pub use catalog::Catalog;
pub use create::{Created, Wish, create};
pub use error::{Error, Result};
pub use index::{Brief, Index};
pub use manifest::{Backup, Segment};
pub use place::{Access, Place};
pub use plan::{AsOf, Plan, plan};
pub use prune::{Kept, Pruned, delete, prune};
pub use restore::{Restored, restore};
pub use source::{Pinned, Source};
pub use store::{Store, Toll};
pub use verify::{Finding, Verified, verify};

/// How far an operation has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes that are done, those that did not have to be moved included.
    pub done_bytes: u64,
}

#[cfg(test)]
#[path = "backup_tests.rs"]
mod tests;
