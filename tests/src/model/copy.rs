use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use planaria_types::{Epoch, History, HistoryEntry, Position, Uid};

use super::ledger::{Commit, Key, KeySet, Kind, Ledger, Row};
use super::stack::{Record, Rectangle, Retention, Stack, records_of};

/// The number of a copy in the model.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CopyId(pub u8);

/// What a copy is now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Takes updates. Two copies may believe so at once: the one with the older epoch is deposed and has not heard.
    Primary,
    /// Follows a primary, or waits for one.
    Secondary,
}

/// What a copy knows of another one that it must keep delete marks for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Registration {
    /// Everything at or below is durable there.
    pub durable: Uid,
    /// Whether it is in the promotable set, and so holds the stable UID down.
    pub promotable: bool,
}

/// How a secondary that is not at the tail is repaired.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Way {
    /// Records whose newest version lies above the fork; for the keys of a rewind the newest state, absence included.
    Delta {
        /// Keys with a local record above the fork that could not be clipped off.
        rewind: KeySet,
    },
    /// The newest version of every key: what reconcile and bulk come to.
    Replace,
}

/// A refresh on its way. Nothing of it shows before it is installed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Refresh {
    /// Where the copy and its primary part: what the delta is taken from.
    pub fork: Position,
    /// What moves.
    pub way: Way,
    /// Where the live stream started.
    pub start: Position,
    /// The highest chunk snapshot.
    pub snapshot: Uid,
    /// The next key to ask for.
    pub cursor: Key,
    /// The highest delete mark that the primary had dropped when it served the last chunk.
    pub mark_floor: Uid,
    /// What the chunks brought.
    pub records: Vec<Record>,
    /// What the live stream brought meanwhile.
    pub live: Vec<Arc<Commit>>,
}

impl Refresh {
    /// How far the live stream has come.
    pub fn passed(&self) -> Position {
        self.live.last().map_or(self.start, |commit| commit.position)
    }
}

/// How a connected secondary stands to its primary.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    /// Commits arrive in order and are logged at once.
    Live,
    /// The copy reads as its old position until the refresh is installed.
    Refreshing(Refresh),
}

/// The connection of a secondary; a crash at either end or a cut loses it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Session {
    /// Whom it follows.
    pub primary: CopyId,
    /// How far it has come.
    pub stage: Stage,
}

/// One copy of the group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopyState {
    /// Primary or secondary.
    pub role: Role,
    /// The epochs that the content of this copy was written under; durable.
    pub history: History,
    /// The newest epoch it has followed or led; durable. Older ones are refused.
    pub accepted: Epoch,
    /// Whether a primary must open a new epoch before its next UID, because it was started since the last one.
    pub restarted: bool,
    /// The reserved bound: no UID at or below it is drawn here again.
    pub drawn: Uid,
    /// Runs, holding everything at or below `base`.
    pub stack: Stack,
    /// Where the log begins.
    pub base: Uid,
    /// Commits above `base`, in order.
    pub log: Vec<Arc<Commit>>,
    /// What a crash does not take away.
    pub durable: Uid,
    /// The cut at which the copy is read.
    pub visible: Uid,
    /// Reads as of a cut, and clips, work at or above it.
    pub version_floor: Uid,
    /// No delete mark above it has been dropped.
    pub mark_floor: Uid,
    /// What the primary is known to have durable. Nothing above shows at a secondary.
    pub primary_durable: Uid,
    /// Whom the copy followed last.
    pub follows: Option<CopyId>,
    /// By copy: the registered ones, as the system fragment says.
    pub registered: Vec<Option<Registration>>,
    /// Cuts that stay readable.
    pub snapshots: Vec<Uid>,
    /// Commits that were shown here and taken back.
    pub quarantine: BTreeSet<Row>,
    /// The connection to a primary.
    pub session: Option<Session>,
}

/// Why a copy cannot be read at a cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unreadable {
    /// The cut is above what the copy shows.
    NotYet,
    /// Versions that the cut needs may be gone, or never came.
    SnapshotTooOld,
}

impl CopyState {
    /// An empty secondary among `copies`.
    pub fn empty(copies: usize) -> Self {
        Self {
            role: Role::Secondary,
            history: History::default(),
            accepted: Epoch::NONE,
            restarted: false,
            drawn: Uid::ZERO,
            stack: Stack::default(),
            base: Uid::ZERO,
            log: Vec::new(),
            durable: Uid::ZERO,
            visible: Uid::ZERO,
            version_floor: Uid::ZERO,
            mark_floor: Uid::ZERO,
            primary_durable: Uid::ZERO,
            follows: None,
            registered: vec![None; copies],
            snapshots: Vec::new(),
            quarantine: BTreeSet::new(),
            session: None,
        }
    }

    /// The last UID appended.
    pub fn appended(&self) -> Uid {
        self.log.last().map_or(self.base, |commit| commit.uid())
    }

    /// The position of everything appended.
    pub fn end(&self) -> Position {
        self.history.position_of(self.appended())
    }

    /// The position that readers see.
    pub fn shown(&self) -> Position {
        self.history.position_of(self.visible)
    }

    /// The refresh that runs, if any.
    pub fn refresh(&self) -> Option<&Refresh> {
        match &self.session.as_ref()?.stage {
            Stage::Live => None,
            Stage::Refreshing(refresh) => Some(refresh),
        }
    }

    /// The refresh that runs, to be carried on.
    pub fn refresh_mut(&mut self) -> Option<&mut Refresh> {
        match &mut self.session.as_mut()?.stage {
            Stage::Live => None,
            Stage::Refreshing(refresh) => Some(refresh),
        }
    }

    /// The newest version of `key` at or below `cut`, floors or not.
    pub fn newest(&self, key: Key, cut: Uid) -> Option<Record> {
        let logged = self.log.iter().rev().filter(|commit| commit.uid() <= cut);
        let logged = logged.flat_map(|commit| records_of(commit)).find(|record| record.key == key);
        logged.or_else(|| self.stack.newest(key, cut))
    }

    /// What `key` holds at `cut`.
    pub fn read(&self, key: Key, cut: Uid) -> Result<Option<Row>, Unreadable> {
        if cut > self.visible {
            return Err(Unreadable::NotYet);
        }
        let held = self.snapshots.contains(&cut);
        if !held && (cut < self.version_floor || self.stack.hides(cut)) {
            return Err(Unreadable::SnapshotTooOld);
        }
        Ok(self.newest(key, cut).and_then(|record| record.content()))
    }

    /// The stable UID: the lowest durable position in the promotable set, as far as this copy knows.
    pub fn stable(&self) -> Uid {
        let members = self.registered.iter().flatten().filter(|registration| registration.promotable);
        members.map(|registration| registration.durable).min().unwrap_or(Uid::MAX).min(self.own_limit())
    }

    /// Up to where this copy may drop delete marks: what the mark floor may rise to.
    pub fn mark_limit(&self) -> Uid {
        let registered = self.registered.iter().flatten().map(|registration| registration.durable).min();
        registered.unwrap_or(Uid::MAX).min(self.stable())
    }

    /// No floor passes what is durable here and at the primary, nor what is shown: right after an install a copy may
    /// hold more than it shows, and the versions that its readers see are shadowed already.
    fn own_limit(&self) -> Uid {
        match self.role {
            Role::Primary => self.durable,
            Role::Secondary => self.durable.min(self.primary_durable).min(self.visible),
        }
    }

    /// What merges may drop now.
    pub fn retention(&self) -> Retention {
        Retention {
            stable: self.stable(),
            marks: self.mark_limit(),
            snapshots: self.snapshots.clone(),
            forget_gaps: false,
        }
    }

    /// Moves what is durable in the log, up to and including `to`, into a run.
    pub fn flush(&mut self, to: Uid, keys: u8) {
        let (flushed, log): (Vec<_>, Vec<_>) = self.log.drain(..).partition(|commit| commit.uid() <= to);
        self.log = log;
        if let Some(last) = flushed.last() {
            let records = flushed.iter().flat_map(|commit| records_of(commit));
            self.stack.add(Rectangle::new(self.base, last.uid(), (0, keys), records));
            self.base = last.uid();
        }
    }

    /// Takes back everything above `fork` by a smaller rectangle. The caller checked that the fork may be read.
    pub fn clip(&mut self, fork: Position) {
        self.log.retain(|commit| commit.uid() <= fork.uid);
        self.stack.clip(fork.uid);
        self.base = self.base.min(fork.uid);
        self.history.truncate(&fork);
        self.snapshots.retain(|snapshot| *snapshot <= fork.uid);
        for bound in [&mut self.durable, &mut self.visible, &mut self.primary_durable, &mut self.mark_floor] {
            *bound = (*bound).min(fork.uid);
        }
    }

    /// Adopts the entries of `history` that began below `uid`, as the stream and the install do.
    pub fn adopt(&mut self, history: &History, uid: Uid) {
        for entry in history.entries().iter().filter(|entry| entry.inherited < uid) {
            if !self.history.entries().iter().any(|own| own.epoch == entry.epoch) {
                // An entry that does not fit is left out; the position then belongs to no epoch of this history
                // and the check of R5 says so.
                let _ = self.history.push(*entry);
            }
        }
    }

    /// Opens a new epoch on top of what is durable here.
    pub fn open_epoch(&mut self, epoch: Epoch, ledger: &Ledger) {
        let inherited = self.end();
        let hash = ledger.hash_at(inherited);
        let _ = self.history.push(HistoryEntry { epoch, inherited: inherited.uid, hash });
        self.accepted = epoch;
        self.restarted = false;
    }

    /// Loses everything that was not synced.
    pub fn lose_unsynced(&mut self) {
        let durable = self.durable;
        self.log.retain(|commit| commit.uid() <= durable);
        self.visible = self.visible.min(durable);
        self.primary_durable = self.primary_durable.min(durable);
        self.snapshots.clear();
        self.session = None;
        self.restarted = self.role == Role::Primary;
        // An epoch may have been adopted with commits that are lost now. One that began at the durable end stays: its
        // entry was durable before its first commit.
        let kept = self.history.entries().iter().filter(|entry| entry.inherited <= durable);
        self.history = History::from_entries(kept.copied().collect()).unwrap_or_default();
    }

    /// The keys with a local record above `uid`, in the log or in runs.
    pub fn keys_above(&self, uid: Uid) -> KeySet {
        let logged =
            self.log.iter().filter(|commit| commit.uid() > uid).flat_map(|commit| records_of(commit));
        let mut keys = self.stack.keys_above(uid);
        for record in logged {
            keys = keys.with(record.key);
        }
        keys
    }

    /// Whether the newest record of `key` is a delete mark, and its UID.
    pub fn newest_mark(&self, key: Key) -> Option<Uid> {
        self.newest(key, Uid::MAX).filter(|record| record.kind == Kind::Delete).map(|record| record.uid())
    }

    /// Hashes what does not name other copies, so that copies may be told apart before they are put in order.
    pub fn hash_alone<H: Hasher>(&self, state: &mut H) {
        (self.role, self.accepted, self.restarted, self.drawn).hash(state);
        for entry in self.history.entries() {
            (entry.epoch, entry.inherited).hash(state);
        }
        (&self.stack, self.base, &self.log, self.durable, self.visible).hash(state);
        (self.version_floor, self.mark_floor, self.primary_durable).hash(state);
        (&self.snapshots, &self.quarantine).hash(state);
        self.session.as_ref().map(|session| &session.stage).hash(state);
    }
}
