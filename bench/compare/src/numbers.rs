/// The key of record `number` where keys come in order.
pub(crate) fn in_order(number: u64) -> [u8; 16] {
    let (mut key, mut rest) = ([b'0'; 16], number);
    for digit in key.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// The key of record `number` where keys come in no order: a permutation of all 64-bit numbers, so that none comes
/// twice.
pub(crate) fn scattered(number: u64) -> [u8; 16] {
    let mixed =
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let mut key = [0; 16];
    for (at, digit) in key.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(mixed >> (60 - 4 * at)) as usize & 15];
    }
    key
}

/// Appends the value of record `number`: its first half repeats, its second half does not.
pub(crate) fn fill_value(out: &mut Vec<u8>, number: u64, bytes: usize) {
    let end = out.len() + bytes;
    out.resize(out.len() + bytes / 2, b'v');
    let mut numbers = Numbers::new(number);
    while out.len() < end {
        let word = numbers.next().to_le_bytes();
        out.extend_from_slice(&word[..word.len().min(end - out.len())]);
    }
}

/// Numbers that look random and are the same in each run (`SplitMix64`).
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        (u128::from(self.next()) * u128::from(limit) >> 64) as u64
    }
}

/// Draws record numbers of which few are very popular (Gray et al., "Quickly generating billion-record synthetic
/// databases", 1994; the skew is YCSB's 0.99).
pub(crate) struct Zipfian {
    records: u64,
    zeta: f64,
    eta: f64,
}

const SKEW: f64 = 0.99;

impl Zipfian {
    pub(crate) fn new(records: u64) -> Self {
        let zeta: f64 = (1..=records).map(|rank| (rank as f64).powf(-SKEW)).sum();
        let of_two = 1.0 + 0.5_f64.powf(SKEW);
        let eta = (1.0 - (2.0 / records as f64).powf(1.0 - SKEW)) / (1.0 - of_two / zeta);
        Self { records, zeta, eta }
    }

    pub(crate) fn draw(&self, numbers: &mut Numbers) -> u64 {
        let uniform = (numbers.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let scaled = uniform * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(SKEW) {
            return 1;
        }
        let place = (self.eta * uniform - self.eta + 1.0).powf(1.0 / (1.0 - SKEW));
        ((self.records as f64 * place) as u64).min(self.records - 1)
    }
}
