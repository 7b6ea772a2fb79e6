//! The words that every part of Planaria shares.
//!
//! Identifiers, update identifiers, epochs, positions, histories, key ranges and fingerprints. The crate has no
//! dependencies and does no I/O, so that the storage engine and the replication protocol, which do not know each
//! other, can speak of the same things.

mod epoch;
mod fingerprint;
mod history;
mod ids;
mod key_range;
mod portion;
mod uid;

pub use epoch::{Epoch, EpochOrder};
pub use fingerprint::Fingerprint;
pub use history::{Fork, History, HistoryEntry, HistoryHash, Position};
pub use ids::{DatabaseId, FileId, FragmentId, GroupId, InstanceId, ParseIdError, TableId};
pub use key_range::KeyRange;
pub use portion::{Portion, PortionError};
pub use uid::Uid;
