use std::sync::Arc;

use planaria_types::{FileId, KeyRange, Uid};
use serde::{Deserialize, Serialize};

use crate::cursor::Version;
use crate::error::Result;
use crate::run::Run;

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
        let meta = self.run.meta();
        if self.keys.covers(&KeyRange::inclusive(&meta.smallest_key, &meta.largest_key)) {
            return meta.len;
        }
        // Of a file that is not here yet, all of it is as good a guess as any.
        let Ok(index) = self.run.index() else { return meta.len };
        let first = index.find(&self.keys.start, Uid::MAX);
        let last = self.keys.end.as_ref().and_then(|end| index.find(end, Uid::MAX));
        let last = last.unwrap_or(index.len().saturating_sub(1));
        let bytes = |first| Some(index.entry(last)?.range().end.saturating_sub(index.entry(first)?.offset));
        first.and_then(bytes).unwrap_or(0)
    }
}
