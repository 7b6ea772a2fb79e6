//! The segment that takes appends.

use std::path::PathBuf;
use std::sync::Arc;

use super::format::{PAGE_BYTES, Place, RECORD_HEADER_BYTES, encode_record};
use super::recovery::{ChainLink, not_full};
use crate::error::Result;
use crate::os::OsFile;

/// The segment that takes appends: its header is durable.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) link: ChainLink,
    pub(super) file: Arc<dyn OsFile>,
    pub(super) path: PathBuf,
    /// Everything below is durable.
    pub(super) synced: u64,
    /// The bytes of the page that `link.end` lies in, up to there.
    tail: Vec<u8>,
    pub(super) pin: Arc<()>,
}

impl Active {
    /// A segment without records.
    pub(super) fn new(link: ChainLink, file: Arc<dyn OsFile>, path: PathBuf) -> Self {
        Self { link, file, path, synced: PAGE_BYTES, tail: Vec::new(), pin: Arc::new(()) }
    }

    /// Whether `bytes` of records fit, and after them the record that seals the segment.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.link.end + bytes + RECORD_HEADER_BYTES <= self.link.file_bytes
    }

    /// Writes records in whole pages, beginning with the page that the last one ends in. `buffer` is memory to use.
    pub(super) fn write(
        &mut self,
        mut buffer: Vec<u8>,
        place: Place,
        records: &[(u8, &[u8])],
    ) -> Result<Vec<u8>> {
        let start = self.link.end - self.tail.len() as u64;
        buffer.clear();
        buffer.extend_from_slice(&self.tail);
        for (kind, payload) in records {
            let offset = start + buffer.len() as u64;
            encode_record(&mut buffer, place, offset, self.synced as u32, *kind, payload);
        }
        let end = buffer.len();
        buffer.resize(end.next_multiple_of(PAGE_BYTES as usize), 0);
        debug_assert!(start + buffer.len() as u64 <= self.link.file_bytes, "a write stays in its segment");
        self.file.write_all_at(&buffer, start).map_err(|error| not_full("write", &self.path, error))?;
        self.link.end = start + end as u64;
        self.tail.clear();
        self.tail.extend_from_slice(buffer.get(end - end % PAGE_BYTES as usize..end).unwrap_or_default());
        Ok(buffer)
    }
}
