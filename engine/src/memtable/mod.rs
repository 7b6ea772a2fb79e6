//! The memtable of a fragment: the newest versions, in memory, sorted.
//!
//! One writer at a time, the commit leader, inserts; readers never wait for it. A memtable that is full is frozen,
//! written out as a run and dropped.

#![expect(unsafe_code, reason = "the skip list publishes nodes of an arena through atomic pointers")]

mod arena;
mod skiplist;

use bytes::Bytes;
use planaria_types::Uid;

use self::skiplist::{Entry, SkipList};
use crate::cursor::{Cursor, RecordKind, Version};
use crate::error::Result;
use crate::sync::{Arc, AtomicU64, AtomicUsize, Ordering};

/// Versions that an estimate looks at.
const SAMPLED_VERSIONS: usize = 500;

/// Record versions in memory.
pub(crate) struct Memtable {
    list: SkipList,
    records: AtomicUsize,
    /// Bytes of keys and rows.
    payload: AtomicUsize,
    /// The log segment that holds the first record, or `u64::MAX` while there is none.
    first_segment: AtomicU64,
}

impl std::fmt::Debug for Memtable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memtable").field("records", &self.records()).finish_non_exhaustive()
    }
}

impl Memtable {
    pub(crate) fn new() -> Self {
        Self {
            list: SkipList::new(),
            records: AtomicUsize::new(0),
            payload: AtomicUsize::new(0),
            first_segment: AtomicU64::new(u64::MAX),
        }
    }

    /// Inserts a version whose commit lies in log segment `segment`. Called by one thread at a time.
    pub(crate) fn insert(&self, key: &[u8], uid: Uid, kind: RecordKind, row: &[u8], segment: u64) {
        self.list.insert(key, uid, kind, row);
        // One thread changes these, so it need not read and write in one step.
        if segment < self.first_segment.load(Ordering::Relaxed) {
            self.first_segment.store(segment, Ordering::Relaxed);
        }
        let payload = self.payload.load(Ordering::Relaxed) + key.len() + row.len();
        self.payload.store(payload, Ordering::Relaxed);
        self.records.store(self.records.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// The number of versions.
    pub(crate) fn records(&self) -> usize {
        self.records.load(Ordering::Acquire)
    }

    /// Bytes of memory taken.
    pub(crate) fn bytes(&self) -> usize {
        self.list.bytes()
    }

    /// About the bytes of the newest versions above `since`, each key once, by the share that they have of a sample.
    pub(crate) fn changed_bytes(&self, since: Uid) -> u64 {
        let sample = self.list.sample(self.records(), SAMPLED_VERSIONS);
        let is_newest =
            |entry: &&Entry| entry.uid() > since && self.list.seek(entry.key(), Uid::MAX) == **entry;
        let changed = sample.iter().filter(is_newest).count() as u64;
        let bytes = self.payload.load(Ordering::Relaxed) as u128 * u128::from(changed);
        bytes.div_ceil(sample.len().max(1) as u128) as u64
    }

    /// The log segment that holds the first record; `u64::MAX` while there is none.
    pub(crate) fn first_segment(&self) -> u64 {
        self.first_segment.load(Ordering::Relaxed)
    }

    /// The newest version of `key` at or below `at`.
    pub(crate) fn get(&self, key: &[u8], at: Uid) -> Option<Version> {
        let entry = self.list.seek(key, at);
        (!entry.is_end() && entry.key() == key).then(|| Version {
            uid: entry.uid(),
            kind: entry.kind(),
            row: Bytes::copy_from_slice(entry.row()),
        })
    }

    pub(crate) fn cursor(self: &Arc<Self>, since: Option<Uid>) -> MemtableCursor {
        MemtableCursor { memtable: Arc::clone(self), entry: Entry::END, since }
    }
}

/// A cursor over a memtable. It sees what is inserted while it stands.
pub(crate) struct MemtableCursor {
    memtable: Arc<Memtable>,
    entry: Entry,
    /// Versions at or below are not shown.
    since: Option<Uid>,
}

impl MemtableCursor {
    fn skip(&mut self, step: impl Fn(&SkipList, Entry) -> Entry) {
        if let Some(since) = self.since {
            while !self.entry.is_end() && self.entry.uid() <= since {
                self.entry = step(&self.memtable.list, self.entry);
            }
        }
    }
}

impl Cursor for MemtableCursor {
    fn is_valid(&self) -> bool {
        !self.entry.is_end()
    }

    fn key(&self) -> &[u8] {
        self.entry.key()
    }

    fn uid(&self) -> Uid {
        self.entry.uid()
    }

    fn kind(&self) -> RecordKind {
        self.entry.kind()
    }

    fn row(&self) -> Bytes {
        Bytes::copy_from_slice(self.entry.row())
    }

    fn row_ref(&self) -> &[u8] {
        self.entry.row()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.entry = self.memtable.list.first();
        self.skip(SkipList::next);
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.entry = self.memtable.list.last();
        self.skip(SkipList::prev);
        Ok(())
    }

    fn seek(&mut self, key: &[u8], uid: Uid) -> Result<()> {
        self.entry = self.memtable.list.seek(key, uid);
        self.skip(SkipList::next);
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.entry = self.memtable.list.seek_before(key);
        self.skip(SkipList::prev);
        Ok(())
    }

    fn next(&mut self) -> Result<()> {
        self.entry = self.memtable.list.next(self.entry);
        self.skip(SkipList::next);
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        self.entry = self.memtable.list.prev(self.entry);
        self.skip(SkipList::prev);
        Ok(())
    }
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "memtable_tests.rs"]
mod tests;

#[cfg(all(test, loom))]
#[path = "memtable_loom.rs"]
mod loom_tests;
