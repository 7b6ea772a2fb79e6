use std::sync::Arc;

use crate::error::{Error, Result};
use crate::os::{Os, Posix};
use crate::run::{Codec, ReadMode};

/// How a database is opened. Every size is in bytes; the defaults suit a database of some gigabytes on a laptop.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether a database is created where there is none.
    pub create: bool,
    /// Memory for all memtables that still take writes. The largest is written out when it is used up.
    pub memtable_bytes: usize,
    /// Memory for verified blocks of run files.
    pub cache_bytes: usize,
    /// The length of a log segment.
    pub log_segment_bytes: u64,
    /// Log kept for the memtables' sake; beyond it the oldest memtable is written out.
    pub log_bytes_max: u64,
    /// Log kept beyond what recovery needs, so that a secondary that was away for a moment catches up from its tail.
    pub log_tail_bytes: u64,
    /// The length at which a compaction begins another file.
    pub run_file_bytes: u64,
    /// The size at which a fragment is split in two.
    pub fragment_bytes_max: u64,
    /// Uncompressed bytes of records in a block.
    pub block_bytes: usize,
    /// Compression at the bottom. Upper runs are never compressed.
    pub bottom_codec: Codec,
    /// How blocks are read.
    pub read_mode: ReadMode,
    /// Commits that did not ask for a sync become durable at this interval, in milliseconds.
    pub sync_interval_ms: u64,
    /// The most bytes of delete marks preserved for secondaries that are away, before the mark floor is raised; and of merged run
    /// files that a round of a refresh keeps on the disk, before it begins again.
    pub preserved_bytes_max: u64,
    /// The longest time in milliseconds for which delete marks are preserved for a secondary that is away.
    pub preserved_age_max_ms: u64,
    /// For how long older versions of records are kept at least, in milliseconds: so far back clones and snapshots as of a time reach.
    /// With 0 they go as soon as nobody reads them.
    pub keep_history_ms: u64,
    /// The most bytes of extracts that are kept; beyond it the oldest go.
    pub quarantine_bytes_max: u64,
    /// The longest time in milliseconds for which an extract is kept.
    pub quarantine_age_max_ms: u64,
    /// Background threads for compaction; 0 leaves flush and compaction to explicit calls, for tests.
    pub background: bool,
    /// The operating system; the real one unless a test says otherwise.
    pub os: Arc<dyn Os>,
    /// A fault to plant, for the tests of the tests.
    #[cfg(feature = "planted")]
    pub planted: Option<crate::Planted>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create: true,
            memtable_bytes: 64 << 20,
            cache_bytes: 256 << 20,
            log_segment_bytes: 16 << 20,
            log_bytes_max: 256 << 20,
            log_tail_bytes: 128 << 20,
            run_file_bytes: 64 << 20,
            fragment_bytes_max: 512 << 20,
            block_bytes: 8 << 10,
            bottom_codec: Codec::Lz4,
            read_mode: ReadMode::Cached,
            sync_interval_ms: 10,
            preserved_bytes_max: 1 << 30,
            preserved_age_max_ms: 30 * 24 * 3_600_000,
            keep_history_ms: 0,
            quarantine_bytes_max: 2 << 30,
            quarantine_age_max_ms: 30 * 24 * 3_600_000,
            background: true,
            os: Arc::new(Posix),
            #[cfg(feature = "planted")]
            planted: None,
        }
    }
}

impl Options {
    /// Refuses values that cannot work.
    pub(crate) fn validate(&self) -> Result<()> {
        let check = |fits: bool, what: &str| {
            if fits { Ok(()) } else { Err(Error::Invalid(format!("option out of range: {what}"))) }
        };
        check(self.memtable_bytes >= 1 << 16, "memtable_bytes is at least 64 KiB")?;
        check(self.log_segment_bytes >= 1 << 16, "log_segment_bytes is at least 64 KiB")?;
        check(self.log_segment_bytes <= 1 << 30, "log_segment_bytes is at most 1 GiB")?;
        check(self.log_bytes_max >= self.log_segment_bytes, "log_bytes_max is at least log_segment_bytes")?;
        check(self.run_file_bytes >= 1 << 14, "run_file_bytes is at least 16 KiB")?;
        check(
            self.fragment_bytes_max >= self.run_file_bytes,
            "fragment_bytes_max is at least run_file_bytes",
        )?;
        check((256..=1 << 20).contains(&self.block_bytes), "block_bytes is between 256 B and 1 MiB")?;
        check((1..=60_000).contains(&self.sync_interval_ms), "sync_interval_ms is between 1 and 60,000")
    }
}
