use std::fmt;

/// A half-open range of keys: from `start`, which is inside, to `end`, which is not. No end means no upper limit.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct KeyRange {
    /// The first key inside.
    pub start: Vec<u8>,
    /// The first key that is not inside any more; `None` has no upper limit.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// All keys.
    pub const ALL: Self = Self { start: Vec::new(), end: None };

    /// The keys from `start` on, up to but without `end`.
    pub fn new(start: impl Into<Vec<u8>>, end: Option<Vec<u8>>) -> Self {
        Self { start: start.into(), end }
    }

    /// The keys that begin with `prefix`.
    pub fn prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self { start: prefix.to_vec(), end: Some(end) };
            }
        }
        Self { start: prefix.to_vec(), end: None }
    }

    /// The smallest range that holds both `first` and `last`.
    pub fn inclusive(first: &[u8], last: &[u8]) -> Self {
        let mut end = Vec::with_capacity(last.len() + 1);
        end.extend_from_slice(last);
        end.push(0);
        Self { start: first.to_vec(), end: Some(end) }
    }

    /// Whether no key is inside.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// Whether `key` is inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && self.is_below_end(key)
    }

    /// Whether `key` lies below the end, inside or not.
    pub fn is_below_end(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| key < end.as_slice())
    }

    /// Whether every key of `other` is inside.
    pub fn covers(&self, other: &Self) -> bool {
        other.is_empty()
            || (self.start <= other.start
                && match (&self.end, &other.end) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(ours), Some(theirs)) => ours >= theirs,
                })
    }

    /// The keys inside both ranges; `None` if there are none.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let start = self.start.as_slice().max(other.start.as_slice()).to_vec();
        let end = match (&self.end, &other.end) {
            (Some(a), Some(b)) => Some(a.min(b).clone()),
            (one, None) | (None, one) => one.clone(),
        };
        let both = Self { start, end };
        (!both.is_empty()).then_some(both)
    }

    /// Whether some key may be inside both ranges.
    pub fn overlaps(&self, other: &Self) -> bool {
        !self.is_empty()
            && !other.is_empty()
            && self.is_below_end(&other.start)
            && other.is_below_end(&self.start)
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            Some(end) => write!(f, "[{}, {})", self.start.escape_ascii(), end.escape_ascii()),
            None => write!(f, "[{}, ..)", self.start.escape_ascii()),
        }
    }
}

impl fmt::Debug for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRange{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::KeyRange;

    #[test]
    fn a_prefix_of_highest_bytes_has_no_end() {
        assert_eq!(KeyRange::prefix(b"ab").end.as_deref(), Some(&b"ac"[..]));
        assert_eq!(KeyRange::prefix(&[b'a', 0xff]).end.as_deref(), Some(&b"b"[..]));
        assert_eq!(KeyRange::prefix(&[0xff, 0xff]).end, None);
    }

    #[test]
    fn ranges_that_only_touch_do_not_overlap() {
        let left = KeyRange::new(*b"a", Some(b"m".to_vec()));
        let right = KeyRange::new(*b"m", None);
        assert!(!left.overlaps(&right));
        assert!(left.intersect(&right).is_none());
        assert!(KeyRange::ALL.covers(&left));
        assert!(!left.covers(&KeyRange::ALL));
        assert!(left.contains(b"a") && !left.contains(b"m") && right.contains(b"m"));
    }

    #[test]
    fn an_inclusive_range_holds_its_last_key_and_nothing_behind_it() {
        let range = KeyRange::inclusive(b"a", b"b");
        assert!(range.contains(b"b"));
        assert!(!range.contains(b"b\0"));
    }
}
