use std::fmt;

/// An update identifier: the name of one commit of a group, and the version of every record that it wrote.
///
/// 64 bits of a hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014): the upper 48 bits are
/// milliseconds since 1970, the lower 16 bits count commits within a millisecond. Within a group UIDs rise strictly.
/// [`Uid::ZERO`] names the empty state, before the first commit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Uid(u64);

impl Uid {
    /// The state before the first commit.
    pub const ZERO: Self = Self(0);
    /// Above every UID that is ever drawn.
    pub const MAX: Self = Self(u64::MAX);

    const COUNTER_BITS: u32 = 16;

    /// Wraps the 64 bits of an update identifier.
    pub const fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// The first UID of a millisecond since 1970.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis << Self::COUNTER_BITS)
    }

    /// The 64 bits.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The milliseconds since 1970 in the upper 48 bits.
    pub const fn millis(self) -> u64 {
        self.0 >> Self::COUNTER_BITS
    }

    /// The counter in the lower 16 bits.
    pub const fn counter(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// The UID right above this one; `MAX` stays `MAX`.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The UID right below this one; `ZERO` stays `ZERO`.
    #[must_use]
    pub const fn prev(self) -> Self {
        Self(self.0.saturating_sub(1))
    }

    /// The UID of the next commit after `self` when the wall clock shows `now_millis`: the clock's if it is ahead,
    /// else the next in sequence. The result is always above `self`.
    #[must_use]
    pub fn tick(self, now_millis: u64) -> Self {
        self.next().max(Self::from_millis(now_millis))
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.millis(), self.counter())
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uid({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::Uid;

    #[test]
    fn a_tick_follows_the_clock_or_the_sequence_and_always_rises() {
        let uid = Uid::from_millis(1_000);
        assert_eq!(uid.tick(2_000), Uid::from_millis(2_000));
        assert_eq!(uid.tick(1_000), uid.next());
        assert_eq!(uid.tick(10), uid.next());
    }

    #[test]
    fn a_full_counter_runs_into_the_next_millisecond() {
        let uid = Uid::new((5 << 16) | 0xffff);
        assert_eq!(uid.tick(5), Uid::from_millis(6));
    }
}
