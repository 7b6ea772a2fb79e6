use std::sync::Arc;

use planaria_types::{FragmentId, KeyRange, TableId, Uid};

use super::reference::RunRef;
use crate::cursor::Version;
use crate::error::{Error, Result};
use crate::memtable::Memtable;

/// One version of a fragment: its memtables and the references to its runs. Immutable but for the active memtable,
/// which goes on taking commits that are newer than the cut of whoever holds the version.
#[derive(Clone, Debug)]
pub(crate) struct Fragment {
    pub(crate) id: FragmentId,
    pub(crate) table: TableId,
    pub(crate) range: KeyRange,
    /// Everything at or below lies in runs.
    pub(crate) flushed: Uid,
    pub(crate) active: Arc<Memtable>,
    /// Memtables that wait to be written out, oldest first.
    pub(crate) frozen: Vec<Frozen>,
    /// References with something beneath, newest first. Their rectangles may lie above one another.
    pub(crate) upper: Vec<RunRef>,
    /// References with nothing beneath, in key order.
    pub(crate) bottom: Vec<RunRef>,
}

/// A memtable that takes no more writes. It may be shared by both halves of a split; each shows its own range.
#[derive(Clone, Debug)]
pub(crate) struct Frozen {
    pub(crate) memtable: Arc<Memtable>,
    /// Every commit at or below this UID lies in it or in something older.
    pub(crate) upto: Uid,
}

impl Fragment {
    pub(crate) fn new(id: FragmentId, table: TableId, range: KeyRange, flushed: Uid) -> Self {
        Self {
            id,
            table,
            range,
            flushed,
            active: Arc::new(Memtable::new()),
            frozen: Vec::new(),
            upper: Vec::new(),
            bottom: Vec::new(),
        }
    }

    /// The newest version of `key` at or below `at`. Stops at the first hit: rectangles are stacked by UID.
    pub(crate) fn get(&self, key: &[u8], hash: u64, at: Uid) -> Result<Option<Version>> {
        if let Some(version) = self.active.get(key, at) {
            return Ok(Some(version));
        }
        for frozen in self.frozen.iter().rev() {
            if let Some(version) = frozen.memtable.get(key, at) {
                return Ok(Some(version));
            }
        }
        for reference in &self.upper {
            if reference.above < at
                && reference.keys.contains(key)
                && let Some(version) = reference.get(key, hash, at)?
            {
                return Ok(Some(version));
            }
        }
        let after = self.bottom.partition_point(|reference| reference.keys.start.as_slice() <= key);
        match after.checked_sub(1).and_then(|at| self.bottom.get(at)) {
            Some(reference) if reference.keys.is_below_end(key) => reference.get(key, hash, at),
            _ => Ok(None),
        }
    }

    /// All references, uppers first.
    pub(crate) fn references(&self) -> impl Iterator<Item = &RunRef> {
        self.upper.iter().chain(&self.bottom)
    }

    /// Replaces the references, which are sorted into upper and bottom, and checks that their rectangles fit.
    pub(crate) fn set_references(&mut self, references: Vec<RunRef>) -> Result<()> {
        let (mut bottom, mut upper): (Vec<_>, Vec<_>) = references.into_iter().partition(RunRef::is_bottom);
        upper.sort_by(|a, b| (b.upto, &a.keys.start).cmp(&(a.upto, &b.keys.start)));
        bottom.sort_by(|a, b| a.keys.start.cmp(&b.keys.start));
        self.upper = upper;
        self.bottom = bottom;
        self.check()
    }

    /// The rule of ownership: rectangles never overlap and lie within the fragment. Checked in release builds too,
    /// before a version is made durable.
    pub(crate) fn check(&self) -> Result<()> {
        let broken = |what: String| Err(Error::Invalid(format!("fragment {}: {what}", self.id)));
        for (index, reference) in self.references().enumerate() {
            if reference.above >= reference.upto || !self.range.covers(&reference.keys) {
                return broken(format!("run {} owns nothing of it", reference.file));
            }
            // Two bottom references overlap only if they are neighbours in key order.
            let mut others = match index.checked_sub(self.upper.len()) {
                None => self.references().skip(index + 1).take(usize::MAX),
                Some(bottom) => self.references().skip(self.upper.len() + bottom + 1).take(1),
            };
            if let Some(other) = others.find(|other| reference.overlaps(other)) {
                return broken(format!("runs {} and {} own the same rectangle", reference.file, other.file));
            }
        }
        Ok(())
    }

    /// Bytes of its run files on disk, as far as it shows them.
    pub(crate) fn run_bytes(&self) -> u64 {
        self.references().map(RunRef::bytes).sum()
    }

    /// A key with about half of the bottom's bytes on either side, inside the range; `None` if there is none.
    pub(crate) fn middle_key(&self) -> Option<Vec<u8>> {
        let half = self.bottom.iter().map(RunRef::bytes).sum::<u64>() / 2;
        let mut bytes = 0;
        let straddling = self.bottom.iter().find(|reference| {
            bytes += reference.bytes();
            bytes > half
        })?;
        let key = straddling.run.middle_key()?;
        // A clipped reference may have its middle elsewhere; its own beginning is a boundary just as well.
        let key = if straddling.keys.contains(&key) { key } else { straddling.keys.start.clone() };
        (key > self.range.start && self.range.contains(&key)).then_some(key)
    }

    /// Bytes of its bottom runs on disk; of a run that is shown in part, those of that part.
    pub(crate) fn bottom_bytes(&self) -> u64 {
        self.bottom.iter().map(RunRef::bytes).sum()
    }

    /// Memory of its memtables, in bytes.
    pub(crate) fn memtable_bytes(&self) -> usize {
        self.memtables().map(|memtable| memtable.bytes()).sum()
    }

    /// About the bytes of keys and rows in its memtables that are newer than `since`, of each key the newest.
    pub(crate) fn memtable_changed_bytes(&self, since: Uid) -> u64 {
        self.memtables().map(|memtable| memtable.changed_bytes(since)).sum()
    }

    /// Record versions in its runs and memtables; clips are not accounted for.
    pub(crate) fn versions(&self) -> u64 {
        let runs: u64 = self.references().map(|reference| reference.run.meta().records).sum();
        runs + self.memtables().map(|memtable| memtable.records() as u64).sum::<u64>()
    }

    fn memtables(&self) -> impl Iterator<Item = &Arc<Memtable>> {
        std::iter::once(&self.active).chain(self.frozen.iter().map(|frozen| &frozen.memtable))
    }

    /// The first log segment that recovery needs for this fragment; `u64::MAX` if none.
    pub(crate) fn first_segment(&self) -> u64 {
        self.frozen
            .iter()
            .map(|frozen| frozen.memtable.first_segment())
            .fold(self.active.first_segment(), u64::min)
    }
}
