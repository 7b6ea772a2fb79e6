//! An executable model of one group and its copies, over an ordered map of (key, UID).
//!
//! It says what the store must do where the design is hardest to get right: floors, sparse runs, refresh under
//! writes, forks, clips and rewinds, promotion and the return of a deposed primary. [`Model::apply`] takes one step,
//! [`Model::enabled_ops`] lists the possible ones, [`Model::read`] answers as a reader of one copy would, and
//! [`Model::check`] and [`Model::check_step`] hold the state and the step against a ledger of everything that was ever
//! committed. [`explore`](explore::explore) visits every state within bounds; a simulator of the real store drives the same
//! steps and compares the answers.
//!
//! What is left out on purpose: bytes, files and the order of syncs inside one step (the crash tests have those),
//! messages in flight (a step of the stream is one exchange; delay is a step not taken yet), and everything about time.

mod copy;
mod explore;
mod handshake;
mod invariants;
mod ledger;
mod op;
mod refresh;
mod stack;
mod steps;
mod walk;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use planaria_types::{Epoch, Uid};

pub use copy::{CopyId, CopyState, Refresh, Registration, Role, Session, Stage, Unreadable, Way};
pub use explore::{Bounds, Counterexample, Explored, explore};
pub use invariants::Violation;
pub use ledger::{Changes, Commit, Key, KeySet, Kind, Ledger, Row};
pub use op::{Op, Outcome, Planted, Refused};
pub use stack::{Dropped, Gap, Record, Rectangle, Retention, Stack};
pub use walk::walk;

/// One group, its copies, and the ground truth. Cheap to clone: what a step does not touch is shared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Model {
    keys: u8,
    copies: Vec<Arc<CopyState>>,
    ledger: Arc<Ledger>,
    /// Epochs opened so far; it stands for the random nonce.
    nonces: u64,
    planted: Option<Planted>,
}

impl Model {
    /// A group of `copies` empty copies over `keys` keys (at most [`Key::LIMIT`]), copy 0 leading it.
    pub fn new(copies: u8, keys: u8) -> Self {
        let empty = Arc::new(CopyState::empty(usize::from(copies)));
        let mut model = Self {
            keys: keys.min(Key::LIMIT),
            copies: vec![empty; usize::from(copies)],
            ledger: Arc::default(),
            nonces: 0,
            planted: None,
        };
        let epoch = model.fresh_epoch(1, 0);
        if let Some(first) = model.copies.first_mut().map(Arc::make_mut) {
            first.role = Role::Primary;
            first.open_epoch(epoch, &Ledger::default());
        }
        model
    }

    /// The same model with a fault in it.
    #[must_use]
    pub fn with(mut self, planted: Planted) -> Self {
        self.planted = Some(planted);
        self
    }

    /// All copies' numbers.
    pub fn ids(&self) -> impl Iterator<Item = CopyId> + use<> {
        (0..self.copies.len()).map(|at| CopyId(at as u8))
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = Key> + use<> {
        (0..self.keys).map(Key)
    }

    /// One copy, to look at.
    pub fn copy(&self, id: CopyId) -> Result<&CopyState, Refused> {
        self.copies.get(usize::from(id.0)).map(Arc::as_ref).ok_or(Refused::UnknownCopy)
    }

    /// Everything that was ever committed.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What `key` holds at one copy as of `cut`, which may be anything up to the copy's visible cut.
    pub fn read(&self, copy: CopyId, key: Key, cut: Uid) -> Result<Option<Row>, Unreadable> {
        self.copy(copy).map_err(|_| Unreadable::NotYet)?.read(key, cut)
    }

    /// The UID that a primary would draw next.
    pub fn next_uid(&self, copy: &CopyState) -> Uid {
        match self.planted {
            Some(Planted::ReuseUid) => copy.appended().next(),
            _ => copy.appended().max(copy.drawn).next(),
        }
    }

    /// The copy that leads under the newest epoch.
    pub fn ruling(&self) -> Option<CopyId> {
        let primaries = self.ids().filter(|id| self.copy(*id).is_ok_and(|copy| copy.role == Role::Primary));
        primaries.max_by_key(|id| self.copy(*id).map(|copy| copy.accepted.term).unwrap_or_default())
    }

    /// A number for the state; two states with the same number are taken to be one. States that differ only in the
    /// numbers of the copies mostly get the same: copies are put in order by what they hold.
    pub fn fingerprint(&self) -> u64 {
        let mut order: Vec<(u64, usize)> = self.copies.iter().map(|copy| alone(copy)).zip(0..).collect();
        order.sort_unstable();
        let rank = |id: CopyId| order.iter().position(|(_, at)| *at == usize::from(id.0));
        let mut state = DefaultHasher::new();
        for (hash, at) in &order {
            hash.hash(&mut state);
            let Some(copy) = self.copies.get(*at) else {
                continue;
            };
            copy.session.as_ref().map(|session| rank(session.primary)).hash(&mut state);
            copy.follows.map(rank).hash(&mut state);
            for (_, other) in &order {
                copy.registered.get(*other).hash(&mut state);
            }
        }
        self.ledger.reused().hash(&mut state);
        state.finish()
    }

    fn copy_mut(&mut self, id: CopyId) -> Result<&mut CopyState, Refused> {
        self.copies.get_mut(usize::from(id.0)).map(Arc::make_mut).ok_or(Refused::UnknownCopy)
    }

    fn has(&self, fault: Planted) -> bool {
        self.planted == Some(fault)
    }

    fn fresh_epoch(&mut self, term: u64, incarnation: u64) -> Epoch {
        self.nonces += 1;
        Epoch { term, incarnation, nonce: self.nonces }
    }

    /// Breaks the connections of all copies that follow `primary`.
    fn hang_up(&mut self, primary: CopyId) {
        for copy in &mut self.copies {
            if copy.session.as_ref().is_some_and(|session| session.primary == primary) {
                Arc::make_mut(copy).session = None;
            }
        }
    }
}

fn alone(copy: &CopyState) -> u64 {
    let mut state = DefaultHasher::new();
    copy.hash_alone(&mut state);
    state.finish()
}
