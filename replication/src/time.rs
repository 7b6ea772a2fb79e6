use std::fmt;

use serde::{Deserialize, Serialize};

/// A point in time or a length of time, in milliseconds.
///
/// Points count from any fixed moment, as long as it is the same for all calls on one state machine, and never go
/// back: the driver passes a monotonic clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
pub struct Millis(pub u64);

impl Millis {
    /// The point `length` later; the end of time stays the end of time.
    #[must_use]
    pub const fn plus(self, length: Self) -> Self {
        Self(self.0.saturating_add(length.0))
    }

    /// The time that passed since `earlier`; none if `earlier` lies ahead.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}
