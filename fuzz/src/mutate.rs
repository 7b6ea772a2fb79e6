/// Changes inputs at random, as a fuzzer without feedback does. Everything follows from the seed.
#[derive(Clone, Debug)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// A mutator for a seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// A number below `bound`, by xorshift (Marsaglia 2003); 0 if the bound is.
    pub fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        ((self.state >> 11) as usize).checked_rem(bound).unwrap_or(0)
    }

    /// `input` with one to four changes: bits, bytes, cuts, repetitions.
    pub fn change(&mut self, input: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(8) {
                0..=2 => {
                    let bit = 1 << self.below(8);
                    bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= bit);
                }
                3 | 4 => {
                    let value = [0, 1, 0x7f, 0x80, 0xff, self.below(256) as u8];
                    let value = value.get(self.below(value.len())).copied().unwrap_or_default();
                    bytes.get_mut(at).into_iter().for_each(|byte| *byte = value);
                }
                5 => bytes.truncate(at),
                6 => bytes.insert(at, self.below(256) as u8),
                _ => {
                    let end = (at + self.below(64)).min(bytes.len());
                    let part = bytes.get(at..end).unwrap_or_default().to_vec();
                    let place = self.below(bytes.len());
                    bytes.splice(place..place, part);
                }
            }
        }
        bytes
    }
}
