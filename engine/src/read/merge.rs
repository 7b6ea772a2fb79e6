use std::cmp::Ordering;

use bytes::Bytes;
use planaria_types::{KeyRange, Uid};

use super::newest::Newest;
use super::source::Source;
use crate::cursor::RecordKind;
use crate::error::Result;

/// Which way a merge goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Direction {
    /// Keys ascending; of one key the newest version first.
    Forward,
    /// Keys descending; of one key the oldest version first.
    Backward,
}

/// Several sorted sources as one, in one direction, over a key range.
///
/// A binary heap of source indices; the top is the current version.
pub(crate) struct Merge {
    sources: Vec<Source>,
    heap: Vec<usize>,
    direction: Direction,
    range: KeyRange,
}

impl Merge {
    /// A merge that stands on its first version. Newer sources come first in `sources`.
    pub(crate) fn new(mut sources: Vec<Source>, range: KeyRange, direction: Direction) -> Result<Self> {
        for source in &mut sources {
            match direction {
                Direction::Forward => source.seek(&range.start)?,
                Direction::Backward => source.seek_before(range.end.as_deref())?,
            }
        }
        let mut merge = Self { sources, heap: Vec::new(), direction, range };
        merge.heapify();
        Ok(merge)
    }

    /// Goes to the first version of the first key at or behind `key`; for a merge that goes forward.
    pub(crate) fn seek(&mut self, key: &[u8]) -> Result<()> {
        for source in &mut self.sources {
            source.seek(key)?;
        }
        self.heapify();
        Ok(())
    }

    fn heapify(&mut self) {
        self.heap = (0..self.sources.len()).filter(|&index| self.sources[index].is_valid()).collect();
        for at in (0..self.heap.len() / 2).rev() {
            self.sift_down(at);
        }
    }

    fn order(&self, a: usize, b: usize) -> Ordering {
        let (left, right) = (&self.sources[a], &self.sources[b]);
        let forward = left.key().cmp(right.key()).then_with(|| right.uid().cmp(&left.uid()));
        match self.direction {
            Direction::Forward => forward.then(a.cmp(&b)),
            Direction::Backward => forward.reverse().then(a.cmp(&b)),
        }
    }

    fn sift_down(&mut self, mut at: usize) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let mut least = at;
            for child in [left, right] {
                if child < self.heap.len() && self.order(self.heap[child], self.heap[least]) == Ordering::Less
                {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.heap.swap(at, least);
            at = least;
        }
    }

    #[inline]
    fn top(&self) -> Option<&Source> {
        self.heap.first().map(|&index| &self.sources[index])
    }

    /// The current key, if there is a current version inside the range.
    #[inline]
    pub(crate) fn key(&self) -> Option<&[u8]> {
        let key = self.top()?.key();
        let inside = match self.direction {
            Direction::Forward => self.range.is_below_end(key),
            Direction::Backward => key >= self.range.start.as_slice(),
        };
        inside.then_some(key)
    }

    /// The current version's UID.
    #[inline]
    pub(crate) fn uid(&self) -> Uid {
        self.top().map_or(Uid::ZERO, Source::uid)
    }

    /// The current version's kind.
    #[inline]
    pub(crate) fn kind(&self) -> RecordKind {
        self.top().map_or(RecordKind::Delete, Source::kind)
    }

    /// The current version's row, owned.
    pub(crate) fn row(&self) -> Bytes {
        self.top().map_or_else(Bytes::new, Source::row)
    }

    /// The current version's row, borrowed.
    #[inline]
    pub(crate) fn row_ref(&self) -> &[u8] {
        self.top().map_or(&[], Source::row_ref)
    }

    /// Whether one source of runs alone has something left, in which case [`Self::visit`] does for the rest.
    pub(super) fn is_one_chain(&self) -> bool {
        self.heap.len() == 1
            && self.direction == Direction::Forward
            && matches!(self.top(), Some(Source::Chain(chain)) if chain.shows_all())
    }

    /// Visits what `newest` shows from the current version on, up to `end`, where one source of runs alone has
    /// something left. Answers whether it went to the end.
    pub(super) fn visit(
        &mut self,
        newest: &mut Newest,
        end: Option<&[u8]>,
        visit: &mut impl FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<bool> {
        let Some(Source::Chain(chain)) = self.heap.first().map(|&index| &mut self.sources[index]) else {
            return Ok(true);
        };
        let end = [end, self.range.end.as_deref()].into_iter().flatten().min();
        chain.visit(newest, end, visit)
    }

    /// Goes one version on, in the direction of the merge.
    #[inline]
    pub(crate) fn advance(&mut self) -> Result<()> {
        let Some(&top) = self.heap.first() else { return Ok(()) };
        let source = &mut self.sources[top];
        match self.direction {
            Direction::Forward => source.next()?,
            Direction::Backward => source.prev()?,
        }
        if !source.is_valid() {
            self.heap.swap_remove(0);
        }
        if self.heap.len() > 1 {
            self.sift_down(0);
        }
        Ok(())
    }
}
