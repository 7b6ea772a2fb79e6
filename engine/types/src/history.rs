use std::fmt;

use crate::{Epoch, Uid};

/// One state of a group: everything up to and including `uid`, as written under `epoch`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Position {
    /// The epoch under which `uid` was written.
    pub epoch: Epoch,
    /// The last commit that the state contains.
    pub uid: Uid,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.uid, self.epoch)
    }
}

/// A running 128-bit hash over the commits of a group, in order.
///
/// Two copies that applied the same commits in the same order have the same hash at the same position. It is computed
/// where commits are encoded (the engine); here it is only carried and compared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HistoryHash(pub u128);

impl fmt::Display for HistoryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for HistoryHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HistoryHash({self})")
    }
}

/// The start of one epoch in a group's history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HistoryEntry {
    /// The epoch that begins.
    pub epoch: Epoch,
    /// The last UID of the state that the epoch began from; its first own UID is above.
    pub inherited: Uid,
    /// The history hash at `inherited`.
    pub hash: HistoryHash,
}

/// The epochs of a group in the order in which they began.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct History {
    entries: Vec<HistoryEntry>,
}

/// Where two histories part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fork {
    /// They agree up to and including this position, and nothing beyond it is known to be shared.
    At(Position),
    /// They have no epoch in common.
    Unrelated,
}

impl History {
    /// A history of the given entries.
    ///
    /// Returns `None` unless epochs rise strictly and inherited UIDs do not fall.
    pub fn from_entries(entries: Vec<HistoryEntry>) -> Option<Self> {
        let mut history = Self::default();
        for entry in entries {
            history.push(entry).ok()?;
        }
        Some(history)
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> &[HistoryEntry] {
        &self.entries
    }

    /// The epoch that runs now; [`Epoch::NONE`] before the first.
    pub fn current(&self) -> Epoch {
        self.entries.last().map_or(Epoch::NONE, |entry| entry.epoch)
    }

    /// Adds the start of a new epoch.
    ///
    /// # Errors
    ///
    /// Gives the entry back unless its epoch is newer than the current one and its inherited UID is not below the last.
    pub fn push(&mut self, entry: HistoryEntry) -> Result<(), HistoryEntry> {
        let fits = self.entries.last().is_none_or(|last| {
            entry.epoch.order(&last.epoch) == crate::EpochOrder::Newer && entry.inherited >= last.inherited
        });
        if !fits {
            return Err(entry);
        }
        self.entries.push(entry);
        Ok(())
    }

    /// The epoch under which `uid` was written: the last one that inherited less than `uid`.
    pub fn epoch_of(&self, uid: Uid) -> Epoch {
        let later = self.entries.partition_point(|entry| entry.inherited < uid);
        later.checked_sub(1).and_then(|at| self.entries.get(at)).map_or(Epoch::NONE, |entry| entry.epoch)
    }

    /// The position that `uid` names in this history.
    pub fn position_of(&self, uid: Uid) -> Position {
        Position { epoch: self.epoch_of(uid), uid }
    }

    /// The last UID of the epoch at `index`, given that the history as a whole ends at `end`.
    fn end_of(&self, index: usize, end: Uid) -> Uid {
        self.entries.get(index + 1).map_or(end, |next| next.inherited)
    }

    /// Where this history, ending at `end`, parts from `other`, ending at `other_end`: within the last common epoch,
    /// the smaller of both ends. Two empty histories fork at the empty state.
    pub fn fork(&self, end: Uid, other: &Self, other_end: Uid) -> Fork {
        if self.entries.is_empty() || other.entries.is_empty() {
            return Fork::At(Position::default());
        }
        for (index, entry) in self.entries.iter().enumerate().rev() {
            if let Some(at) = other.entries.iter().position(|theirs| theirs.epoch == entry.epoch) {
                let uid = self.end_of(index, end).min(other.end_of(at, other_end));
                return Fork::At(Position { epoch: entry.epoch, uid });
            }
        }
        Fork::Unrelated
    }

    /// The history that a copy leads on from, if it holds everything up to `end`: without the epochs that it only heard
    /// of, because they begin beyond.
    ///
    /// An epoch that begins at the end stays, though the copy has no commit of it: others may, and must find that this
    /// copy knows the epoch, and that nothing of it was kept.
    #[must_use]
    pub fn inherit(&self, end: Uid) -> Self {
        // Entries that are in order still are when the last of them are left out.
        Self { entries: self.entries.iter().filter(|entry| entry.inherited <= end).copied().collect() }
    }

    /// Drops the epochs that began after that of `fork`, as a copy does that takes back what it has beyond it.
    ///
    /// The epoch decides, not the UID: an abandoned epoch may have inherited exactly the fork's.
    pub fn truncate(&mut self, fork: &Position) {
        let kept = self.entries.iter().position(|entry| entry.epoch == fork.epoch).map_or(0, |at| at + 1);
        self.entries.truncate(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::{Fork, History, HistoryEntry, HistoryHash, Position};
    use crate::{Epoch, Uid};

    fn entry(term: u64, nonce: u64, inherited: u64) -> HistoryEntry {
        HistoryEntry {
            epoch: Epoch { term, incarnation: 0, nonce },
            inherited: Uid::new(inherited),
            hash: HistoryHash::default(),
        }
    }

    fn history(entries: &[HistoryEntry]) -> History {
        History::from_entries(entries.to_vec()).unwrap()
    }

    #[test]
    fn a_fork_lies_at_the_smaller_end_of_the_last_common_epoch() {
        let ours = history(&[entry(1, 1, 0), entry(2, 2, 10)]);
        let theirs = history(&[entry(1, 1, 0)]);
        let Fork::At(fork) = ours.fork(Uid::new(20), &theirs, Uid::new(15)) else { panic!("related") };
        assert_eq!(fork.uid, Uid::new(10));
        assert_eq!(fork.epoch.term, 1);
    }

    #[test]
    fn the_same_term_under_another_nonce_is_not_common() {
        let ours = history(&[entry(1, 1, 0), entry(2, 2, 10)]);
        let theirs = history(&[entry(1, 1, 0), entry(2, 9, 12)]);
        let Fork::At(fork) = ours.fork(Uid::new(20), &theirs, Uid::new(30)) else { panic!("related") };
        assert_eq!(fork.uid, Uid::new(10));
        let foreign = history(&[entry(1, 5, 0)]);
        assert_eq!(ours.fork(Uid::new(20), &foreign, Uid::new(3)), Fork::Unrelated);
    }

    #[test]
    fn an_abandoned_epoch_that_inherited_the_fork_goes() {
        let mut ours = history(&[entry(1, 1, 0), entry(3, 2, 10)]);
        ours.truncate(&Position { epoch: entry(1, 1, 0).epoch, uid: Uid::new(10) });
        assert!(ours.push(entry(2, 7, 10)).is_ok());
        ours.truncate(&Position::default());
        assert!(ours.entries().is_empty());
    }

    #[test]
    fn an_entry_that_does_not_rise_is_refused() {
        let mut ours = history(&[entry(2, 1, 10)]);
        assert!(ours.push(entry(2, 2, 11)).is_err());
        assert!(ours.push(entry(3, 2, 9)).is_err());
        assert!(ours.push(entry(3, 2, 10)).is_ok());
    }

    #[test]
    fn a_uid_belongs_to_the_epoch_that_wrote_it() {
        let ours = history(&[entry(1, 1, 0), entry(2, 2, 10)]);
        assert_eq!(ours.epoch_of(Uid::new(10)).term, 1);
        assert_eq!(ours.epoch_of(Uid::new(11)).term, 2);
        assert_eq!(ours.epoch_of(Uid::ZERO), Epoch::NONE);
    }
}
