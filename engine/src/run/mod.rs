//! Runs: immutable, sorted, checksummed files of record versions.
//!
//! A run is written once, from front to back, by [`RunWriter`], and then read by any number of threads through
//! [`Run`]. The format document has the grammar. The parts: `block` holds the records and is parsed in place, `frame`
//! adds the checksum and the compression of every block, `index` and `filter` say which block may hold a key, `chunks`
//! makes parts of a file verifiable on their own, `envelope` is the first and the last page.

mod block;
mod block_builder;
mod block_cursor;
mod cache;
mod chunks;
mod decode;
mod envelope;
mod filter;
mod frame;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzzing;
mod index;
mod meta;
mod options;
mod output;
mod reader;
mod run_cursor;
mod verify;
mod writer;

pub(crate) use cache::BlockCache;
pub(crate) use chunks::CHUNK_BYTES;
pub(crate) use index::{Index, IndexEntry};
pub(crate) use meta::{RunIdentity, RunMeta};
pub use options::Codec;
pub(crate) use options::RunOptions;
pub(crate) use output::Unsynced;
pub use reader::ReadMode;
pub(crate) use reader::Run;
pub(crate) use run_cursor::RunCursor;
pub(crate) use writer::RunWriter;

#[cfg(test)]
#[cfg(not(loom))]
mod testing;
