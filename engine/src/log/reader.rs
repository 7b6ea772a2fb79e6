//! Following the log while it is written.

use std::sync::Arc;

use bytes::Bytes;

use super::format::{FileName, PAGE_BYTES, Place};
use super::scan::SegmentScan;
use super::writer::{Log, Shared, State};
use super::{LogPosition, TailEntry};
use crate::error::{Error, Result};
use crate::os::OpenMode;

/// What a reader of the log gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Tail {
    /// The next record, durable or not.
    Entry(TailEntry),
    /// There is nothing more yet; ask again after the next append.
    CaughtUp,
    /// What comes next was released: the reader has to get it elsewhere.
    NotRetained,
}

/// Reads the log record by record, up to where it is appended. Several readers and the writer go side by side.
///
/// A segment that the reader has open stays readable to it after its release.
#[derive(Debug)]
pub(crate) struct LogReader {
    shared: Arc<Shared>,
    at: LogPosition,
    open: Option<OpenSegment>,
}

#[derive(Debug)]
struct OpenSegment {
    scan: SegmentScan,
    /// Keeps the file from being overwritten.
    _pin: Arc<()>,
}

/// What lies at the reader's position.
enum Step {
    Record,
    Moved,
    CaughtUp,
    NotRetained,
}

impl Log {
    /// A reader that begins at `from`: the end of a record, or the beginning of a segment. `None` if that part of the
    /// log is not retained any more.
    ///
    /// # Errors
    /// `Invalid` if the log does not reach that far.
    pub(crate) fn read_from(&self, from: LogPosition) -> Result<Option<LogReader>> {
        let offset = if from.segment == 0 { 0 } else { from.offset.max(PAGE_BYTES) };
        let at = LogPosition { offset, ..from };
        let mut reader = LogReader { shared: Arc::clone(&self.shared), at, open: None };
        match reader.step()? {
            Step::NotRetained => Ok(None),
            Step::Record | Step::Moved | Step::CaughtUp => Ok(Some(reader)),
        }
    }
}

impl LogReader {
    /// Where the next record begins, or will begin; the end of the last one that was read.
    #[cfg(test)]
    pub(crate) fn position(&self) -> LogPosition {
        self.at
    }

    /// The next record.
    ///
    /// # Errors
    /// `Damaged` if a record does not check, or if the position was not one of a record; `Io`.
    pub(crate) fn next(&mut self) -> Result<Tail> {
        loop {
            match self.step()? {
                Step::Record => return self.read().map(Tail::Entry),
                Step::Moved => {}
                Step::CaughtUp => return Ok(Tail::CaughtUp),
                Step::NotRetained => return Ok(Tail::NotRetained),
            }
        }
    }

    /// Finds out what lies at the position, opening or leaving segments as needed.
    fn step(&mut self) -> Result<Step> {
        if self.open.as_ref().is_some_and(|open| self.at.offset < open.scan.limit()) {
            return Ok(Step::Record);
        }
        let shared = Arc::clone(&self.shared);
        // Files are opened under the lock, so that none is released in between.
        let state = shared.lock();
        let here = state.links().find(|link| link.number == self.at.segment);
        if let Some(link) = here {
            if self.at.offset > link.end {
                return Err(beyond(self.at, state.appended()));
            }
            if self.at.offset < link.end {
                let (store, end) = (link.store, link.end);
                self.extend(&state, Place { store, segment: self.at.segment }, end)?;
                return Ok(Step::Record);
            }
        }
        if let Some(link) = state.links().find(|link| link.previous == self.at) {
            let place = Place { store: link.store, segment: link.number };
            self.at = LogPosition { segment: link.number, offset: PAGE_BYTES };
            self.open = None;
            self.extend(&state, place, link.end)?;
            return Ok(Step::Moved);
        }
        if self.at > state.appended() {
            return Err(beyond(self.at, state.appended()));
        }
        Ok(if self.at == state.appended() { Step::CaughtUp } else { Step::NotRetained })
    }

    /// Lets the reader go on to `end` in the segment of its position.
    fn extend(&mut self, state: &State, place: Place, end: u64) -> Result<()> {
        if let Some(open) = &mut self.open {
            open.scan.set_limit(end);
            return Ok(());
        }
        let path = FileName::Segment(place.segment).path(&self.shared.dir);
        let file = self.shared.os.open(&path, OpenMode::Read);
        let file = file.map_err(|error| Error::io("open", &path, error))?;
        let Some(pin) = state.pin(place.segment) else {
            return Ok(());
        };
        self.open = Some(OpenSegment { scan: SegmentScan::new(file, path, place, end), _pin: pin });
        Ok(())
    }

    fn read(&mut self) -> Result<TailEntry> {
        let LogPosition { segment, offset } = self.at;
        let Some(open) = &mut self.open else {
            return Err(Error::Invalid("the log reader has no segment open".to_owned()));
        };
        let entry = open.scan.record(offset)?.map(|found| TailEntry {
            kind: found.kind,
            payload: Bytes::copy_from_slice(found.payload),
            segment,
            offset,
            end_offset: found.end,
        });
        let Some(entry) = entry else {
            return Err(Error::damaged(open.scan.path(), offset, "there is no record here that checks"));
        };
        self.at.offset = entry.end_offset;
        Ok(entry)
    }
}

fn beyond(at: LogPosition, end: LogPosition) -> Error {
    Error::Invalid(format!(
        "log position {}:{} lies beyond the end of the log, {}:{}",
        at.segment, at.offset, end.segment, end.offset
    ))
}
