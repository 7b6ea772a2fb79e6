use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use planaria_types::{KeyRange, Uid};

use super::merge::{Direction, Merge};
use super::newest::Newest;
use super::source::Source;
use crate::cursor::RecordKind;
use crate::error::{Error, Result};
use crate::version::Fragment;

/// The records of a key range of one table as of one UID, owned, in both directions.
///
/// It keeps the files that it reads, so it may live as long as it likes; the price is their disk space.
pub struct Scan {
    /// Fragments that neither end has entered.
    fragments: VecDeque<Arc<Fragment>>,
    range: KeyRange,
    at: Uid,
    front: Option<Visible>,
    back: Option<Visible>,
    /// The last key that the front end gave, once there is one.
    front_key: Option<Vec<u8>>,
    /// Whether an end has entered the fragment of the other, which is the last one then.
    front_met_back: bool,
    back_met_front: bool,
    failed: bool,
    /// Why the copy does not answer for the range, until that is told.
    refused: Option<Error>,
}

impl Scan {
    pub(crate) fn new(fragments: VecDeque<Arc<Fragment>>, range: KeyRange, at: Uid) -> Self {
        Self {
            fragments,
            range,
            at,
            front: None,
            back: None,
            front_key: None,
            front_met_back: false,
            back_met_front: false,
            failed: false,
            refused: None,
        }
    }

    /// A scan of what the copy does not hold: it fails with `why`.
    pub(crate) fn refused(range: KeyRange, why: Error) -> Self {
        Self { refused: Some(why), ..Self::new(VecDeque::new(), range, Uid::ZERO) }
    }

    /// Calls `visit` with each record that is left, in order, without owning it, until it returns `false`.
    pub fn visit(mut self, mut visit: impl FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        while self.enter_front()? {
            let Some(front) = &mut self.front else { break };
            while !front.merge.is_one_chain() && front.settle_forward()? {
                let key = front.merge.key().unwrap_or_default();
                if !self.range.is_below_end(key) || !visit(key, front.merge.row_ref()) {
                    return Ok(());
                }
                front.leave_key()?;
            }
            if front.merge.is_one_chain()
                && !front.merge.visit(&mut front.newest, self.range.end.as_deref(), &mut visit)?
            {
                return Ok(());
            }
            if self.back_met_front {
                return Ok(());
            }
            self.front = None;
        }
        Ok(())
    }

    /// Sees to it that the front end stands in a fragment; `false` if nothing is left.
    fn enter_front(&mut self) -> Result<bool> {
        if self.front.is_some() {
            return Ok(true);
        }
        if let Some(why) = self.refused.take() {
            return Err(why);
        }
        let fragment = match (self.fragments.pop_front(), &self.back) {
            (Some(fragment), _) => fragment,
            (None, Some(back)) if !self.front_met_back => {
                self.front_met_back = true;
                Arc::clone(&back.fragment)
            }
            (None, _) => return Ok(false),
        };
        if let Some(last) = &self.front_key {
            self.range.start = [last.as_slice(), &[0]].concat();
        }
        self.front = Some(Visible::new(&fragment, &self.range, self.at, Direction::Forward)?);
        Ok(true)
    }

    /// The same for the back end.
    fn enter_back(&mut self) -> Result<bool> {
        if self.back.is_some() {
            return Ok(true);
        }
        if let Some(why) = self.refused.take() {
            return Err(why);
        }
        let fragment = match (self.fragments.pop_back(), &self.front) {
            (Some(fragment), _) => fragment,
            (None, Some(front)) if !self.back_met_front => {
                self.back_met_front = true;
                Arc::clone(&front.fragment)
            }
            (None, _) => return Ok(false),
        };
        self.back = Some(Visible::new(&fragment, &self.range, self.at, Direction::Backward)?);
        Ok(true)
    }

    fn forward(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        while self.enter_front()? {
            let Some(front) = &mut self.front else { break };
            if front.settle_forward()? {
                let key = front.merge.key().unwrap_or_default();
                if self.range.is_below_end(key) {
                    let record = (Bytes::copy_from_slice(key), front.merge.row());
                    front.leave_key()?;
                    let last = self.front_key.get_or_insert_default();
                    last.clear();
                    last.extend_from_slice(&record.0);
                    return Ok(Some(record));
                }
            }
            self.front = None;
        }
        Ok(None)
    }

    fn backward(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        while self.enter_back()? {
            let Some(back) = &mut self.back else { break };
            if let Some((key, row)) = back.take_backward()?
                && self.front_key.as_ref().is_none_or(|front| key > front.as_slice())
            {
                self.range.end = Some(key.to_vec());
                return Ok(Some((key, row)));
            }
            self.back = None;
        }
        Ok(None)
    }

    fn once(&mut self, result: Result<Option<(Bytes, Bytes)>>) -> Option<Result<(Bytes, Bytes)>> {
        self.failed = result.is_err();
        result.transpose()
    }
}

impl Iterator for Scan {
    type Item = Result<(Bytes, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = self.forward();
        self.once(result)
    }
}

impl DoubleEndedIterator for Scan {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let result = self.backward();
        self.once(result)
    }
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("range", &self.range).field("at", &self.at).finish_non_exhaustive()
    }
}

/// The newest versions of a fragment at or below a UID.
struct Visible {
    fragment: Arc<Fragment>,
    merge: Merge,
    newest: Newest,
}

impl Visible {
    fn new(fragment: &Arc<Fragment>, range: &KeyRange, at: Uid, direction: Direction) -> Result<Self> {
        let range = range.intersect(&fragment.range).unwrap_or_else(|| KeyRange::new([], Some(Vec::new())));
        let merge = Merge::new(Source::of_fragment(fragment), range, direction)?;
        Ok(Self { fragment: Arc::clone(fragment), merge, newest: Newest::new(at) })
    }

    /// Goes to the next version that is to be shown; `false` at the end.
    fn settle_forward(&mut self) -> Result<bool> {
        loop {
            let Some(key) = self.merge.key() else { return Ok(false) };
            let hidden = self.merge.uid() > self.newest.at || self.newest.is_decided(key);
            if !hidden {
                if self.merge.kind() == RecordKind::Put {
                    return Ok(true);
                }
                self.leave_key()?;
                continue;
            }
            self.merge.advance()?;
        }
    }

    /// Goes past the current version; older ones of the same key are skipped from now on.
    fn leave_key(&mut self) -> Result<()> {
        if let Some(key) = self.merge.key() {
            self.newest.decide(key);
        }
        self.merge.advance()
    }

    /// The next record backwards: of one key the oldest version comes first, the newest at or below `at` wins.
    fn take_backward(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        while let Some(key) = self.merge.key() {
            let key = Bytes::copy_from_slice(key);
            let mut newest = None;
            while self.merge.key() == Some(&key[..]) {
                if self.merge.uid() <= self.newest.at {
                    newest = (self.merge.kind() == RecordKind::Put).then(|| self.merge.row());
                }
                self.merge.advance()?;
            }
            if let Some(row) = newest {
                return Ok(Some((key, row)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "scan_tests.rs"]
mod tests;
