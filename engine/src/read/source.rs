use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use planaria_types::{KeyRange, Uid};

use super::newest::Newest;
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
    /// All inputs of a fragment, newest first.
    pub(crate) fn of_fragment(fragment: &Arc<Fragment>) -> Vec<Self> {
        Self::with_bottom(fragment, None)
    }

    /// The same for what is newer than `since`. Blocks that have any of it are read ahead, and past the cache: nobody
    /// needs them again soon.
    pub(crate) fn of_changes(fragment: &Arc<Fragment>, since: Uid) -> Vec<Self> {
        Self::with_bottom(fragment, Some(since))
    }

    fn with_bottom(fragment: &Arc<Fragment>, since: Option<Uid>) -> Vec<Self> {
        let mut sources = Self::above(fragment, since);
        if !fragment.bottom.is_empty() {
            let bottom = References::Bottom(Arc::clone(fragment));
            sources.push(Self::Chain(Box::new(Chain::new(bottom, since, since.is_some()))));
        }
        sources
    }

    /// All inputs of a fragment but its bottom, newest first.
    pub(crate) fn above_bottom(fragment: &Arc<Fragment>) -> Vec<Self> {
        Self::above(fragment, None)
    }

    /// The inputs above the bottom, and room for that.
    fn above(fragment: &Arc<Fragment>, since: Option<Uid>) -> Vec<Self> {
        let memtables = std::iter::once(&fragment.active)
            .chain(fragment.frozen.iter().rev().map(|frozen| &frozen.memtable))
            .filter(|memtable| memtable.records() > 0)
            .map(|memtable| Self::Memtable(memtable.cursor(since), fragment.range.clone()));
        let upper = tiers(&fragment.upper).filter(|tier| {
            let tier = fragment.upper.get(tier.clone()).unwrap_or_default();
            tier.iter().all(|reference| since.is_none_or(|since| reference.upto > since))
        });
        let upper = upper.map(|tier| {
            let tier = References::Upper(Arc::clone(fragment), tier);
            Self::Chain(Box::new(Chain::new(tier, since, since.is_some())))
        });
        let mut sources = Vec::with_capacity(2 + fragment.frozen.len() + fragment.upper.len());
        sources.extend(memtables.chain(upper));
        sources
    }

    /// The inputs of a merge, which reads everything once: ahead of itself, and past the cache. One for each tier above
    /// the bottom, newest first, and one for the bottom.
    pub(crate) fn of_merge(upper: &[RunRef], bottom: &[RunRef]) -> Vec<Self> {
        let uppers = tiers(upper).filter_map(|tier| upper.get(tier)).map(<[RunRef]>::to_vec);
        let bottom = (!bottom.is_empty()).then(|| bottom.to_vec());
        uppers
            .chain(bottom)
            .map(|references| Self::Chain(Box::new(Chain::new(References::Own(references), None, true))))
            .collect()
    }

    /// References in key order that do not overlap, as one input.
    pub(crate) fn chain(references: Vec<RunRef>, since: Option<Uid>) -> Self {
        Self::Chain(Box::new(Chain::new(References::Own(references), since, false)))
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

/// Where the tiers above a bottom lie, newest first.
///
/// References that end at the same UID own different keys, and lie in the order of those: they are read one behind the
/// other, however many files a refresh or an ingest consists of.
fn tiers(upper: &[RunRef]) -> impl Iterator<Item = Range<usize>> + use<'_> {
    let mut start = 0;
    upper.chunk_by(|a, b| a.upto == b.upto).map(move |tier| {
        let range = start..start + tier.len();
        start = range.end;
        range
    })
}

/// References in key order that do not overlap, read one behind the other.
///
/// `cursor` is there exactly while it stands on a version inside the rectangle of the reference at `at`.
pub(crate) struct Chain {
    references: References,
    since: Option<Uid>,
    /// Whether everything is read once, past the cache.
    is_bulk: bool,
    at: usize,
    cursor: Option<RunCursor>,
}

/// References, and whoever keeps them.
enum References {
    /// One tier above the bottom of a fragment.
    Upper(Arc<Fragment>, Range<usize>),
    /// The bottom of a fragment.
    Bottom(Arc<Fragment>),
    Own(Vec<RunRef>),
}

impl References {
    #[inline]
    fn all(&self) -> &[RunRef] {
        match self {
            Self::Upper(fragment, tier) => fragment.upper.get(tier.clone()).unwrap_or_default(),
            Self::Bottom(fragment) => &fragment.bottom,
            Self::Own(references) => references,
        }
    }
}

impl Chain {
    fn new(references: References, since: Option<Uid>, is_bulk: bool) -> Self {
        Self { references, since, is_bulk, at: 0, cursor: None }
    }

    /// Whether no versions are passed over for their age.
    pub(super) fn shows_all(&self) -> bool {
        self.since.is_none()
    }

    /// Whether a run has nothing that is new enough. Its index is not read then, which of a large one is megabytes.
    fn hides(&self, reference: &RunRef) -> bool {
        self.since.is_some_and(|since| reference.is_as_old_as(since))
    }

    fn open(&self, reference: &RunRef) -> RunCursor {
        if self.is_bulk { reference.run.scan_cursor(self.since) } else { reference.run.cursor(self.since) }
    }

    fn seek(&mut self, key: &[u8]) -> Result<()> {
        self.at = self.references.all().partition_point(|reference| !reference.keys.is_below_end(key));
        self.enter_forward(key)
    }

    /// Enters the reference at `at`, or the first behind it that has something, at or after `key`.
    fn enter_forward(&mut self, key: &[u8]) -> Result<()> {
        self.cursor = None;
        while let Some(reference) = self.references.all().get(self.at) {
            if self.hides(reference) {
                self.at += 1;
                continue;
            }
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
        let (Some(cursor), Some(reference)) = (&mut self.cursor, self.references.all().get(self.at)) else {
            return Ok(());
        };
        cursor.next()?;
        if settle_forward(cursor, reference)? {
            return Ok(());
        }
        self.at += 1;
        self.enter_forward(&[])
    }

    /// Visits the newest versions from here on, as [`Newest`] says, until it has enough; the chain must be the only
    /// source. Answers whether it went to the end.
    pub(super) fn visit(
        &mut self,
        newest: &mut Newest,
        end: Option<&[u8]>,
        visit: &mut impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<bool> {
        loop {
            let (Some(cursor), Some(reference)) = (&mut self.cursor, self.references.all().get(self.at))
            else {
                return Ok(true);
            };
            let end = [end, reference.keys.end.as_deref()].into_iter().flatten().min();
            if !cursor.visit(newest, reference.upto, end, visit)? {
                return Ok(false);
            }
            self.at += 1;
            self.enter_forward(&[])?;
        }
    }

    fn seek_before(&mut self, end: Option<&[u8]>) -> Result<()> {
        let references = self.references.all();
        let behind = end.map_or(references.len(), |end| {
            references.partition_point(|reference| reference.keys.start.as_slice() < end)
        });
        self.enter_backward(behind, end)
    }

    /// Enters the last reference before `behind` that has something, below `end`.
    fn enter_backward(&mut self, mut behind: usize, end: Option<&[u8]>) -> Result<()> {
        self.cursor = None;
        while let Some(index) = behind.checked_sub(1) {
            let Some(reference) = self.references.all().get(index) else { return Ok(()) };
            if self.hides(reference) {
                behind = index;
                continue;
            }
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
        let (Some(cursor), Some(reference)) = (&mut self.cursor, self.references.all().get(self.at)) else {
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
