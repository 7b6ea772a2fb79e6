//! Planaria's storage engine: a fragment-structured log-structured merge tree whose records carry update identifiers.
//!
//! Synchronous, without an async runtime and without a network. [`Database`] is the way in; `docs/ARCHITECTURE.md`
//! tells how the parts hang together, `docs/FORMAT.md` what they write.
#![deny(unsafe_code)]

mod clone;
mod commit;
mod compact;
mod cursor;
mod database;
mod error;
mod estimate;
mod fed;
mod follow;
mod former;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod fuzzing;
mod hash;
mod health;
mod ingest;
mod inspect;
mod key_order;
mod leadership;
mod log;
mod memtable;
mod options;
pub mod os;
mod planted;
mod portion;
mod quarantine;
mod read;
mod reconcile;
mod refresh;
mod replicas;
mod run;
mod sealed;
mod sorter;
mod split;
mod store;
mod sync;
pub mod table;
mod table_handle;
mod version;

pub use clone::{
    CLONE_CHUNK_BYTES, ChunkRange, CloneAbout, CloneFile, ClonePlace, ClonePurpose, CloneRecord, CloneRole,
    CloneTarget, FileKind, FileList, FilePin, Hydration, LocalClone, LogSegment, MissingChunk, is_kept,
    unmark_kept,
};
pub use commit::{
    Batch, CommitOp, EncodedCommit, Listener, LoggedCommit, MAX_BATCH_BYTES, MAX_KEY_BYTES, MAX_ROW_BYTES,
};
pub use cursor::{RecordKind, Version};
pub use database::{Database, Durability, Snapshot};
pub use error::{Error, Result};
pub use estimate::RefreshEstimate;
pub use follow::{Followed, Follower};
pub use former::FORMER_MAX;
pub use ingest::{Ingest, Ingested};
pub use inspect::{Status, TableDigest, TableStatus, Verified};
pub use leadership::Lead;
pub use options::Options;
pub use planaria_types as types;
#[cfg(feature = "planted")]
pub use planted::Planted;
pub use portion::Spans;
pub use quarantine::{Extract, ExtractFile, ExtractPart, Tended};
pub use read::{Change, Part, Scan};
pub use reconcile::{RangeChunk, Reconcile};
pub use refresh::{ChangeChunk, Refresh, RefreshEnd, RefreshMark};
pub use replicas::{Cap, GivenUp, HeldBack, Lag, Preserved, Registration};
pub use run::{Codec, ReadMode};
pub use sealed::SealedFile;
pub use sorter::UnsortedIngest;
#[cfg(feature = "testing")]
pub use store::Task;
pub use store::Written;
pub use table::{Column, ColumnType, Schema, TableDef, TableKind, Value};
pub use table_handle::Table;
pub use version::{Lineage, Role};

#[cfg(test)]
#[cfg(not(loom))]
mod crash_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod fault_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod fingerprint_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod flip_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod golden_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod reconcile_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod stress_tests;
