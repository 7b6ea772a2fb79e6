use bytes::Bytes;
use planaria_types::{KeyRange, Uid};

use crate::cursor::{Cursor, RecordKind};
use crate::error::Result;
use crate::memtable::MemtableCursor;
use crate::run::RunCursor;
use crate::version::{Fragment, RunRef};

/// One input of a merge.
pub(crate) enum Source {
    /// A memtable, cut to the key range of its fragment.
    Memtable(MemtableCursor, KeyRange),
    /// References in key order that do not overlap, one behind the other.
    Chain(Box<Chain>),
}

impl Source {
    /// All inputs of a fragment, newest first. With `since`, versions at or below are not shown.
    pub(crate) fn of_fragment(fragment: &Fragment, since: Option<Uid>) -> Vec<Self> {
        let references = Self::of_references(&fragment.upper, &fragment.bottom, since);
        Self::memtables(fragment, since).chain(references).collect()
    }

    /// All inputs of a fragment but its bottom, newest first.
    pub(crate) fn above_bottom(fragment: &Fragment) -> Vec<Self> {
        let memtables = Self::memtables(fragment, None);
        memtables.chain(Self::of_references(&fragment.upper, &[], None)).collect()
    }

    fn memtables(fragment: &Fragment, since: Option<Uid>) -> impl Iterator<Item = Self> + use<'_> {
        std::iter::once(&fragment.active)
            .chain(fragment.frozen.iter().rev().map(|frozen| &frozen.memtable))
            .filter(|memtable| memtable.records() > 0)
            .map(move |memtable| Self::Memtable(memtable.cursor(since), fragment.range.clone()))
    }

    /// The inputs that references make up: one for each upper, newest first, and one for the bottom.
    pub(crate) fn of_references<'a>(
        upper: &'a [RunRef],
        bottom: &[RunRef],
        since: Option<Uid>,
    ) -> impl Iterator<Item = Self> + use<'a> {
        let bottom = (!bottom.is_empty()).then(|| Self::chain(bottom.to_vec(), since));
        upper
            .iter()
            .filter(move |reference| since.is_none_or(|since| reference.upto > since))
            .map(move |reference| Self::chain(vec![reference.clone()], since))
            .chain(bottom)
    }

    /// References in key order that do not overlap, as one input.
    pub(crate) fn chain(references: Vec<RunRef>, since: Option<Uid>) -> Self {
        Self::Chain(Box::new(Chain { references, since, is_bulk: false, at: 0, cursor: None }))
    }

    /// The inputs of a merge, which reads everything once: ahead of itself, and past the cache.
    pub(crate) fn of_merge(upper: &[RunRef], bottom: &[RunRef]) -> Vec<Self> {
        let mut sources: Vec<_> = Self::of_references(upper, bottom, None).collect();
        for source in &mut sources {
            if let Self::Chain(chain) = source {
                chain.is_bulk = true;
            }
        }
        sources
    }

    /// Whether the source stands on a version that belongs to it.
    #[inline]
    pub(super) fn is_valid(&self) -> bool {
        match self {
            Self::Memtable(cursor, range) => cursor.is_valid() && range.contains(cursor.key()),
            Self::Chain(chain) => chain.cursor.is_some(),
        }
    }

    #[inline]
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Self::Memtable(cursor, _) => cursor.key(),
            Self::Chain(chain) => chain.cursor.as_ref().map_or(&[], |cursor| cursor.key()),
        }
    }

    #[inline]
    pub(super) fn uid(&self) -> Uid {
        match self {
            Self::Memtable(cursor, _) => cursor.uid(),
            Self::Chain(chain) => chain.cursor.as_ref().map_or(Uid::ZERO, Cursor::uid),
        }
    }

    #[inline]
    pub(super) fn kind(&self) -> RecordKind {
        match self {
            Self::Memtable(cursor, _) => cursor.kind(),
            Self::Chain(chain) => chain.cursor.as_ref().map_or(RecordKind::Delete, Cursor::kind),
        }
    }

    pub(super) fn row(&self) -> Bytes {
        match self {
            Self::Memtable(cursor, _) => cursor.row(),
            Self::Chain(chain) => chain.cursor.as_ref().map_or_else(Bytes::new, Cursor::row),
        }
    }

    #[inline]
    pub(super) fn row_ref(&self) -> &[u8] {
        match self {
            Self::Memtable(cursor, _) => cursor.row_ref(),
            Self::Chain(chain) => chain.cursor.as_ref().map_or(&[], |cursor| cursor.row_ref()),
        }
    }

    /// Goes to the first version of the first key at or after `key`.
    pub(super) fn seek(&mut self, key: &[u8]) -> Result<()> {
        match self {
            Self::Memtable(cursor, range) => cursor.seek(key.max(&range.start), Uid::MAX),
            Self::Chain(chain) => chain.seek(key),
        }
    }

    /// Goes to the last version of the last key below `end`, or of all keys.
    pub(super) fn seek_before(&mut self, end: Option<&[u8]>) -> Result<()> {
        match self {
            Self::Memtable(cursor, range) => match [end, range.end.as_deref()].into_iter().flatten().min() {
                Some(end) => cursor.seek_before(end),
                None => cursor.seek_to_last(),
            },
            Self::Chain(chain) => chain.seek_before(end),
        }
    }

    #[inline]
    pub(super) fn next(&mut self) -> Result<()> {
        match self {
            Self::Memtable(cursor, _) => cursor.next(),
            Self::Chain(chain) => chain.next(),
        }
    }

    pub(super) fn prev(&mut self) -> Result<()> {
        match self {
            Self::Memtable(cursor, _) => cursor.prev(),
            Self::Chain(chain) => chain.prev(),
        }
    }
}

/// References in key order that do not overlap, read one behind the other.
///
/// `cursor` is there exactly while it stands on a version inside the rectangle of the reference at `at`.
pub(crate) struct Chain {
    references: Vec<RunRef>,
    since: Option<Uid>,
    /// Whether everything is read once, past the cache.
    is_bulk: bool,
    at: usize,
    cursor: Option<RunCursor>,
}

impl Chain {
    fn open(&self, reference: &RunRef) -> RunCursor {
        if self.is_bulk { reference.run.scan_cursor(self.since) } else { reference.run.cursor(self.since) }
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.at = self.references.partition_point(|reference| !reference.keys.is_below_end(key));
        self.enter_forward(key)
    }

    /// Enters the reference at `at`, or the first behind it that has something, at or after `key`.
    fn enter_forward(&mut self, key: &[u8]) -> Result<()> {
        self.cursor = None;
        while let Some(reference) = self.references.get(self.at) {
            let mut cursor = self.open(reference);
            cursor.seek(key.max(&reference.keys.start), Uid::MAX)?;
            if settle_forward(&mut cursor, reference)? {
                self.cursor = Some(cursor);
                return Ok(());
            }
            self.at += 1;
        }
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        let (Some(cursor), Some(reference)) = (&mut self.cursor, self.references.get(self.at)) else {
            return Ok(());
        };
        cursor.next()?;
        if settle_forward(cursor, reference)? {
            return Ok(());
        }
        self.at += 1;
        self.enter_forward(&[])
    }

    fn seek_before(&mut self, end: Option<&[u8]>) -> Result<()> {
        let behind = end.map_or(self.references.len(), |end| {
            self.references.partition_point(|reference| reference.keys.start.as_slice() < end)
        });
        self.enter_backward(behind, end)
    }

    /// Enters the last reference before `behind` that has something, below `end`.
    fn enter_backward(&mut self, mut behind: usize, end: Option<&[u8]>) -> Result<()> {
        self.cursor = None;
        while let Some(index) = behind.checked_sub(1) {
            let Some(reference) = self.references.get(index) else { return Ok(()) };
            let mut cursor = self.open(reference);
            match [end, reference.keys.end.as_deref()].into_iter().flatten().min() {
                Some(end) => cursor.seek_before(end)?,
                None => cursor.seek_to_last()?,
            }
            if settle_backward(&mut cursor, reference)? {
                self.at = index;
                self.cursor = Some(cursor);
                return Ok(());
            }
            behind = index;
        }
        Ok(())
    }

    fn prev(&mut self) -> Result<()> {
        let (Some(cursor), Some(reference)) = (&mut self.cursor, self.references.get(self.at)) else {
            return Ok(());
        };
        cursor.prev()?;
        if settle_backward(cursor, reference)? {
            return Ok(());
        }
        self.enter_backward(self.at, None)
    }
}

/// Skips what lies above the rectangle; tells whether the cursor stands inside.
#[inline]
fn settle_forward(cursor: &mut RunCursor, reference: &RunRef) -> Result<bool> {
    while cursor.is_valid() && cursor.uid() > reference.upto {
        cursor.next()?;
    }
    Ok(cursor.is_valid() && reference.keys.is_below_end(cursor.key()))
}

fn settle_backward(cursor: &mut RunCursor, reference: &RunRef) -> Result<bool> {
    while cursor.is_valid() && cursor.uid() > reference.upto {
        cursor.prev()?;
    }
    Ok(cursor.is_valid() && cursor.key() >= reference.keys.start.as_slice())
}
