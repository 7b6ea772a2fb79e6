use std::sync::Arc;

use bytes::Bytes;
use planaria_types::{KeyRange, TableId, Uid};

use super::merge::{Direction, Merge};
use super::source::Source;
use crate::cursor::RecordKind;
use crate::error::Result;
use crate::version::{Fragment, StoreVersion};

/// Rows up to this length are copied out of their blocks, which are larger by far.
const COPIED_ROW_BYTES: usize = 2 << 10;

/// A record whose newest version is newer than some UID: what a stale copy lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The table.
    pub table: TableId,
    /// The key.
    pub key: Bytes,
    /// The commit that wrote the newest version.
    pub uid: Uid,
    /// Put or delete.
    pub kind: RecordKind,
    /// The row; empty for a delete.
    pub row: Bytes,
}

/// All records whose newest version at a cut is newer than `since`, delete marks included, in (table, key) order.
///
/// Runs at or below `since` are not opened, blocks at or below not read. That is safe without looking at older
/// versions, because the condition is upward closed: whatever shadows a version that passes, passes too.
pub(crate) struct Changes {
    version: Arc<StoreVersion>,
    since: Uid,
    at: Uid,
    next_fragment: usize,
    from: Vec<u8>,
    /// Keys of one table, behind which nothing is looked for.
    within: Option<(TableId, KeyRange)>,
    current: Option<(TableId, Merge)>,
}

impl Changes {
    /// Changes from (table, key) on.
    pub(crate) fn new(version: Arc<StoreVersion>, since: Uid, at: Uid, table: TableId, key: &[u8]) -> Self {
        let next_fragment = version.fragments().partition_point(|fragment| {
            fragment.table < table || (fragment.table == table && !fragment.range.is_below_end(key))
        });
        let from = match version.fragments().get(next_fragment) {
            Some(fragment) if fragment.table == table => key.to_vec(),
            _ => Vec::new(),
        };
        Self { version, since, at, next_fragment, from, within: None, current: None }
    }

    /// Changes of some keys of one table.
    pub(crate) fn within(
        version: Arc<StoreVersion>,
        since: Uid,
        at: Uid,
        table: TableId,
        keys: KeyRange,
    ) -> Self {
        let changes = Self::new(version, since, at, table, &keys.start);
        Self { within: Some((table, keys)), ..changes }
    }

    fn enter(&mut self) -> Result<bool> {
        let Some(fragment) = self.version.fragments().get(self.next_fragment).cloned() else {
            return Ok(false);
        };
        let behind = |(table, keys): &(TableId, KeyRange)| {
            fragment.table != *table || !keys.is_below_end(&fragment.range.start)
        };
        if self.within.as_ref().is_some_and(behind) {
            return Ok(false);
        }
        self.next_fragment += 1;
        let from = std::mem::take(&mut self.from);
        let end = self.within.as_ref().and_then(|(_, keys)| keys.end.clone());
        let range = fragment.range.intersect(&KeyRange::new(from, end));
        if let Some(range) = range.filter(|_| may_have_changed(&fragment, self.since)) {
            let merge = Merge::new(Source::of_changes(&fragment, self.since), range, Direction::Forward)?;
            self.current = Some((fragment.table, merge));
        }
        Ok(true)
    }

    /// The next change.
    pub(crate) fn next(&mut self) -> Result<Option<Change>> {
        loop {
            let Some((table, merge)) = &mut self.current else {
                if self.enter()? {
                    continue;
                }
                return Ok(None);
            };
            while merge.key().is_some() && merge.uid() > self.at {
                merge.advance()?;
            }
            let Some(key) = merge.key() else {
                self.current = None;
                continue;
            };
            let key = Bytes::copy_from_slice(key);
            // A small row that was a share of its block would keep all of that.
            let row = match merge.row_ref() {
                row if row.len() <= COPIED_ROW_BYTES => Bytes::copy_from_slice(row),
                _ => merge.row(),
            };
            let change = Change { table: *table, uid: merge.uid(), kind: merge.kind(), row, key };
            while merge.key() == Some(&change.key[..]) {
                merge.advance()?;
            }
            return Ok(Some(change));
        }
    }
}

fn may_have_changed(fragment: &Fragment, since: Uid) -> bool {
    fragment.active.records() > 0
        || !fragment.frozen.is_empty()
        || fragment.references().any(|reference| !reference.is_as_old_as(since))
}
