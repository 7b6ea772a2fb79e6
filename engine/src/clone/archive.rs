//! Log segments that outlive their store: with them a copy of an earlier cut is taken to any commit in between.

use planaria_types::{EpochOrder, Uid};
use serde::{Deserialize, Serialize};

use super::{CloneFile, FileKind, FileList};
use crate::error::{Error, Result};
use crate::log::SegmentInfo;
use crate::version::SegmentRecord;

/// Room for the seal behind the last record of a log segment, in bytes.
const SEAL_BYTES: u64 = 4 << 10;

/// A sealed log segment of a store, and where it stands in the log. It never changes again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogSegment {
    /// Its file.
    pub file: CloneFile,
    /// The number of the segment before it; 0 for none.
    pub previous: u64,
    /// The last commit before its first record.
    pub above: Uid,
    /// Its last commit; `above` if it has none.
    pub upto: Uid,
}

/// The segments of a cut that ends at `end`, and before them those with commits above `since`, if the log reaches back to
/// there without a gap. Their chunks are not hashed yet.
pub(super) fn tail_of(
    infos: &[SegmentInfo],
    retained: &[SegmentRecord],
    own: &[u64],
    since: Option<Uid>,
    end: Uid,
) -> Vec<LogSegment> {
    let begins = |number: u64| retained.iter().find(|record| record.number >= number);
    let segments = infos.iter().map(|info| {
        let after = begins(info.number + 1).map_or(end, |record| record.uid);
        // A segment without a record of its own was begun, and given up before anything was in it.
        let above = begins(info.number).map_or(end, |record| record.uid).min(after);
        // Behind the last record stands the seal; behind that nothing but zeros.
        let sent = info.end_offset.next_multiple_of(SEAL_BYTES) + SEAL_BYTES;
        let file = CloneFile {
            kind: FileKind::Log,
            number: info.number,
            len: sent.min(info.file_bytes),
            extent: info.file_bytes,
            chunks: Vec::new(),
        };
        LogSegment { file, previous: info.previous, above, upto: after }
    });
    let first = retained.first().map_or(u64::MAX, |record| record.number);
    // What is appended while the cut is looked at begins a segment of its own, which is no part of it.
    let last = own.last().copied().unwrap_or(0);
    let is_own = |segment: &LogSegment| own.contains(&segment.file.number);
    // Also those without a commit: the next ones name them.
    let is_since =
        |segment: &LogSegment| since.is_some_and(|since| segment.upto > since || segment.above >= since);
    let is_tail = |segment: &LogSegment| (first..=last).contains(&segment.file.number) && is_since(segment);
    let tail: Vec<_> = segments.filter(|segment| is_own(segment) || is_tail(segment)).collect();
    let reaches = since.is_some_and(|since| tail.first().is_none_or(|first| first.above <= since));
    tail.into_iter().filter(|segment| reaches || is_own(segment)).collect()
}

impl FileList {
    /// The bound below which no older cut can be read from these files: what merges have dropped.
    pub fn version_floor(&self) -> Uid {
        self.manifest.group.version_floor
    }

    /// The newest log segment of the files, 0 for none: the one that a continuation goes on from.
    pub fn last_segment(&self) -> u64 {
        let logs = self.files.iter().filter(|file| file.kind == FileKind::Log);
        logs.map(|file| file.number).max().unwrap_or(0)
    }

    /// These files and the log of the same store from there on, so that a copy can be taken to any commit up to the end of
    /// the last segment. `later` is a list that the store gave at or after that.
    ///
    /// # Errors
    ///
    /// `Invalid` if the segments do not follow these files and one another, or if `later` is not of the same store.
    pub fn continued(&self, segments: &[LogSegment], later: &FileList) -> Result<FileList> {
        let invalid = |what: &str| Error::Invalid(format!("the log cannot be replayed on this copy: {what}"));
        if later.manifest.instance != self.manifest.instance {
            return Err(invalid("it is of another store"));
        }
        let knows = |epoch| later.manifest.group.history.entries().iter().any(|entry| entry.epoch == epoch);
        let known = self.manifest.group.history.entries().iter().all(|entry| knows(entry.epoch));
        if !known || later.position.uid < self.position.uid {
            return Err(invalid("the store took back some of what is in it"));
        }
        let (mut number, mut uid) = (self.last_segment(), self.position.uid);
        let mut continued = self.clone();
        for segment in segments {
            if segment.previous != number || segment.above != uid || segment.file.kind != FileKind::Log {
                return Err(invalid("a segment is missing"));
            }
            (number, uid) = (segment.file.number, segment.upto);
            continued.files.push(segment.file.clone());
        }
        continued.manifest.group.history = later.manifest.group.history.inherit(uid);
        let promised = &mut continued.manifest.group.promised;
        if later.manifest.group.promised.order(promised) == EpochOrder::Newer {
            *promised = later.manifest.group.promised;
        }
        continued.position = continued.manifest.group.history.position_of(uid);
        Ok(continued)
    }
}
