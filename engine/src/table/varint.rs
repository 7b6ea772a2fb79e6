//! Numbers of variable length: seven bits a byte, lowest first, the high bit set on all bytes but the last (LEB128).

/// Bytes of the longest number.
const VARINT_BYTES_MAX: usize = 10;

/// Appends `number`.
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number off the front of `bytes`. `None` if it ends early, exceeds 64 bits or is longer than it need be: a
/// number has one encoding, so that equal contents have equal bytes.
pub(super) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(VARINT_BYTES_MAX) {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * index as u32;
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            let is_shortest = *byte != 0 || index == 0;
            *bytes = bytes.get(index + 1..)?;
            return is_shortest.then_some(number);
        }
    }
    None
}

/// Maps small numbers of either sign to small numbers without one.
pub(super) fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63) as u64
}

/// The inverse of [`zigzag`].
pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::{put, take, unzigzag, zigzag};

    #[test]
    fn numbers_survive_and_have_one_encoding() {
        for number in [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::from(u32::MAX), u64::MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, number);
            bytes.push(9);
            let mut rest = bytes.as_slice();
            assert_eq!(take(&mut rest), Some(number));
            assert_eq!(rest, [9]);
        }
        for bad in
            [&[][..], &[0x80], &[0x80, 0], &[0xff; 11], &[255, 255, 255, 255, 255, 255, 255, 255, 255, 2]]
        {
            assert_eq!(take(&mut &*bad), None, "{bad:?}");
        }
        for number in [0, -1, 1, i64::MIN, i64::MAX] {
            assert_eq!(unzigzag(zigzag(number)), number);
        }
        assert_eq!(zigzag(-1), 1);
    }
}
