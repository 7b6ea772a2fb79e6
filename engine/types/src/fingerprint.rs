use std::fmt;
use std::ops::{AddAssign, SubAssign};

/// An additive summary of a set of records: their number, and the sum modulo 2^128 of a 128-bit hash of each.
///
/// Two sets with the same fingerprint are taken to be equal. It guards against accident, not against an adversary.
/// Sums rather than exclusive-or, because the latter cancels duplicates.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Fingerprint {
    /// The number of records.
    pub count: u64,
    /// The sum of their hashes modulo 2^128.
    pub sum: u128,
}

impl Fingerprint {
    /// The summary of no records.
    pub const EMPTY: Self = Self { count: 0, sum: 0 };

    /// Adds one record by its hash.
    pub fn add_hash(&mut self, hash: u128) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash);
    }

    /// The summary in eight bytes, for comparing many ranges of two copies: different sets have the same one by
    /// accident once in 2^64 times. That of no records is zero.
    #[must_use]
    pub const fn short(&self) -> [u8; 8] {
        let folded = (self.sum as u64) ^ ((self.sum >> 64) as u64).rotate_left(32);
        folded.wrapping_add(self.count.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()
    }
}

impl AddAssign for Fingerprint {
    fn add_assign(&mut self, other: Self) {
        self.count = self.count.wrapping_add(other.count);
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

impl SubAssign for Fingerprint {
    fn sub_assign(&mut self, other: Self) {
        self.count = self.count.wrapping_sub(other.count);
        self.sum = self.sum.wrapping_sub(other.sum);
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:032x}", self.count, self.sum)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}
