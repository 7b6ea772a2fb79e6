//! The write-ahead log of a store: one for the whole database.
//!
//! The log is a chain of segments. Records are appended to the last one, made durable by [`Log::sync`], replayed by
//! [`Log::open`] after a crash, and followed by [`Log::read_from`]. A segment's header names where the segment before
//! it ends, which makes dropping a torn tail one atomic step: the step that adds the next segment.
//!
//! What holds: what `sync` answered `Ok` to is replayed, or `open` fails with [`Error::Damaged`]; what is replayed is
//! a prefix of what was appended. After a failed write or sync nothing is accepted any more.
//!
//! [`Error::Damaged`]: crate::Error::Damaged

mod active;
mod cut;
mod format;
mod pool;
mod reader;
mod recovery;
mod scan;
mod writer;

use bytes::Bytes;
use planaria_types::InstanceId;

use crate::error::{Error, Result};

pub(crate) use cut::cut_before;
pub(crate) use format::KIND_BASE;
pub(crate) use reader::{LogReader, Tail};
pub(crate) use writer::{Log, SegmentInfo};

/// The smallest segment: a header page and a page of records, in bytes.
const SEGMENT_BYTES_MIN: u64 = 2 * format::PAGE_BYTES;
/// The largest segment, in bytes: offsets within one are 32 bits wide in the records.
const SEGMENT_BYTES_MAX: u64 = (1 << 32) - format::PAGE_BYTES;

/// How a log is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct LogOptions {
    /// The length of a segment in bytes: a multiple of 4 KiB, from 8 KiB to 4 GiB − 4 KiB.
    pub(crate) segment_bytes: u64,
    /// How many segment files are kept ready for use.
    pub(crate) spares_max: usize,
    /// The largest payload of a record in bytes, at most 4 GiB − 12 KiB.
    pub(crate) max_record_bytes: u64,
    /// Other stores whose segments may lie in the directory: those that this store was cloned from.
    pub(crate) origins: Vec<InstanceId>,
    /// Whether an empty directory is damage rather than a new log.
    pub(crate) must_exist: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            spares_max: 2,
            max_record_bytes: 1 << 30,
            origins: Vec::new(),
            must_exist: false,
        }
    }
}

impl LogOptions {
    fn check(&self) -> Result<()> {
        let segment = self.segment_bytes;
        if !segment.is_multiple_of(format::PAGE_BYTES)
            || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment)
        {
            return Err(Error::Invalid(format!(
                "a log segment of {segment} bytes: choose a multiple of 4096 from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}"
            )));
        }
        let limit = SEGMENT_BYTES_MAX - SEGMENT_BYTES_MIN;
        if self.max_record_bytes > limit {
            return Err(Error::TooLarge {
                what: "the limit on log records",
                bytes: self.max_record_bytes,
                limit,
            });
        }
        Ok(())
    }
}

/// A place in the log. Places are ordered as the log is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub(crate) struct LogPosition {
    /// The number of a segment; 0 is before all of them.
    pub(crate) segment: u64,
    /// Bytes from the beginning of its file.
    pub(crate) offset: u64,
}

/// Where appended records lie: they are contiguous.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Appended {
    /// The segment of all of them.
    pub(crate) segment: u64,
    /// Where the first one begins.
    pub(crate) start_offset: u64,
    /// Where the last one ends.
    pub(crate) end_offset: u64,
}

/// A record, as the replay sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct LogEntry<'a> {
    /// The kind that was appended; [`KIND_BASE`] for the base of a segment, which comes before its records.
    pub(crate) kind: u8,
    /// The payload.
    pub(crate) payload: &'a [u8],
    /// The segment.
    pub(crate) segment: u64,
    /// Where the record begins in it; 0 for a base.
    pub(crate) offset: u64,
}

/// A record, as a reader of the log gets it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TailEntry {
    /// The kind that was appended.
    pub(crate) kind: u8,
    /// The payload.
    pub(crate) payload: Bytes,
    /// The segment.
    pub(crate) segment: u64,
    /// Where the record begins in it.
    pub(crate) offset: u64,
    /// Where it ends: a reader that starts here gets the next one.
    pub(crate) end_offset: u64,
}

/// What the replay does after an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Replay {
    /// Goes on.
    Continue,
    /// Drops this record and all after it, whatever was synced of them. For a base: all records from this segment on.
    StopHere,
}

#[cfg(test)]
#[cfg(not(loom))]
mod crash_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod log_tests;
