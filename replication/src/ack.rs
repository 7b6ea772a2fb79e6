//! Levels of acknowledgement: which UID is durable on how many promotable copies.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use planaria_types::{InstanceId, Uid};
use serde::{Deserialize, Serialize};

/// On how many promotable copies, the primary included, a commit is durable before it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Level {
    /// On the primary.
    #[default]
    Local,
    /// On the primary and one more.
    One,
    /// On more than half.
    Quorum,
    /// On all.
    All,
}

impl Level {
    /// How many of `copies` promotable copies, the primary included, must have a commit.
    pub const fn copies_of(self, copies: usize) -> usize {
        match self {
            Self::Local => 1,
            Self::One => 2,
            Self::Quorum => copies / 2 + 1,
            Self::All => copies,
        }
    }

    /// The name used in configuration and commands.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::One => "one",
            Self::Quorum => "quorum",
            Self::All => "all",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text names no level.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a level is one of local, one, quorum, all")]
pub struct ParseLevelError;

impl FromStr for Level {
    type Err = ParseLevelError;

    fn from_str(text: &str) -> Result<Self, ParseLevelError> {
        [Self::Local, Self::One, Self::Quorum, Self::All]
            .into_iter()
            .find(|level| level.name() == text)
            .ok_or(ParseLevelError)
    }
}

/// The durable positions of the promotable copies.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tracker {
    own: Uid,
    copies: BTreeMap<InstanceId, Uid>,
}

impl Tracker {
    /// A tracker for a primary that is durable up to `own`, without other copies.
    pub fn new(own: Uid) -> Self {
        Self { own, copies: BTreeMap::new() }
    }

    /// Sets what is durable on the primary itself.
    pub fn set_own(&mut self, durable: Uid) {
        self.own = durable;
    }

    /// Adds a promotable copy, or sets what is durable on it.
    pub fn set(&mut self, copy: InstanceId, durable: Uid) {
        self.copies.insert(copy, durable);
    }

    /// Stops counting a copy.
    pub fn remove(&mut self, copy: InstanceId) {
        self.copies.remove(&copy);
    }

    /// The number of promotable copies, the primary included.
    pub fn copies(&self) -> usize {
        self.copies.len() + 1
    }

    /// The last UID that is acknowledged at `level`; `None` if there are too few copies for the level.
    ///
    /// The primary's own durable copy always counts among them, so that nothing above it is ever acknowledged.
    pub fn acknowledged(&self, level: Level) -> Option<Uid> {
        let others_needed = level.copies_of(self.copies()).checked_sub(1)?;
        let Some(last) = others_needed.checked_sub(1) else {
            return Some(self.own);
        };
        let mut others: Vec<Uid> = self.copies.values().copied().collect();
        others.sort_unstable_by(|a, b| b.cmp(a));
        others.get(last).map(|uid| self.own.min(*uid))
    }

    /// The stable UID: the lowest durable position in the promotable set.
    pub fn stable(&self) -> Uid {
        self.copies.values().copied().fold(self.own, Uid::min)
    }
}

#[cfg(test)]
#[path = "ack_tests.rs"]
mod tests;
