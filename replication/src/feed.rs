use planaria_types::{Epoch, History, InstanceId, Uid};

/// The most copies that commits pass through on their way, the primary included. A copy at the end of such a chain feeds nobody.
pub const CHAIN_MAX: usize = 8;

/// What a copy that follows feeds others on: a prefix of what the primary of `epoch` has, or had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feed {
    /// The epoch that the copy follows. It leads nothing: whoever it feeds promises the same one.
    pub epoch: Epoch,
    /// Its history.
    pub history: History,
    /// Everything up to this UID may be fed: it is visible and durable at the copy, and durable at the primary.
    pub cut: Uid,
    /// What is stable, as far as the copy knows.
    pub stable: Uid,
    /// No commit at or below this UID will follow.
    pub closed: Uid,
    /// The copies that this came through, from the one that is followed to the primary, as far as is known.
    pub chain: Vec<InstanceId>,
}

impl Feed {
    /// Whether this is what `before` was, or more of it: then those who are fed go on.
    pub(crate) fn continues(&self, before: &Self) -> bool {
        self.epoch == before.epoch
            && self.chain == before.chain
            && self.cut >= before.cut
            && self.history.entries().starts_with(before.history.entries())
    }
}
