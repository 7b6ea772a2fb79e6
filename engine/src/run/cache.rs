use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::block::Block;
use crate::health::Health;
use crate::sync::{AtomicU64, Ordering};

/// What a cached block takes besides its bytes, in bytes.
const BLOCK_OVERHEAD_BYTES: u64 = 192;
/// The size of a block that the cache prepares for, in bytes.
const TYPICAL_BLOCK_BYTES: u64 = 8 << 10;
/// A block that would take more than this part of the cache is not kept.
const LARGEST_SHARE: u64 = 16;

/// Verified, uncompressed blocks of runs in memory, up to a number of bytes; those that are read once go before those
/// that are read again (S3-FIFO). One cache serves all runs of a process.
#[derive(Debug)]
pub(crate) struct BlockCache {
    blocks: Cache<BlockId, Block, ByBytes>,
    capacity_bytes: u64,
    next_run: AtomicU64,
    health: Health,
}

/// A block in the cache: a number drawn when its run was opened, and the block's own in the run. A run that is opened
/// anew has its blocks verified anew.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct BlockId {
    run: u64,
    number: usize,
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<BlockId, Block> for ByBytes {
    fn weight(&self, _id: &BlockId, block: &Block) -> u64 {
        weight(block)
    }
}

fn weight(block: &Block) -> u64 {
    block.bytes().len() as u64 + BLOCK_OVERHEAD_BYTES
}

impl BlockCache {
    /// A cache of at most `capacity_bytes`; with 0, nothing is kept.
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        let expected = (capacity_bytes / TYPICAL_BLOCK_BYTES).clamp(16, 1 << 24) as usize;
        Self {
            blocks: Cache::with_weighter(expected, capacity_bytes, ByBytes),
            capacity_bytes,
            next_run: AtomicU64::new(0),
            health: Health::new(),
        }
    }

    /// The limit in bytes.
    #[cfg(test)]
    pub(crate) fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// What the runs that share the cache have met of damage.
    #[inline]
    pub(crate) fn health(&self) -> &Health {
        &self.health
    }

    /// The bytes in use.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.blocks.weight()
    }

    /// A number that keeps the blocks of a run apart from those of every other.
    pub(crate) fn register(&self) -> u64 {
        self.next_run.fetch_add(1, Ordering::Relaxed)
    }

    /// Block `number` of `run`.
    #[inline]
    pub(crate) fn get(&self, run: u64, number: usize) -> Option<Block> {
        self.blocks.get(&BlockId { run, number })
    }

    /// Keeps a block, if it is not too large.
    pub(crate) fn insert(&self, run: u64, number: usize, block: &Block) {
        if weight(block) <= self.capacity_bytes / LARGEST_SHARE {
            self.blocks.insert(BlockId { run, number }, block.clone());
        }
    }

    /// Lets go of a block.
    pub(crate) fn remove(&self, run: u64, number: usize) {
        self.blocks.remove(&BlockId { run, number });
    }
}
