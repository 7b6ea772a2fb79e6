//! What to merge next: a pure function of a fragment's shape.
//!
//! Lazy leveling (Dayan and Idreos, "Dostoevsky", 2018): runs above the bottom are tiered, so that recent UIDs stay in
//! few, recent runs; the bottom is one partitioned run. Only neighbours in the order of UIDs are merged.

use planaria_types::Uid;

/// With this many tiers of about one size, they are merged into one.
const TIERS_TO_MERGE: usize = 4;
/// With this many tiers, all of them are merged, whatever their sizes.
const TIERS_MAX: usize = 12;
/// Tiers count as being of one size if the next is at most this many times as large as all newer ones together.
const SIZE_RATIO: u64 = 2;
/// Tiers go into the bottom when they make up this part of it…
const BOTTOM_PART: u64 = 2;
/// … or this part once there are `TIERS_TO_MERGE` of them.
const BOTTOM_PART_OF_MANY: u64 = 4;

/// The references of one UID interval above the bottom: one, or several side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tier {
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// The interval's upper end, inclusive.
    pub(crate) upto: Uid,
}

/// What to merge: the tiers from `from` up to but without `to`, newest first, and, if said, the bottom beneath them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) into_bottom: bool,
}

/// Plans the next merge of a fragment with `tiers`, newest first, over a bottom of `bottom_bytes`.
///
/// `barrier` is the position of the oldest stale secondary: what is newer stays out of the bottom, so that its changes
/// stay easy to find, until what lies above exceeds a quarter of the bottom.
pub(crate) fn plan(tiers: &[Tier], bottom_bytes: u64, barrier: Option<Uid>) -> Option<Plan> {
    let upper_bytes: u64 = tiers.iter().map(|tier| tier.bytes).sum();
    let over_quarter = upper_bytes * BOTTOM_PART_OF_MANY >= bottom_bytes;
    let due = upper_bytes * BOTTOM_PART >= bottom_bytes || (tiers.len() >= TIERS_TO_MERGE && over_quarter);
    if !tiers.is_empty() && due {
        let from = match barrier {
            Some(barrier) if !over_quarter => tiers.partition_point(|tier| tier.upto > barrier),
            _ => 0,
        };
        if from < tiers.len() {
            return Some(Plan { from, to: tiers.len(), into_bottom: true });
        }
    }
    if tiers.len() >= TIERS_MAX {
        return Some(Plan { from: 0, to: tiers.len(), into_bottom: false });
    }
    let mut bytes = 0;
    let like = tiers
        .iter()
        .take_while(|tier| {
            let fits = bytes == 0 || tier.bytes <= bytes * SIZE_RATIO;
            bytes += tier.bytes;
            fits
        })
        .count();
    (like >= TIERS_TO_MERGE).then_some(Plan { from: 0, to: like, into_bottom: false })
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use planaria_types::Uid;

    use super::{Plan, Tier, plan};

    fn tiers(bytes: &[u64]) -> Vec<Tier> {
        let count = bytes.len() as u64;
        let tier = |(index, bytes): (usize, &u64)| Tier {
            bytes: *bytes,
            upto: Uid::new(10 * (count - index as u64)),
        };
        bytes.iter().enumerate().map(tier).collect()
    }

    #[test]
    fn what_is_planned_follows_from_the_shape() {
        let into_bottom = |from, to| Some(Plan { from, to, into_bottom: true });
        let merge = |from, to| Some(Plan { from, to, into_bottom: false });
        let cases = [
            (&[][..], 100, None, "nothing above the bottom"),
            (&[10], 100, None, "one small tier"),
            (&[50], 100, into_bottom(0, 1), "one tier of half the bottom"),
            (&[10, 10, 10, 10], 100, into_bottom(0, 4), "four tiers of over a quarter"),
            (&[10, 10, 10, 10], 1_000, merge(0, 4), "four small tiers of one size"),
            (&[10, 10, 10, 300], 10_000, None, "the fourth is much larger"),
            (&[5, 10, 10, 10, 900], 10_000, merge(0, 4), "four of one size before a large one"),
        ];
        for (bytes, bottom, expected, what) in cases {
            assert_eq!(plan(&tiers(bytes), bottom, None), expected, "{what}");
        }
    }

    #[test]
    fn a_stale_secondary_keeps_what_it_lacks_above_the_bottom_up_to_a_quarter() {
        let shape = tiers(&[8, 8, 8]);
        assert_eq!(plan(&shape, 40, Some(Uid::new(20))), Some(Plan { from: 0, to: 3, into_bottom: true }));
        let small = tiers(&[4, 4]);
        assert_eq!(plan(&small, 16, Some(Uid::new(10))), Some(Plan { from: 0, to: 2, into_bottom: true }));
        assert_eq!(plan(&tiers(&[1, 1]), 16, Some(Uid::new(10))), None);
    }
}
