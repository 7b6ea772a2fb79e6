//! Who may lead next: which copies may be promoted, and what a promotion must have heard of them.

use std::collections::BTreeSet;

use planaria_types::{EpochOrder, InstanceId, Position};

use crate::Options;
use crate::options::planted;

/// On how many copies the weakest protected level, `one`, has a commit.
const WEAKEST_PROTECTED: usize = 2;

/// The copies that may be promoted, the primary among them, as the system fragment says.
///
/// While the set changes, both the old one and the next count: a commit is acknowledged by both, and a promotion hears
/// enough of both. So whoever knows only one of them still meets a copy that knows of the other (Ongaro, "Consensus:
/// Bridging Theory and Practice", 2014, chapter 4).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PromotableSets {
    /// The copies that count.
    pub now: BTreeSet<InstanceId>,
    /// Those that will, while the set changes.
    pub next: Option<BTreeSet<InstanceId>>,
}

impl PromotableSets {
    /// The set, and the next one if there is one.
    pub fn all(&self) -> impl Iterator<Item = &BTreeSet<InstanceId>> {
        std::iter::once(&self.now).chain(&self.next)
    }

    /// Whether a copy is in all of them.
    pub fn contains(&self, instance: InstanceId) -> bool {
        self.all().all(|set| set.contains(&instance))
    }
}

/// A copy that answered: it has durably promised the epoch that is to begin, or is the one that will begin it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heard {
    /// The copy.
    pub instance: InstanceId,
    /// What was durable there, at or after its promise.
    pub position: Position,
}

/// What a promotion would mean for what was acknowledged at a protected level.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assessment {
    /// Whether the candidate is in the promotable set.
    pub is_promotable: bool,
    /// How many copies of the promotable set were heard, the candidate among them.
    pub heard: usize,
    /// How many must be: so many that every commit on two copies of the set is on one of them.
    pub needed: usize,
    /// A copy that was heard and has more.
    pub further: Option<Heard>,
}

impl Assessment {
    /// Whether nothing that a protected level acknowledged can be lost.
    pub fn is_safe(&self) -> bool {
        self.is_promotable && self.heard >= self.needed && self.further.is_none()
    }
}

/// Assesses the promotion of `candidate` with what `heard` say, as far as the candidate knows the promotable set.
///
/// A copy that knows the set better has more commits than the candidate, and is found to be further.
pub fn assess(options: &Options, candidate: &Heard, heard: &[Heard], sets: &PromotableSets) -> Assessment {
    let is_further = |other: &&Heard| match other.position.epoch.order(&candidate.position.epoch) {
        EpochOrder::Newer | EpochOrder::Conflict => true,
        EpochOrder::Same => other.position.uid > candidate.position.uid,
        EpochOrder::Older => false,
    };
    let further = heard.iter().filter(is_further).max_by_key(|other| {
        let Position { epoch, uid } = other.position;
        (epoch.term, epoch.incarnation, uid)
    });
    let present = |set: &BTreeSet<InstanceId>| {
        set.iter()
            .filter(|id| **id == candidate.instance || heard.iter().any(|other| other.instance == **id))
            .count()
    };
    let needed = |set: &BTreeSet<InstanceId>| (set.len() + 1).saturating_sub(WEAKEST_PROTECTED).max(1);
    // Of the two sets, the one that lacks more.
    let counts = sets.all().map(|set| (present(set), needed(set)));
    let (heard, needed) =
        counts.max_by_key(|(present, needed)| needed.saturating_sub(*present)).unwrap_or((0, 1));
    Assessment {
        is_promotable: sets.contains(candidate.instance),
        heard,
        needed: if planted!(options, PromoteUnheard) { 1 } else { needed },
        further: further.copied().filter(|_| !planted!(options, PromoteBehind)),
    }
}

#[cfg(test)]
mod tests {
    use planaria_types::{Epoch, InstanceId, Position, Uid};

    use super::{Heard, PromotableSets, assess};
    use crate::Options;

    fn copy(instance: u128, term: u64, uid: u64) -> Heard {
        let epoch = Epoch { term, incarnation: 1, nonce: term };
        Heard { instance: InstanceId(instance), position: Position { epoch, uid: Uid::new(uid) } }
    }

    fn sets(now: &[u128], next: Option<&[u128]>) -> PromotableSets {
        let set = |ids: &[u128]| ids.iter().copied().map(InstanceId).collect();
        PromotableSets { now: set(now), next: next.map(set) }
    }

    fn is_safe(candidate: Heard, heard: &[Heard], sets: &PromotableSets) -> bool {
        assess(&Options::default(), &candidate, heard, sets).is_safe()
    }

    #[test]
    fn all_but_one_copy_must_be_heard() {
        let three = sets(&[1, 2, 3], None);
        assert!(!is_safe(copy(2, 1, 9), &[], &three));
        assert!(is_safe(copy(2, 1, 9), &[copy(3, 1, 9)], &three));
        assert!(!is_safe(copy(2, 1, 9), &[copy(4, 1, 9)], &three), "a stranger counts for nothing");
        assert!(is_safe(copy(2, 1, 9), &[], &sets(&[1, 2], None)));
    }

    #[test]
    fn a_copy_that_has_more_goes_first() {
        let three = sets(&[1, 2, 3], None);
        assert!(!is_safe(copy(2, 1, 9), &[copy(3, 1, 10)], &three));
        assert!(!is_safe(copy(2, 1, 9), &[copy(3, 2, 5)], &three), "a newer epoch outranks a higher UID");
        assert!(is_safe(copy(2, 2, 5), &[copy(3, 1, 10)], &three));
        let conflict = Heard {
            position: Position { epoch: Epoch { term: 1, incarnation: 1, nonce: 7 }, uid: Uid::new(1) },
            ..copy(3, 1, 1)
        };
        assert!(!is_safe(copy(2, 1, 9), &[conflict], &three));
    }

    #[test]
    fn who_is_not_in_both_sets_is_not_promotable_and_both_must_be_heard() {
        assert!(!is_safe(copy(3, 1, 9), &[copy(2, 1, 9)], &sets(&[1, 2], None)));
        assert!(!is_safe(copy(3, 1, 9), &[copy(2, 1, 9)], &sets(&[1, 2], Some(&[1, 2, 3]))));
        let shrinking = sets(&[1, 2, 3, 4], Some(&[1, 2, 3]));
        assert!(!is_safe(copy(2, 1, 9), &[copy(3, 1, 9)], &shrinking));
        assert!(is_safe(copy(2, 1, 9), &[copy(3, 1, 9), copy(4, 1, 9)], &shrinking));
        assert!(!is_safe(copy(1, 1, 9), &[], &PromotableSets::default()));
    }
}
