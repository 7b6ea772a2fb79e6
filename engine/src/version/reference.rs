use std::ops::Range;
use std::sync::Arc;

use planaria_types::{FileId, KeyRange, Uid};
use serde::{Deserialize, Serialize};

use crate::cursor::Version;
use crate::error::Result;
use crate::run::{Index, Run};

/// A reference to a run: it owns a rectangle, a key range × an interval of UIDs, and shows nothing outside of it.
#[derive(Clone, Debug)]
pub(crate) struct RunRef {
    /// The file's number in this store.
    pub(crate) file: FileId,
    pub(crate) run: Arc<Run>,
    /// The keys that the reference owns.
    pub(crate) keys: KeyRange,
    /// The interval's lower end, exclusive. `Uid::ZERO`: nothing lies beneath, the reference is at the bottom.
    pub(crate) above: Uid,
    /// The interval's upper end, inclusive.
    pub(crate) upto: Uid,
}

/// A reference as the manifest keeps it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct RefRecord {
    pub(crate) file: FileId,
    pub(crate) keys: KeyRange,
    pub(crate) above: Uid,
    pub(crate) upto: Uid,
}

impl RunRef {
    /// Whether nothing that the reference shows is newer than `since`.
    pub(crate) fn is_as_old_as(&self, since: Uid) -> bool {
        self.run.meta().largest_uid.min(self.upto) <= since
    }

    pub(crate) fn record(&self) -> RefRecord {
        RefRecord { file: self.file, keys: self.keys.clone(), above: self.above, upto: self.upto }
    }

    pub(crate) fn is_bottom(&self) -> bool {
        self.above == Uid::ZERO
    }

    /// The newest version of a key of the rectangle at or below `at`.
    pub(crate) fn get(&self, key: &[u8], hash: u64, at: Uid) -> Result<Option<Version>> {
        self.run.get(key, hash, at.min(self.upto))
    }

    /// Whether the rectangles of two references have a point in common.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.above < other.upto && other.above < self.upto && self.keys.overlaps(&other.keys)
    }

    /// The same reference with its keys cut to `range`; `None` if nothing is left.
    pub(crate) fn clip(&self, range: &KeyRange) -> Option<Self> {
        self.keys.intersect(range).map(|keys| Self { keys, ..self.clone() })
    }

    /// An estimate of the bytes on disk that the rectangle shows: the blocks that its keys lie in.
    pub(crate) fn bytes(&self) -> u64 {
        let len = self.run.meta().len;
        if self.shows_all_keys() {
            return len;
        }
        // Of a file that is not here yet, all of it is as good a guess as any.
        let Some((index, blocks)) = self.blocks() else { return len };
        let range = |at| Some(index.entry(at)?.range());
        let ends = range(blocks.start).zip(blocks.last().and_then(range));
        ends.map_or(0, |(first, last)| last.end.saturating_sub(first.start))
    }

    /// The run's index, and the blocks in it that the rectangle's keys lie in; `None` for a file that is not here yet.
    pub(crate) fn blocks(&self) -> Option<(&Index, Range<usize>)> {
        let index = self.run.index().ok()?;
        if self.shows_all_keys() {
            return Some((index, 0..index.len()));
        }
        let Some(first) = index.find(&self.keys.start, Uid::MAX) else { return Some((index, 0..0)) };
        let last = self.keys.end.as_ref().and_then(|end| index.find(end, Uid::MAX));
        Some((index, first..last.map_or(index.len(), |last| last + 1)))
    }

    fn shows_all_keys(&self) -> bool {
        let meta = self.run.meta();
        self.keys.covers(&KeyRange::inclusive(&meta.smallest_key, &meta.largest_key))
    }
}
