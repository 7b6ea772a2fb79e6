//! Keys compared by the word: most comparisons need no more than eight bytes, held as one integer.

/// The eight bytes of `key` from `at` on as an integer that sorts like them; where the key is shorter, zeros. Keys with
/// the same bytes before `at` and unequal heads sort like their heads; of equal heads nothing follows.
#[inline]
pub(crate) fn head(key: &[u8], at: usize) -> u64 {
    let rest = key.get(at..).unwrap_or_default();
    match rest.first_chunk::<8>() {
        Some(word) => u64::from_be_bytes(*word),
        None => rest
            .iter()
            .fold(0, |word, byte| word << 8 | u64::from(*byte))
            .checked_shl(64 - 8 * rest.len() as u32)
            .unwrap_or(0),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::head;

    #[test]
    fn heads_sort_like_the_bytes() {
        let keys: [&[u8]; 6] = [b"x", b"x\x00a", b"xa", b"xabcdefgh", b"xabcdefgi", b"xb"];
        assert!(keys.windows(2).all(|pair| head(pair[0], 1) <= head(pair[1], 1)));
        assert_eq!(head(b"x", 1), 0);
        assert_eq!(head(b"xa", 1), 0x61 << 56);
    }
}
