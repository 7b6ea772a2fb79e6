use super::block::Malformed;
use super::decode::Decoder;

/// A line of the filter is a cache line: eight words of 64 bits.
const LINE_WORDS: usize = 8;
const LINE_BYTES: usize = 64;
const LINE_BITS: u64 = 512;
const HEADER_BYTES: usize = 8;
const MAX_PROBES: u8 = 12;

/// A Bloom filter over the distinct keys of a run, all of whose bits for one key lie in one cache line (Putze, Sanders,
/// Singler: "Cache-, hash- and space-efficient Bloom filters", 2007). With 10 bits a key about 1 % of the keys that
/// are not there pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Filter {
    probes: u8,
    lines: Vec<[u64; LINE_WORDS]>,
}

impl Filter {
    /// The filter over the keys with these hashes; with 0 bits a key, one that lets everything pass.
    pub(crate) fn build(hashes: &[u64], bits_per_key: u8) -> Self {
        if bits_per_key == 0 {
            return Self { probes: 0, lines: Vec::new() };
        }
        let bits = hashes.len() as u64 * u64::from(bits_per_key);
        let lines = bits.div_ceil(LINE_BITS).clamp(1, u64::from(u32::MAX)) as u32;
        let probes = ((u32::from(bits_per_key) * 6 + 5) / 10).clamp(1, u32::from(MAX_PROBES)) as u8;
        Self::with_shape(hashes, probes, lines)
    }

    /// The filter over the keys with these hashes, of the same size and kind as this one.
    pub(crate) fn rebuild(&self, hashes: &[u64]) -> Self {
        Self::with_shape(hashes, self.probes, self.lines.len() as u32)
    }

    fn with_shape(hashes: &[u64], probes: u8, lines: u32) -> Self {
        let mut filter = Self { probes, lines: vec![[0; LINE_WORDS]; lines as usize] };
        for hash in hashes {
            let index = filter.line_of(*hash);
            if let Some(line) = filter.lines.get_mut(index) {
                for (word, bit) in bits_of(*hash, probes) {
                    line[word] |= bit;
                }
            }
        }
        filter
    }

    /// Whether a key with this hash may be among those of the filter: `false` is certain.
    #[inline]
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        match self.lines.get(self.line_of(hash)) {
            Some(line) => bits_of(hash, self.probes).all(|(word, bit)| line[word] & bit != 0),
            None => true,
        }
    }

    /// The upper half of the hash chooses the line.
    #[inline]
    fn line_of(&self, hash: u64) -> usize {
        (((hash >> 32) * self.lines.len() as u64) >> 32) as usize
    }

    /// The bytes of the filter block.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.lines.len() * LINE_BYTES);
        out.extend_from_slice(&[self.probes, 0, 0, 0]);
        out.extend_from_slice(&(self.lines.len() as u32).to_le_bytes());
        for word in self.lines.iter().flatten() {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out
    }

    /// Reads the bytes of a filter block.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        Self::decode_fields(bytes).ok_or(Malformed("the filter makes no sense"))
    }

    fn decode_fields(bytes: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        let probes = decoder.u8()?;
        decoder.zeros(3)?;
        let count = decoder.u32()? as usize;
        if probes > MAX_PROBES || (probes == 0) != (count == 0) || decoder.remaining() / LINE_BYTES != count {
            return None;
        }
        let mut lines = Vec::with_capacity(count);
        for _ in 0..count {
            let mut line = [0; LINE_WORDS];
            for word in &mut line {
                *word = decoder.u64()?;
            }
            lines.push(line);
        }
        decoder.end()?;
        Some(Self { probes, lines })
    }
}

/// The bits of a key within its line, drawn from the lower half of the hash: nine bits name one, and a multiplication
/// by the golden ratio makes the next.
#[inline]
fn bits_of(hash: u64, probes: u8) -> impl Iterator<Item = (usize, u64)> {
    let mut state = hash as u32;
    (0..probes).map(move |_| {
        let bit = state >> 23;
        state = state.wrapping_mul(0x9e37_79b9);
        ((bit >> 6) as usize & (LINE_WORDS - 1), 1 << (bit & 63))
    })
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::Filter;
    use crate::hash::key_hash;

    fn hashes(range: std::ops::Range<u64>) -> Vec<u64> {
        range.map(|n| key_hash(&n.to_be_bytes())).collect()
    }

    #[test]
    fn every_key_passes_and_few_others_do() {
        for (bits, percent) in [(6, 7.0), (10, 1.5), (16, 0.4)] {
            let present = hashes(0..20_000);
            let filter = Filter::build(&present, bits);
            assert!(present.iter().all(|hash| filter.may_contain(*hash)));
            let wrong = hashes(100_000..200_000).iter().filter(|hash| filter.may_contain(**hash)).count();
            assert!(wrong as f64 / 1_000.0 < percent, "{bits} bits: {wrong} of 100000");
        }
    }

    #[test]
    fn a_filter_survives_its_bytes_and_other_bytes_are_refused() {
        let filter = Filter::build(&hashes(0..100), 10);
        let bytes = filter.encode();
        assert_eq!(Filter::decode(&bytes), Ok(filter.clone()));
        assert_eq!(filter.rebuild(&hashes(0..100)), filter);
        assert_ne!(filter.rebuild(&hashes(0..99)), filter);
        for length in 0..bytes.len() {
            assert!(Filter::decode(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn without_bits_everything_passes() {
        let filter = Filter::build(&hashes(0..100), 0);
        assert!(filter.may_contain(17));
        assert_eq!(Filter::decode(&filter.encode()), Ok(filter));
    }
}
