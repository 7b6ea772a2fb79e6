//! Reading: merges of memtables and runs, scans, and the changes since a UID.

mod changes;
mod fingerprint;
mod merge;
mod newest;
mod scan;
mod source;

pub use changes::Change;
pub(crate) use changes::Changes;
pub(crate) use fingerprint::fingerprint;
pub(crate) use merge::{Direction, Merge};
pub(crate) use newest::Newest;
pub use scan::Scan;
pub(crate) use source::Source;
