use std::cmp::Ordering;
use std::fmt;

/// The reign of one primary over a group.
///
/// Ordered by term, then incarnation. Two epochs are the same only if their nonces, drawn at random at each start as
/// a primary, agree too: equal order with different nonces means that two processes lead under one number, for
/// example because a directory was copied, and neither may be followed until a new term.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Epoch {
    /// Raised by each promotion.
    pub term: u64,
    /// Raised by each start of the same primary.
    pub incarnation: u64,
    /// Drawn at random at each start as a primary.
    pub nonce: u64,
}

/// How one epoch stands to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EpochOrder {
    /// The first is older.
    Older,
    /// They are one and the same.
    Same,
    /// The first is newer.
    Newer,
    /// Same term and incarnation, different nonces: two primaries under one number.
    Conflict,
}

impl Epoch {
    /// The epoch before any primary.
    pub const NONE: Self = Self { term: 0, incarnation: 0, nonce: 0 };

    /// How `self` stands to `other`.
    pub fn order(&self, other: &Self) -> EpochOrder {
        match (self.term, self.incarnation).cmp(&(other.term, other.incarnation)) {
            Ordering::Less => EpochOrder::Older,
            Ordering::Greater => EpochOrder::Newer,
            Ordering::Equal if self.nonce == other.nonce => EpochOrder::Same,
            Ordering::Equal => EpochOrder::Conflict,
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}#{:016x}", self.term, self.incarnation, self.nonce)
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::{Epoch, EpochOrder};

    #[test]
    fn the_same_number_with_another_nonce_is_a_conflict() {
        let epoch = Epoch { term: 3, incarnation: 1, nonce: 7 };
        assert_eq!(epoch.order(&epoch), EpochOrder::Same);
        assert_eq!(epoch.order(&Epoch { nonce: 8, ..epoch }), EpochOrder::Conflict);
        assert_eq!(epoch.order(&Epoch { incarnation: 2, ..epoch }), EpochOrder::Older);
        assert_eq!(epoch.order(&Epoch { term: 2, incarnation: 9, nonce: 7 }), EpochOrder::Newer);
    }
}
