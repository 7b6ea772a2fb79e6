//! Versions: what the store consists of at one moment.

mod fragment;
mod manifest;
mod reference;

use std::sync::Arc;

use planaria_types::{KeyRange, TableId};

pub(crate) use fragment::{Fragment, Frozen};
pub(crate) use manifest::{
    FragmentRecord, GroupRecord, MANIFEST, Manifest, RunRecord, SegmentRecord, run_dir, run_path, write_file,
};
pub use manifest::{Lineage, Role};
pub(crate) use reference::RunRef;

/// All fragments of the store at one moment. Whoever holds one keeps its files.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoreVersion {
    /// Sorted by table and start of the range.
    fragments: Vec<Arc<Fragment>>,
}

impl StoreVersion {
    pub(crate) fn new(mut fragments: Vec<Arc<Fragment>>) -> Self {
        fragments.sort_by(|a, b| (a.table, &a.range.start).cmp(&(b.table, &b.range.start)));
        Self { fragments }
    }

    pub(crate) fn fragments(&self) -> &[Arc<Fragment>] {
        &self.fragments
    }

    /// The fragment that holds `key` of `table`.
    pub(crate) fn find(&self, table: TableId, key: &[u8]) -> Option<&Arc<Fragment>> {
        let after = self
            .fragments
            .partition_point(|fragment| (fragment.table, fragment.range.start.as_slice()) <= (table, key));
        let fragment = self.fragments.get(after.checked_sub(1)?)?;
        (fragment.table == table && fragment.range.is_below_end(key)).then_some(fragment)
    }

    /// The fragments of `table` that overlap `range`, in key order.
    pub(crate) fn overlapping<'a>(
        &'a self,
        table: TableId,
        range: &'a KeyRange,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<Fragment>> {
        let from = self.fragments.partition_point(|fragment| fragment.table < table);
        let to = self.fragments.partition_point(|fragment| fragment.table <= table);
        let of_table = self.fragments.get(from..to).unwrap_or_default();
        of_table.iter().filter(|fragment| fragment.range.overlaps(range))
    }

    /// Memory of the memtables that wait to be written out, in bytes. One that a split has left to several fragments
    /// counts once.
    pub(crate) fn frozen_bytes(&self) -> usize {
        let frozen = self.fragments.iter().flat_map(|fragment| &fragment.frozen);
        let mut memtables: Vec<_> = frozen.map(|frozen| &frozen.memtable).collect();
        memtables.sort_unstable_by_key(|memtable| Arc::as_ptr(memtable));
        memtables.dedup_by(|a, b| Arc::ptr_eq(a, b));
        memtables.iter().map(|memtable| memtable.bytes()).sum()
    }

    /// The same version with some fragments put in place of others.
    pub(crate) fn replace(&self, gone: &[planaria_types::FragmentId], new: Vec<Arc<Fragment>>) -> Self {
        let kept = self.fragments.iter().filter(|fragment| !gone.contains(&fragment.id)).cloned();
        Self::new(kept.chain(new).collect())
    }
}
