use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use planaria_types::{HistoryHash, Position, Uid};

/// A primary key of the model: a number below [`Key::LIMIT`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key(pub u8);

impl Key {
    /// The most keys a model may have: a set of keys is one 64-bit word.
    pub const LIMIT: u8 = 64;
}

/// A set of keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct KeySet(u64);

impl KeySet {
    /// No key.
    pub const EMPTY: Self = Self(0);

    /// The set of one key; a key at or above [`Key::LIMIT`] is dropped.
    pub fn of(key: Key) -> Self {
        Self(1u64.checked_shl(u32::from(key.0)).unwrap_or(0))
    }

    /// The set with one key more.
    #[must_use]
    pub fn with(self, key: Key) -> Self {
        Self(self.0 | Self::of(key).0)
    }

    /// Whether the key is in the set.
    pub fn contains(self, key: Key) -> bool {
        self.0 & Self::of(key).0 != 0
    }

    /// Whether no key is in the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether some key is in both sets.
    pub fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The keys in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The keys, lowest first.
    pub fn iter(self) -> impl Iterator<Item = Key> {
        (0..Key::LIMIT).map(Key).filter(move |key| self.contains(*key))
    }
}

impl FromIterator<Key> for KeySet {
    fn from_iter<T: IntoIterator<Item = Key>>(keys: T) -> Self {
        keys.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|key| key.0)).finish()
    }
}

/// What a record says of its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// The key has a row.
    Put,
    /// The key has none: a delete mark.
    Delete,
}

/// What one commit changes: one record per key, as after normalisation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Changes {
    /// Keys that get a new row.
    pub puts: KeySet,
    /// Keys that get a delete mark.
    pub deletes: KeySet,
}

impl Changes {
    /// A commit that writes one row.
    pub fn put(key: Key) -> Self {
        Self { puts: KeySet::of(key), deletes: KeySet::EMPTY }
    }

    /// A commit that deletes one row.
    pub fn delete(key: Key) -> Self {
        Self { puts: KeySet::EMPTY, deletes: KeySet::of(key) }
    }

    /// What the commit says of `key`, if anything.
    pub fn kind_of(&self, key: Key) -> Option<Kind> {
        if self.puts.contains(key) {
            Some(Kind::Put)
        } else if self.deletes.contains(key) {
            Some(Kind::Delete)
        } else {
            None
        }
    }

    /// Whether the commit is normalised and within `keys` keys: not empty, no key twice.
    pub fn is_normalised(&self, keys: u8) -> bool {
        let within = |set: KeySet| set.iter().all(|key| key.0 < keys);
        let empty = self.puts.is_empty() && self.deletes.is_empty();
        !empty && !self.puts.meets(self.deletes) && within(self.puts) && within(self.deletes)
    }
}

/// The identity of a row: the commit that wrote it. It stands for the bytes of the row, so two rows are equal exactly
/// if one commit wrote them; the UID alone would not tell apart what two epochs wrote under one number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// The UID of the commit.
    pub uid: Uid,
    /// The nonce of the commit's epoch.
    pub nonce: u64,
}

impl Row {
    /// The row, or the identity of the commit, at a position.
    pub fn at(position: Position) -> Self {
        Self { uid: position.uid, nonce: position.epoch.nonce }
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.uid.get(), self.nonce)
    }
}

/// One commit as it really happened.
#[derive(Clone, PartialEq, Eq)]
pub struct Commit {
    /// The epoch and UID under which it was written.
    pub position: Position,
    /// The position that it was written on top of.
    pub predecessor: Position,
    /// What it changed.
    pub changes: Changes,
    /// The running hash over this commit and all before it.
    pub hash: HistoryHash,
}

impl Commit {
    /// The UID of the commit.
    pub fn uid(&self) -> Uid {
        self.position.uid
    }
}

impl Hash for Commit {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The running hash covers the predecessors and the changes; the row tells this commit from its siblings.
        (Row::at(self.position), self.hash).hash(state);
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Row::at(self.position))
    }
}

/// The ground truth: every commit that any primary ever wrote, as a tree by predecessor. No copy reads it to decide
/// anything; it is what copies are checked against, and where the sender's buffer takes the bytes of a commit from.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Ledger {
    commits: BTreeMap<Row, Arc<Commit>>,
    /// Positions that were given out twice. Anything here is a violation of R1.
    reused: Vec<Row>,
}

impl Ledger {
    /// Writes a commit down and returns it.
    pub fn write(&mut self, position: Position, predecessor: Position, changes: Changes) -> Arc<Commit> {
        let below = self.hash_at(predecessor).0;
        let words = [position.epoch.nonce, position.uid.get(), changes.puts.0, changes.deletes.0];
        let hash = HistoryHash(words.iter().fold(below, |hash, word| mix(hash, *word)));
        let commit = Arc::new(Commit { position, predecessor, changes, hash });
        if self.commits.insert(Row::at(position), Arc::clone(&commit)).is_some() {
            self.reused.push(Row::at(position));
        }
        commit
    }

    /// The commit at a position.
    pub fn get(&self, position: Position) -> Option<&Arc<Commit>> {
        self.commits.get(&Row::at(position))
    }

    /// The commit that wrote a row.
    pub fn author(&self, row: Row) -> Option<&Arc<Commit>> {
        self.commits.get(&row)
    }

    /// How many commits were ever written.
    pub fn len(&self) -> usize {
        self.commits.len() + self.reused.len()
    }

    /// Whether nothing was ever written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Positions that two commits were written under.
    pub fn reused(&self) -> &[Row] {
        &self.reused
    }

    /// The history hash at a position.
    pub fn hash_at(&self, position: Position) -> HistoryHash {
        self.get(position).map_or(HistoryHash::default(), |commit| commit.hash)
    }

    /// The commits that led to `end`, newest first.
    pub fn back_from(&self, end: Position) -> impl Iterator<Item = &Arc<Commit>> {
        std::iter::successors(self.get(end), |commit| self.get(commit.predecessor))
    }

    /// Whether `position` is `end` or one of its predecessors. The empty state precedes everything.
    pub fn precedes(&self, position: Position, end: Position) -> bool {
        position == Position::default() || self.back_from(end).any(|commit| commit.position == position)
    }

    /// The commit that follows `after` on the way to `end`.
    pub fn follower(&self, after: Position, end: Position) -> Option<&Arc<Commit>> {
        self.back_from(end).find(|commit| commit.predecessor == after)
    }

    /// What `key` holds after replaying everything up to and including `end`.
    pub fn replay(&self, end: Position, key: Key) -> Option<Row> {
        let (position, kind) = self
            .back_from(end)
            .find_map(|commit| commit.changes.kind_of(key).map(|kind| (commit.position, kind)))?;
        (kind == Kind::Put).then(|| Row::at(position))
    }
}

/// One step of a 128-bit running hash (the multiplier and rotation of FNV-1a's 128-bit form, by words).
fn mix(hash: u128, word: u64) -> u128 {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    ((hash ^ u128::from(word)).wrapping_add(1)).wrapping_mul(PRIME).rotate_left(29)
}
