//! Commits: batches, their encoding, the queue in which they form groups, and the feed of the newest.

mod batch;
mod encoding;
mod feed;
mod queue;

pub use batch::{Batch, MAX_BATCH_BYTES, MAX_KEY_BYTES, MAX_ROW_BYTES};
pub use encoding::{CommitOp, EncodedCommit};
pub(crate) use feed::Feed;
pub use feed::{Listener, LoggedCommit};
pub(crate) use queue::CommitQueue;

use planaria_types::Uid;

/// Names an encoded batch and wraps it.
pub(crate) fn name_commit(mut encoded: Vec<u8>, uid: Uid, prev: Uid) -> EncodedCommit {
    encoding::set_uids(&mut encoded, uid, prev);
    EncodedCommit::trusted(encoded.into(), uid, prev)
}
