//! Reading: merges of memtables and runs, scans, and the changes since a UID.

mod changes;
mod fingerprint;
mod merge;
mod newest;
mod parts;
mod scan;
mod source;

pub use changes::Change;
pub(crate) use changes::Changes;
#[cfg(test)]
pub(crate) use fingerprint::merged;
pub(crate) use fingerprint::{fingerprint, visit_live};
pub(crate) use merge::{Direction, Merge};
pub(crate) use newest::Newest;
pub use parts::Part;
pub(crate) use parts::parts;
pub use scan::Scan;
pub(crate) use source::Source;
