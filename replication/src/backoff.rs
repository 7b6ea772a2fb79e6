use crate::Millis;

const FIRST_MS: u64 = 50;
const DOUBLINGS_MAX: u32 = 9;
const LONGEST_MS: u64 = 15_000;

/// How long to wait before connection attempt number `attempt`, counted from zero since the last session that worked.
///
/// The wait doubles from 50 ms up to 15 s. Half of it is jitter drawn from `seed`, so that secondaries that lost the
/// same primary do not return at the same moment; the same arguments always give the same wait.
pub fn backoff(attempt: u32, seed: u64) -> Millis {
    let full = (FIRST_MS << attempt.min(DOUBLINGS_MAX)).min(LONGEST_MS);
    let half = full / 2;
    Millis(half + mix(seed ^ (u64::from(attempt) << 32)) % (half + 1))
}

/// The finalizer of splitmix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_MS, backoff};

    #[test]
    fn the_wait_grows_to_its_bound_and_keeps_at_least_half_of_it() {
        for seed in 0..50 {
            assert!((25..=50).contains(&backoff(0, seed).0));
            for attempt in [9, 10, 40, u32::MAX] {
                assert!((LONGEST_MS / 2..=LONGEST_MS).contains(&backoff(attempt, seed).0));
            }
        }
    }

    #[test]
    fn two_secondaries_do_not_return_at_the_same_moment() {
        let waits: std::collections::BTreeSet<_> = (0..20).map(|seed| backoff(8, seed)).collect();
        assert!(waits.len() > 15);
        assert_eq!(backoff(8, 3), backoff(8, 3));
    }
}
