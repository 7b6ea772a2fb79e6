use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;
use planaria_types::Uid;

use super::block::{Block, Entry, Malformed};
use crate::cursor::RecordKind;
use crate::read::Newest;

/// A position within one block, with buffers that are kept from block to block.
///
/// The moves answer whether the cursor stands on a version. After `false` or an error only [`Self::first`],
/// [`Self::last`] and [`Self::seek`] make it stand on one again, except that `prev` may follow a `seek` or `next` that
/// ran over the end.
///
/// With `since`, versions at or below that UID are passed over, whole restart intervals at a time where their highest
/// UID allows.
#[derive(Debug)]
pub(crate) struct BlockCursor {
    block: Block,
    since: Option<Uid>,
    /// The position of the entry to be read next going forward: one more than that of the current one.
    upcoming: usize,
    /// Where that entry begins.
    offset: usize,
    key: Vec<u8>,
    row: Range<usize>,
    uid: Uid,
    kind: RecordKind,
    behind: Behind,
}

/// How far a visit went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Went {
    /// To the end of the block.
    Through,
    /// To a key that does not belong to it any more.
    ToEnd,
    /// Until the visitor had enough.
    Enough,
}

/// The entries of one restart interval, decoded when a cursor enters it from behind: keys can only be put together
/// from the front.
#[derive(Debug, Default)]
struct Behind {
    restart: Option<usize>,
    keys: Vec<u8>,
    entries: Vec<BehindEntry>,
}

#[derive(Clone, Debug)]
struct BehindEntry {
    key: Range<usize>,
    row: Range<usize>,
    kind: RecordKind,
}

impl BlockCursor {
    /// A cursor without a block.
    pub(crate) fn new(since: Option<Uid>) -> Self {
        Self {
            block: Block::empty(),
            since,
            upcoming: 0,
            offset: 0,
            key: Vec::new(),
            row: 0..0,
            uid: Uid::ZERO,
            kind: RecordKind::Delete,
            behind: Behind::default(),
        }
    }

    /// Turns to another block, standing nowhere in it.
    pub(crate) fn reset(&mut self, block: Block) {
        self.block = block;
        self.behind.restart = None;
        self.upcoming = 0;
        self.offset = 0;
        self.key.clear();
    }

    /// The key of the current version.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// The UID of the current version.
    #[inline]
    pub(crate) fn uid(&self) -> Uid {
        self.uid
    }

    /// Put or delete.
    #[inline]
    pub(crate) fn kind(&self) -> RecordKind {
        self.kind
    }

    /// The row of the current version.
    #[inline]
    pub(crate) fn row_ref(&self) -> &[u8] {
        self.block.part(self.row.clone())
    }

    /// The row of the current version, as a share of the block.
    #[inline]
    pub(crate) fn row(&self) -> Bytes {
        if self.row.is_empty() {
            return Bytes::new();
        }
        self.block.clone().into_part(self.row.clone())
    }

    /// The position of the current version in the block.
    pub(crate) fn position(&self) -> usize {
        self.upcoming.saturating_sub(1)
    }

    /// Whether restart `restart` leads to the current entry, which then holds its key in full.
    pub(crate) fn is_at_restart(&self, restart: usize) -> Result<bool, Malformed> {
        let entry = self.block.entry(self.block.restart_offset(restart)?)?;
        Ok(entry.shared == 0 && entry.row == self.row.start && entry.end == self.row.end)
    }

    /// Goes to the first version.
    pub(crate) fn first(&mut self) -> Result<bool, Malformed> {
        if self.block.count() == 0 {
            return Ok(false);
        }
        self.enter(0)?;
        self.next()
    }

    /// Goes to the last version.
    pub(crate) fn last(&mut self) -> Result<bool, Malformed> {
        self.upcoming = self.block.count() + 1;
        self.prev()
    }

    /// Goes to the first version at or after (key, uid).
    pub(crate) fn seek(&mut self, key: &[u8], uid: Uid) -> Result<bool, Malformed> {
        if self.block.count() == 0 {
            return Ok(false);
        }
        self.enter(self.block.restart_at_or_before(key, uid)?)?;
        while self.read_upcoming()? {
            let before = match self.key.as_slice().cmp(key) {
                Ordering::Less => true,
                Ordering::Equal => self.uid > uid,
                Ordering::Greater => false,
            };
            if !before {
                return if self.is_shown(self.uid) { Ok(true) } else { self.next() };
            }
        }
        Ok(false)
    }

    /// Goes one version on.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<bool, Malformed> {
        if self.since.is_none() {
            return self.read_upcoming();
        }
        loop {
            if !self.pass_hidden_intervals()? || !self.read_upcoming()? {
                return Ok(false);
            }
            if self.is_shown(self.uid) {
                return Ok(true);
            }
        }
    }

    /// Visits what `newest` shows, of the versions up to `upto` and the keys below `end`, from the current version to
    /// the end of the block.
    pub(crate) fn visit(
        &mut self,
        newest: &mut Newest,
        upto: Uid,
        end: Option<&[u8]>,
        visit: &mut impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<Went, Malformed> {
        let cut = newest.at.min(upto);
        let mut is_decided = newest.is_decided(&self.key);
        let mut is_new = true;
        loop {
            if is_new && end.is_some_and(|end| self.key.as_slice() >= end) {
                return Ok(Went::ToEnd);
            }
            if !is_decided && self.uid <= cut {
                is_decided = true;
                if self.kind == RecordKind::Put && !visit(&self.key, self.row_ref()) {
                    return Ok(Went::Enough);
                }
            }
            let Some(entry) = self.decode_upcoming()? else { break };
            is_new = !self.is_current_key(&entry);
            is_decided &= !is_new;
            self.take(&entry);
        }
        if is_decided {
            newest.decide(&self.key);
        }
        Ok(Went::Through)
    }

    /// Goes one version back.
    pub(crate) fn prev(&mut self) -> Result<bool, Malformed> {
        while let Some(position) = self.upcoming.checked_sub(2) {
            let interval = self.block.interval();
            let restart = position / interval;
            if self.since.is_some_and(|since| self.block.highest_uid(restart) <= since) {
                self.upcoming = restart * interval + 1;
                continue;
            }
            self.upcoming = position + 1;
            let uid = self.block.uid(position);
            if self.is_shown(uid) {
                self.uid = uid;
                self.recall(restart, position - restart * interval)?;
                return Ok(true);
            }
        }
        self.upcoming = 0;
        Ok(false)
    }

    /// Stands before the first entry of restart `restart`.
    fn enter(&mut self, restart: usize) -> Result<(), Malformed> {
        self.offset = self.block.restart_offset(restart)?;
        self.upcoming = restart * self.block.interval();
        self.key.clear();
        Ok(())
    }

    #[inline]
    fn is_shown(&self, uid: Uid) -> bool {
        self.since.is_none_or(|since| uid > since)
    }

    /// Reads the upcoming entry, shown or not; `false` if there is none.
    #[inline]
    fn read_upcoming(&mut self) -> Result<bool, Malformed> {
        let Some(entry) = self.decode_upcoming()? else { return Ok(false) };
        self.take(&entry);
        Ok(true)
    }

    /// The upcoming entry, which goes on with the current key.
    #[inline]
    fn decode_upcoming(&mut self) -> Result<Option<Entry>, Malformed> {
        if self.upcoming >= self.block.count() {
            self.upcoming = self.block.count() + 1;
            return Ok(None);
        }
        let entry = self.block.entry(self.offset)?;
        if entry.shared > self.key.len() {
            return Err(Malformed("a key shares more than the key before it has"));
        }
        Ok(Some(entry))
    }

    /// Whether the upcoming entry is another version of the current key.
    #[inline]
    fn is_current_key(&self, entry: &Entry) -> bool {
        let suffix = self.block.part(entry.suffix..entry.row);
        entry.shared + suffix.len() == self.key.len() && self.key.get(entry.shared..) == Some(suffix)
    }

    /// Stands on the upcoming entry.
    #[inline]
    fn take(&mut self, entry: &Entry) {
        self.key.truncate(entry.shared);
        self.key.extend_from_slice(self.block.part(entry.suffix..entry.row));
        self.row = entry.row..entry.end;
        self.kind = entry.kind;
        self.uid = self.block.uid(self.upcoming);
        self.offset = entry.end;
        self.upcoming += 1;
    }

    /// At the start of a restart interval, goes on to the first with something to show; `false` if none is left.
    fn pass_hidden_intervals(&mut self) -> Result<bool, Malformed> {
        let Some(since) = self.since else { return Ok(true) };
        if !self.upcoming.is_multiple_of(self.block.interval()) {
            return Ok(true);
        }
        let here = self.upcoming / self.block.interval();
        let mut restart = here;
        while restart < self.block.restarts() && self.block.highest_uid(restart) <= since {
            restart += 1;
        }
        if restart >= self.block.restarts() {
            self.upcoming = self.block.count() + 1;
            return Ok(false);
        }
        if restart != here {
            self.enter(restart)?;
        }
        Ok(true)
    }

    /// Takes the entry `index` of restart `restart` as the current one.
    fn recall(&mut self, restart: usize, index: usize) -> Result<(), Malformed> {
        if self.behind.restart != Some(restart) {
            self.behind.fill(&self.block, restart)?;
        }
        let entry = self.behind.entries.get(index).ok_or(Malformed("a restart interval is too short"))?;
        self.key.clear();
        self.key.extend_from_slice(self.behind.keys.get(entry.key.clone()).unwrap_or_default());
        self.row = entry.row.clone();
        self.kind = entry.kind;
        self.offset = entry.row.end;
        Ok(())
    }
}

impl Behind {
    /// Decodes the entries of restart `restart`.
    fn fill(&mut self, block: &Block, restart: usize) -> Result<(), Malformed> {
        self.restart = None;
        self.keys.clear();
        self.entries.clear();
        let first = restart * block.interval();
        let mut offset = block.restart_offset(restart)?;
        let mut previous = 0..0;
        for _ in first..block.count().min(first + block.interval()) {
            let entry = block.entry(offset)?;
            if entry.shared > previous.len() {
                return Err(Malformed("a key shares more than the key before it has"));
            }
            let start = self.keys.len();
            self.keys.extend_from_within(previous.start..previous.start + entry.shared);
            self.keys.extend_from_slice(block.part(entry.suffix..entry.row));
            previous = start..self.keys.len();
            self.entries.push(BehindEntry {
                key: previous.clone(),
                row: entry.row..entry.end,
                kind: entry.kind,
            });
            offset = entry.end;
        }
        self.restart = Some(restart);
        Ok(())
    }
}
