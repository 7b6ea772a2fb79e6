//! What copies tell that makes a primary doubt its own directory.
//!
//! A term belongs to one directory: whoever leads under it begins another incarnation at each start, and nobody else does. So a copy that
//! holds more of this term than its primary, or that follows somebody else under the very number, has met another state of that
//! directory: it was copied, or put back from an older state, or a crash has lost what was not synced. The primary leads on, because
//! whether what it lacks matters an operator knows alone; it says so.

use std::fmt;

use planaria_types::{Epoch, EpochOrder, Uid};

use super::group::Group;
use crate::message::Hello;

/// Copies of which doubts are kept, at most.
const DOUBTS_MAX: usize = 16;

/// What a copy has told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Doubt {
    /// The copy, by name.
    pub copy: String,
    /// What.
    pub kind: DoubtKind,
}

/// See [`Doubt`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DoubtKind {
    /// It follows another primary under the number of this epoch.
    Rival {
        /// This primary's epoch.
        epoch: Epoch,
    },
    /// It had commits of this primary's own term that the primary lacks.
    Lacks {
        /// The last that it had.
        had: Uid,
        /// The last that both have.
        shared: Uid,
    },
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { copy, kind } = self;
        match kind {
            DoubtKind::Rival { epoch } => write!(
                f,
                "{copy} follows another primary under the number of epoch {epoch}: the directory of one of the two was copied, or put back from \
                 an older state. If it was this one, promote a copy that has more, with --force"
            ),
            DoubtKind::Lacks { had, shared } => write!(
                f,
                "{copy} came with commits up to {had} of this primary's own, which has none of them after {shared}: its directory was put \
                 back from an older state or copied, or a crash lost what was not synced. What {copy} had more is in its quarantine"
            ),
        }
    }
}

impl Group {
    /// What copies have told that makes a primary doubt its own directory, since it was started.
    pub fn doubts(&self) -> impl Iterator<Item = &Doubt> {
        self.doubts.values()
    }

    /// A copy was refused, because it holds something of an epoch with this one's number.
    pub(super) fn doubt_number(&mut self, hello: &Hello) {
        let held = hello.history.epoch_of(hello.durable);
        if held.order(&self.epoch()) == EpochOrder::Conflict {
            self.doubt(hello, DoubtKind::Rival { epoch: self.epoch() });
        }
    }

    /// A copy is admitted that shares so much with this one.
    pub(super) fn doubt_what_is_lacking(&mut self, hello: &Hello, shared: Uid) {
        let held = hello.history.epoch_of(hello.durable);
        if shared < hello.durable && held.term == self.epoch().term && hello.portion.is_none() {
            self.doubt(hello, DoubtKind::Lacks { had: hello.durable, shared });
        }
    }

    fn doubt(&mut self, hello: &Hello, kind: DoubtKind) {
        let is_known = self.doubts.contains_key(&hello.instance);
        if !self.is_feeding() && (is_known || self.doubts.len() < DOUBTS_MAX) {
            self.doubts.insert(hello.instance, Doubt { copy: hello.name.clone(), kind });
        }
    }
}

#[cfg(test)]
#[path = "doubts_tests.rs"]
mod tests;
