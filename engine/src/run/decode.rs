/// The longest variable-length integer of 64 bits, in bytes.
const MAX_VARINT_BYTES: usize = 10;

/// Appends `value` as a variable-length integer: seven bits a byte, the lowest first, the high bit set on all but the
/// last (LEB128).
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The variable-length integer of at most 32 bits at `at`, and where it ends.
#[inline]
pub(crate) fn varint_u32(bytes: &[u8], mut at: usize) -> Option<(u32, usize)> {
    let mut value = 0_u32;
    for shift in [0, 7, 14, 21, 28] {
        let byte = *bytes.get(at)?;
        at += 1;
        if shift == 28 && byte > 0x0f {
            return None;
        }
        value |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((value, at));
        }
    }
    None
}

/// Reads fields off the front of bytes that may be anything: every read is checked, `None` means that the bytes end
/// too early or make no sense.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// Reads from the front of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes not yet read.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(head)
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*head)
    }

    /// One byte.
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// 32 bits, the lowest byte first.
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// 64 bits, the lowest byte first.
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// 128 bits, the lowest byte first.
    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    /// A variable-length integer of at most 64 bits.
    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for index in 0..MAX_VARINT_BYTES {
            let byte = self.u8()?;
            if index == MAX_VARINT_BYTES - 1 && byte > 1 {
                return None;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    /// `count` bytes that must all be zero.
    pub(crate) fn zeros(&mut self, count: usize) -> Option<()> {
        self.bytes(count)?.iter().all(|byte| *byte == 0).then_some(())
    }

    /// Nothing must be left.
    pub(crate) fn end(self) -> Option<()> {
        self.rest.is_empty().then_some(())
    }
}

/// How many bytes `left` and `right` have in common at the front.
#[inline]
pub(crate) fn common_prefix(left: &[u8], right: &[u8]) -> usize {
    let mut at = 0;
    let mut left_words = left.chunks_exact(8);
    let mut right_words = right.chunks_exact(8);
    for (left_word, right_word) in left_words.by_ref().zip(right_words.by_ref()) {
        let differing = word(left_word) ^ word(right_word);
        if differing != 0 {
            return at + (differing.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    let rest = left.get(at..).unwrap_or_default().iter().zip(right.get(at..).unwrap_or_default());
    at + rest.take_while(|(one, other)| one == other).count()
}

/// Up to eight bytes as an integer, the first byte lowest.
#[inline]
fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::{Decoder, common_prefix, put_varint, varint_u32};

    #[test]
    fn integers_survive_their_encoding() {
        for shift in 0..64 {
            for value in [(1_u64 << shift) - 1, 1 << shift, (1 << shift) + 1] {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, value);
                let mut decoder = Decoder::new(&bytes);
                assert_eq!(decoder.varint(), Some(value));
                assert_eq!(decoder.end(), Some(()));
                let short = u32::try_from(value).ok().map(|value| (value, bytes.len()));
                assert_eq!(varint_u32(&bytes, 0), short);
            }
        }
    }

    #[test]
    fn integers_that_are_too_long_or_cut_are_refused() {
        assert_eq!(Decoder::new(&[0xff; 11]).varint(), None);
        assert_eq!(Decoder::new(&[0x80; 3]).varint(), None);
        assert_eq!(varint_u32(&[0xff, 0xff, 0xff, 0xff, 0x1f], 0), None);
        assert_eq!(varint_u32(&[0x80], 0), None);
        assert_eq!(varint_u32(&[1], 5), None);
    }

    #[test]
    fn common_prefixes_are_counted_over_word_boundaries() {
        let left = b"0123456789abcdefghij";
        for differing in 0..left.len() {
            let mut right = left.to_vec();
            right[differing] ^= 0x80;
            assert_eq!(common_prefix(left, &right), differing);
            assert_eq!(common_prefix(left, &left[..differing]), differing);
        }
        assert_eq!(common_prefix(left, left), left.len());
    }
}
