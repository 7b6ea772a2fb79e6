//! Reading a segment: its header, its records one after the other, and what they prove about a place that fails.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use planaria_types::InstanceId;

use super::format::{
    BadHeader, FileName, PAGE_BYTES, Place, RECORD_ALIGN, RECORD_HEADER_BYTES, RecordHeader, SegmentHeader,
};
use crate::error::{Error, Result};
use crate::os::{OpenMode, Os, OsFile};

/// How much is read ahead, in bytes.
const WINDOW_BYTES: u64 = 1 << 20;

/// A segment open for reading.
#[derive(Debug)]
pub(super) struct SegmentScan {
    file: Arc<dyn OsFile>,
    path: PathBuf,
    place: Place,
    /// Nothing at or beyond this offset is read.
    limit: u64,
    window: Vec<u8>,
    window_at: u64,
}

/// A record that checks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    pub(super) kind: u8,
    pub(super) payload: &'a [u8],
    pub(super) synced_up_to: u64,
    /// Where the record ends.
    pub(super) end: u64,
}

/// Opens a segment and reads its header. The header is whole, or the name would not be there.
pub(super) fn open_segment(os: &dyn Os, dir: &Path, number: u64) -> Result<(SegmentHeader, SegmentScan)> {
    let path = FileName::Segment(number).path(dir);
    let file = os.open(&path, OpenMode::Read).map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            return Error::damaged(&path, 0, "the log segment is missing");
        }
        Error::io("open", &path, error)
    })?;
    let file_bytes = file.len().map_err(|error| Error::io("read", &path, error))?;
    let mut page = vec![0; PAGE_BYTES.min(file_bytes) as usize];
    file.read_exact_at(&mut page, 0).map_err(|error| Error::io("read", &path, error))?;
    let header = SegmentHeader::decode(&page).map_err(|bad| match bad {
        BadHeader::Damaged(what) => Error::damaged(&path, 0, what),
        BadHeader::Foreign(what) => Error::Foreign { path: path.clone(), what },
    })?;
    if header.number != number || header.previous.segment >= number {
        let what = format!("the header is that of segment {:016x}", header.number);
        return Err(Error::damaged(&path, 32, what));
    }
    let place = Place { store: header.store, segment: number };
    let limit = file_bytes.min(header.file_bytes);
    Ok((header, SegmentScan::new(file, path, place, limit)))
}

/// Fails unless `header` belongs to this store or to one that it was cloned from.
pub(super) fn check_store(
    header: &SegmentHeader,
    path: &Path,
    store: InstanceId,
    origins: &[InstanceId],
) -> Result<()> {
    if header.store == store || origins.contains(&header.store) {
        return Ok(());
    }
    let what = format!("it belongs to store {}, this is store {store}", header.store);
    Err(Error::Foreign { path: path.to_path_buf(), what })
}

impl SegmentScan {
    pub(super) fn new(file: Arc<dyn OsFile>, path: PathBuf, place: Place, limit: u64) -> Self {
        Self { file, path, place, limit, window: Vec::new(), window_at: 0 }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> &Arc<dyn OsFile> {
        &self.file
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Lets the scan read up to `limit`. What lies below the old limit is not read again.
    pub(super) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// The record at `offset`, or `None` if what is there does not check.
    pub(super) fn record(&mut self, offset: u64) -> Result<Option<Found<'_>>> {
        let place = self.place;
        let Some(header) = self.header(offset)? else {
            return Ok(None);
        };
        // The header checks, so its length is one that was written; the limit is that of the file all the same.
        let end = offset.saturating_add(header.record_bytes());
        if end > self.limit {
            return Ok(None);
        }
        let record = self.bytes(offset, header.record_bytes())?;
        if !header.checks(record, place, offset) {
            return Ok(None);
        }
        let start = RECORD_HEADER_BYTES as usize;
        let Some(payload) = record.get(start..start + header.len as usize) else {
            return Ok(None);
        };
        let synced_up_to = u64::from(header.synced_up_to);
        Ok(Some(Found { kind: header.kind, payload, synced_up_to, end }))
    }

    /// The highest *synced up to* mark of all records of this generation whose headers check, from `offset` on.
    ///
    /// A header suffices: whoever wrote it knew what was durable, whatever became of the payload.
    pub(super) fn highest_mark_after(&mut self, offset: u64) -> Result<u64> {
        let mut at = offset;
        let mut highest = 0;
        while at.saturating_add(RECORD_HEADER_BYTES) <= self.limit {
            if let Some(header) = self.header(at)? {
                highest = highest.max(u64::from(header.synced_up_to));
            }
            at += RECORD_ALIGN;
        }
        Ok(highest)
    }

    /// An error that says that the record at `offset` was synced and is no more.
    pub(super) fn damaged(&self, offset: u64, proof: &str) -> Error {
        Error::damaged(&self.path, offset, format!("a record that was synced does not check ({proof})"))
    }

    fn header(&mut self, offset: u64) -> Result<Option<RecordHeader>> {
        let place = self.place;
        if offset.saturating_add(RECORD_HEADER_BYTES) > self.limit {
            return Ok(None);
        }
        Ok(RecordHeader::decode(self.bytes(offset, RECORD_HEADER_BYTES)?, place, offset))
    }

    /// The bytes at `offset`; the caller has checked that they lie below the limit.
    fn bytes(&mut self, offset: u64, len: u64) -> Result<&[u8]> {
        let window_end = self.window_at + self.window.len() as u64;
        if offset < self.window_at || offset + len > window_end {
            self.window.resize(WINDOW_BYTES.max(len).min(self.limit.saturating_sub(offset)) as usize, 0);
            self.window_at = offset;
            if let Err(error) = self.file.read_exact_at(&mut self.window, offset) {
                self.window.clear();
                return Err(Error::io("read", &self.path, error));
            }
        }
        let start = (offset - self.window_at) as usize;
        let bytes = self.window.get(start..start + len as usize);
        bytes.ok_or_else(|| Error::damaged(&self.path, offset, "the segment is cut short"))
    }
}
