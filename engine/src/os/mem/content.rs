//! The bytes of one file in memory, and what of them a power cut may leave.

use std::collections::BTreeMap;

use super::Dice;

/// What a disk writes whole or not at all, in bytes.
pub(super) const SECTOR: usize = 512;
/// How many states of a sector are remembered between two syncs; of more, the latest gives way.
const STATES_MAX: usize = 8;

/// A sector's bytes; `None` for zeros.
type Sector = Option<Box<[u8; SECTOR]>>;

/// The bytes as they are read, and the states that each sector had since the last sync.
#[derive(Clone, Default, Debug)]
pub(super) struct Content {
    live: Vec<u8>,
    durable_len: usize,
    /// The states before each write since the last sync, oldest first: the first one is the durable one.
    before: BTreeMap<usize, Vec<Sector>>,
}

impl Content {
    pub(super) fn live(&self) -> &[u8] {
        &self.live
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len();
        self.remember(offset, end);
        if self.live.len() < end {
            self.live.resize(end, 0);
        }
        if let Some(target) = self.live.get_mut(offset..end) {
            target.copy_from_slice(data);
        }
    }

    pub(super) fn set_len(&mut self, len: usize) {
        if len < self.live.len() {
            self.remember(len, self.live.len());
        }
        self.live.resize(len, 0);
    }

    pub(super) fn sync(&mut self) {
        self.before.clear();
        self.durable_len = self.live.len();
    }

    /// Flips the bits of `mask` at `offset`, in every state of its sector: the medium did it. Whether the byte exists.
    pub(super) fn flip(&mut self, offset: usize, mask: u8) -> bool {
        for state in self.before.get_mut(&(offset / SECTOR)).into_iter().flatten().flatten() {
            if let Some(byte) = state.get_mut(offset % SECTOR) {
                *byte ^= mask;
            }
        }
        self.live.get_mut(offset).map(|byte| *byte ^= mask).is_some()
    }

    /// What the disk surely holds.
    pub(super) fn durable(&self) -> Self {
        self.rebuilt(self.durable_len, |_, _| 0)
    }

    /// What the disk may hold: of each unsynced sector any state that it had, and any length between.
    pub(super) fn torn(&self, dice: &mut Dice) -> Self {
        let (low, high) = (self.durable_len.min(self.live.len()), self.durable_len.max(self.live.len()));
        let len = match dice.below(3) {
            0 => self.durable_len,
            1 => self.live.len(),
            _ => low + dice.below((high - low) as u64 + 1) as usize,
        };
        let live_len = self.live.len();
        self.rebuilt(len, |sector, states| {
            // What was cut off comes back as it was, not as zeros.
            if sector * SECTOR >= live_len { 0 } else { dice.below(states as u64 + 1) as usize }
        })
    }

    /// The content of length `len` with the state `choose(sector, states)` of each unsynced sector; beyond the
    /// remembered states comes the live one.
    fn rebuilt(&self, len: usize, mut choose: impl FnMut(usize, usize) -> usize) -> Self {
        let mut bytes = self.live.clone();
        bytes.resize(len.max(self.live.len()), 0);
        for (&sector, states) in &self.before {
            let Some(state) = states.get(choose(sector, states.len())) else {
                continue;
            };
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(bytes.len());
            if let Some(target) = bytes.get_mut(start..end) {
                match state {
                    Some(state) => target.copy_from_slice(&state[..target.len()]),
                    None => target.fill(0),
                }
            }
        }
        bytes.truncate(len);
        Self { live: bytes, durable_len: len, before: BTreeMap::new() }
    }

    fn remember(&mut self, start: usize, end: usize) {
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            let from = (sector * SECTOR).min(self.live.len());
            let bytes = &self.live[from..(from + SECTOR).min(self.live.len())];
            let state = bytes.iter().any(|&byte| byte != 0).then(|| {
                let mut copy = Box::new([0; SECTOR]);
                copy[..bytes.len()].copy_from_slice(bytes);
                copy
            });
            let states = self.before.entry(sector).or_default();
            if states.len() < STATES_MAX {
                states.push(state);
            } else if let Some(last) = states.last_mut() {
                *last = state;
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::{Content, SECTOR};
    use crate::os::mem::Dice;

    #[test]
    fn the_durable_state_is_that_of_the_last_sync() {
        let mut content = Content::default();
        content.write(0, &[1; 700]);
        content.sync();
        content.write(600, &[2; 700]);
        content.set_len(100);
        content.set_len(900);
        content.write(0, &[3; 10]);
        assert_eq!(content.durable().live(), &[1; 700]);
        content.sync();
        assert_eq!(content.durable().live(), content.live());
    }

    #[test]
    fn a_torn_sector_is_one_of_its_states_and_all_of_them_occur() {
        let mut content = Content::default();
        content.write(0, &[1; 2 * SECTOR]);
        content.sync();
        content.write(0, &[2; 2 * SECTOR]);
        content.write(0, &[3; 2 * SECTOR]);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let torn = content.torn(&mut Dice::new(seed));
            let sectors: Vec<u8> = torn.live().chunks(SECTOR).map(|sector| sector[0]).collect();
            assert!(torn.live().chunks(SECTOR).all(|sector| sector.iter().all(|&b| b == sector[0])));
            seen.insert(sectors);
        }
        assert_eq!(seen.len(), 9);
    }

    #[test]
    fn an_unsynced_length_is_lost_kept_or_between() {
        let mut content = Content::default();
        content.write(0, &[1; SECTOR]);
        content.sync();
        content.write(SECTOR, &[2; SECTOR]);
        let lens: std::collections::BTreeSet<_> =
            (0..300).map(|seed| content.torn(&mut Dice::new(seed)).live().len()).collect();
        assert!(lens.contains(&SECTOR) && lens.contains(&(2 * SECTOR)) && lens.len() > 10);
        assert!(lens.iter().all(|len| (SECTOR..=2 * SECTOR).contains(len)));
    }
}
