use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;

/// So many keys are remembered: some 70 MiB at most. Beyond it every record is looked up.
const KEYS_MAX: usize = 3_600_000;

/// The keys of one import so far, by their hashes, with the lines on which they were first met.
///
/// What it says may err to one side: [`Sighting::Maybe`] of a key that was never met. Contents are always compared with
/// what the table has.
pub(super) struct SeenKeys {
    hasher: RandomState,
    lines: HashMap<u64, u64>,
    keys_max: usize,
}

/// Whether a key was met before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sighting {
    /// It was not.
    New,
    /// It may have been: on this line, if that is known.
    Maybe(Option<u64>),
}

impl Default for SeenKeys {
    fn default() -> Self {
        Self { hasher: RandomState::new(), lines: HashMap::new(), keys_max: KEYS_MAX }
    }
}

impl SeenKeys {
    /// Notes a key and says whether it was met before.
    pub(super) fn note(&mut self, key: &[u8], line: u64) -> Sighting {
        let is_full = self.lines.len() >= self.keys_max;
        match self.lines.entry(self.hasher.hash_one(key)) {
            Entry::Occupied(first) => Sighting::Maybe(Some(*first.get())),
            Entry::Vacant(_) if is_full => Sighting::Maybe(None),
            Entry::Vacant(place) => {
                place.insert(line);
                Sighting::New
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SeenKeys, Sighting};

    #[test]
    fn keys_are_remembered_with_their_first_lines_up_to_a_limit() {
        let mut seen = SeenKeys { keys_max: 2, ..SeenKeys::default() };
        assert_eq!(seen.note(b"a", 2), Sighting::New);
        assert_eq!(seen.note(b"b", 3), Sighting::New);
        assert_eq!(seen.note(b"a", 4), Sighting::Maybe(Some(2)));
        assert_eq!(seen.note(b"c", 5), Sighting::Maybe(None));
    }
}
