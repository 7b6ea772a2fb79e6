use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use planaria_types::Uid;

use super::block::{Block, Malformed};
use super::block_cursor::{BlockCursor, Went};
use super::index::{Index, IndexEntry};
use super::reader::Run;
use crate::cursor::{Cursor, RecordKind};
use crate::error::Result;
use crate::read::Newest;

/// How much a scan reads at once, in bytes, unless one block alone is larger.
const READ_AHEAD_BYTES: u64 = 256 << 10;

/// A position in a run. It owns what it needs: the run and the current block.
#[derive(Debug)]
pub(crate) struct RunCursor {
    run: Arc<Run>,
    since: Option<Uid>,
    inner: BlockCursor,
    /// The block that `inner` is in.
    loaded: Option<usize>,
    valid: bool,
    /// For a scan: the piece of the file that was read last.
    ahead: Option<Piece>,
}

/// Where a scan goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Forward,
    Backward,
}

/// A piece of a file, read at once.
#[derive(Clone, Debug, Default)]
struct Piece {
    start: u64,
    bytes: Bytes,
}

impl Piece {
    /// The `len` bytes of the file from `offset`, if they are in the piece.
    fn part(&self, offset: u64, len: usize) -> Option<Bytes> {
        let at = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        let end = at.checked_add(len)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(at..end))
    }
}

impl RunCursor {
    /// A cursor that stands nowhere; with `scan`, one that reads ahead past the cache.
    pub(crate) fn new(run: Arc<Run>, since: Option<Uid>, scan: bool) -> Self {
        let ahead = scan.then(Piece::default);
        Self { run, since, inner: BlockCursor::new(since), loaded: None, valid: false, ahead }
    }

    /// Has `inner` in block `number`; `way` is where a scan goes on from there.
    fn load(&mut self, number: usize, way: Way) -> Result<()> {
        if self.loaded != Some(number) {
            self.loaded = None;
            let block =
                if self.ahead.is_some() { self.read_ahead(number, way)? } else { self.run.block(number)? };
            self.inner.reset(block);
            self.loaded = Some(number);
        }
        Ok(())
    }

    /// Block `number` out of the piece that was read last, or out of a new one.
    fn read_ahead(&mut self, number: usize, way: Way) -> Result<Block> {
        let entry = self.run.index_entry(number)?;
        let (start, len) = (entry.offset, entry.len as usize);
        let held = self.ahead.as_ref().and_then(|piece| piece.part(start, len));
        let frame = if let Some(frame) = held {
            frame
        } else {
            let range = self.piece(number, way)?;
            let bytes = Bytes::from_owner(self.run.parts()?.bytes(range.start, range.end)?);
            let piece = Piece { start: range.start, bytes };
            let frame = piece.part(start, len).unwrap_or_default();
            self.ahead = Some(piece);
            frame
        };
        self.run.health().noted(self.run.parts()?.block_from(frame, start))
    }

    /// The bytes of block `first` and of its neighbours on the way, as many as fit. A block with nothing to show ends
    /// the piece.
    fn piece(&self, first: usize, way: Way) -> Result<Range<u64>> {
        let index = self.run.index()?;
        let mut number = first;
        let mut range = index.entry(first).map_or(0..0, IndexEntry::range);
        loop {
            let neighbour = match way {
                Way::Forward => number.checked_add(1),
                Way::Backward => number.checked_sub(1),
            };
            let Some((next, entry)) = neighbour.and_then(|next| Some((next, index.entry(next)?))) else {
                break;
            };
            let wider = range.start.min(entry.range().start)..range.end.max(entry.range().end);
            if wider.end - wider.start > READ_AHEAD_BYTES || self.hides(index, next) {
                break;
            }
            (number, range) = (next, wider);
        }
        Ok(range)
    }

    /// Whether block `number` holds nothing above `since`.
    fn hides(&self, index: &Index, number: usize) -> bool {
        let highest = index.entry(number).map(|entry| entry.highest_uid);
        self.since.is_some_and(|since| highest.is_some_and(|highest| highest <= since))
    }

    /// Stands where a move within the current block ended, or says that it ended outside.
    #[inline]
    fn settle(&mut self, moved: Result<bool, Malformed>) -> Result<bool> {
        match moved {
            Ok(stands) => {
                self.valid = stands;
                Ok(stands)
            }
            Err(malformed) => {
                self.valid = false;
                let number = self.loaded.take().unwrap_or_default();
                Err(self.run.damaged(number, malformed))
            }
        }
    }

    /// Visits what `newest` shows, of the versions up to `upto` and the keys below `end`, from the current version on.
    /// Answers whether `visit` wanted all of them; the cursor stands nowhere then.
    pub(crate) fn visit(
        &mut self,
        newest: &mut Newest,
        upto: Uid,
        end: Option<&[u8]>,
        visit: &mut impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<bool> {
        while self.valid {
            let (number, index) = (self.loaded.unwrap_or_default(), self.run.index()?);
            // Nothing in the block sorts behind its separator, so most blocks lie below the end as a whole.
            let end = end.filter(|end| index.separator(number).0 >= *end);
            let went = self.inner.visit(newest, upto, end, visit);
            self.valid = false;
            match went {
                Ok(Went::Through) => self.enter_forward(number + 1)?,
                Ok(Went::ToEnd) => return Ok(true),
                Ok(Went::Enough) => return Ok(false),
                Err(malformed) => return Err(self.run.damaged(number, malformed)),
            }
        }
        Ok(true)
    }

    /// Goes to the first version in block `number` or behind.
    fn enter_forward(&mut self, number: usize) -> Result<()> {
        self.valid = false;
        for number in number..self.run.index()?.len() {
            if self.hides(self.run.index()?, number) {
                continue;
            }
            self.load(number, Way::Forward)?;
            let moved = self.inner.first();
            if self.settle(moved)? {
                break;
            }
        }
        Ok(())
    }

    /// Goes to the last version before block `end`.
    fn enter_backward(&mut self, end: usize) -> Result<()> {
        self.valid = false;
        for number in (0..end).rev() {
            if self.hides(self.run.index()?, number) {
                continue;
            }
            self.load(number, Way::Backward)?;
            let moved = self.inner.last();
            if self.settle(moved)? {
                break;
            }
        }
        Ok(())
    }
}

impl Cursor for RunCursor {
    #[inline]
    fn is_valid(&self) -> bool {
        self.valid
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.inner.key()
    }

    #[inline]
    fn uid(&self) -> Uid {
        self.inner.uid()
    }

    #[inline]
    fn kind(&self) -> RecordKind {
        self.inner.kind()
    }

    #[inline]
    fn row(&self) -> Bytes {
        self.inner.row()
    }

    #[inline]
    fn row_ref(&self) -> &[u8] {
        self.inner.row_ref()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.enter_forward(0)
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.enter_backward(self.run.index()?.len())
    }

    fn seek(&mut self, key: &[u8], uid: Uid) -> Result<()> {
        self.valid = false;
        let Some(number) = self.run.index()?.find(key, uid) else {
            return Ok(());
        };
        if self.hides(self.run.index()?, number) {
            return self.enter_forward(number + 1);
        }
        self.load(number, Way::Forward)?;
        let moved = self.inner.seek(key, uid);
        if !self.settle(moved)? {
            self.enter_forward(number + 1)?;
        }
        Ok(())
    }

    fn seek_before(&mut self, key: &[u8]) -> Result<()> {
        self.valid = false;
        let Some(number) = self.run.index()?.find(key, Uid::MAX) else {
            return self.seek_to_last();
        };
        if self.hides(self.run.index()?, number) {
            return self.enter_backward(number);
        }
        self.load(number, Way::Backward)?;
        let moved = self.inner.seek(key, Uid::MAX).and_then(|_| self.inner.prev());
        if !self.settle(moved)? {
            self.enter_backward(number)?;
        }
        Ok(())
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        if !self.valid {
            return Ok(());
        }
        let moved = self.inner.next();
        if self.settle(moved)? {
            return Ok(());
        }
        self.enter_forward(self.loaded.map_or(0, |number| number + 1))
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        if !self.valid {
            return Ok(());
        }
        let moved = self.inner.prev();
        if self.settle(moved)? {
            return Ok(());
        }
        self.enter_backward(self.loaded.unwrap_or(0))
    }
}
