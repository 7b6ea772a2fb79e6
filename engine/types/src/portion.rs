use std::collections::BTreeMap;
use std::fmt;

use crate::KeyRange;

/// Parts of a database that are shown in a line for people; of more, the number is told.
const SHOWN_MAX: usize = 8;

/// The part of a database that a partial copy holds: tables by name, and of each either all keys or one range of them.
///
/// A table of a chosen name that does not exist yet is held from its beginning. What the database says about itself, the
/// definitions of all tables among it, belongs to every portion.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Portion {
    tables: BTreeMap<String, KeyRange>,
}

/// A portion that cannot be chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PortionError {
    /// It names no table.
    Empty,
    /// It names too many tables.
    TooMany(usize),
    /// Its names and keys are too long together.
    TooLong(usize),
    /// A table is named twice.
    Twice(String),
    /// A table has no name.
    Unnamed,
    /// The range of a table holds no key.
    NoKeys(String),
}

impl Portion {
    /// Tables that one portion may name.
    pub const TABLES_MAX: usize = 256;
    /// Bytes that its names and keys may have together.
    pub const BYTES_MAX: usize = 64 << 10;

    /// The portion of these tables, each with the keys that are held of it: [`KeyRange::ALL`] for all.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the choice; see [`Portion::validate`].
    pub fn new(tables: impl IntoIterator<Item = (String, KeyRange)>) -> Result<Self, PortionError> {
        let mut portion = Self::default();
        for (name, keys) in tables {
            if portion.tables.insert(name.clone(), keys).is_some() {
                return Err(PortionError::Twice(name));
            }
        }
        portion.validate()?;
        Ok(portion)
    }

    /// Checks what decoding does not: that it names something, within the limits.
    ///
    /// # Errors
    ///
    /// Says which rule it breaks.
    pub fn validate(&self) -> Result<(), PortionError> {
        let bytes = |(name, keys): (&String, &KeyRange)| {
            name.len() + keys.start.len() + keys.end.as_ref().map_or(0, Vec::len)
        };
        let total: usize = self.tables.iter().map(bytes).sum();
        if self.tables.is_empty() {
            return Err(PortionError::Empty);
        }
        if self.tables.len() > Self::TABLES_MAX {
            return Err(PortionError::TooMany(self.tables.len()));
        }
        if total > Self::BYTES_MAX {
            return Err(PortionError::TooLong(total));
        }
        if self.tables.contains_key("") {
            return Err(PortionError::Unnamed);
        }
        match self.tables.iter().find(|(_, keys)| keys.is_empty()) {
            Some((name, _)) => Err(PortionError::NoKeys(name.clone())),
            None => Ok(()),
        }
    }

    /// Whether it holds nothing: a partial copy before its first round.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// The tables, by name, and the keys that are held of each.
    pub fn tables(&self) -> impl Iterator<Item = (&str, &KeyRange)> {
        self.tables.iter().map(|(name, keys)| (name.as_str(), keys))
    }

    /// What both hold.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let both = |(name, keys): (&String, &KeyRange)| {
            Some((name.clone(), keys.intersect(other.tables.get(name)?)?))
        };
        Self { tables: self.tables.iter().filter_map(both).collect() }
    }
}

impl fmt::Display for Portion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing yet");
        }
        for (number, (name, keys)) in self.tables.iter().take(SHOWN_MAX).enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{name}")?;
            if *keys != KeyRange::ALL {
                write!(f, " {keys}")?;
            }
        }
        match self.tables.len().saturating_sub(SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Display for PortionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a partial copy holds at least one table: name it"),
            Self::TooMany(count) => {
                write!(f, "{count} tables are chosen, and {} may be: hold all of them", Portion::TABLES_MAX)
            }
            Self::TooLong(bytes) => {
                write!(f, "names and keys have {bytes} bytes, and may have {}", Portion::BYTES_MAX)
            }
            Self::Twice(name) => write!(f, "table {name:?} is chosen twice: choose one range of it"),
            Self::Unnamed => f.write_str("a table is chosen without a name"),
            Self::NoKeys(name) => {
                write!(f, "no key of table {name:?} lies in the range that is chosen: its end comes first")
            }
        }
    }
}

impl std::error::Error for PortionError {}

#[cfg(test)]
mod tests {
    use super::{Portion, PortionError};
    use crate::KeyRange;

    fn range(start: &str, end: &str) -> KeyRange {
        KeyRange::new(start, Some(end.into()))
    }

    fn portion(tables: &[(&str, KeyRange)]) -> Result<Portion, PortionError> {
        Portion::new(tables.iter().map(|(name, keys)| ((*name).to_owned(), keys.clone())))
    }

    #[test]
    fn what_cannot_be_chosen_is_refused() {
        let all = KeyRange::ALL;
        assert_eq!(portion(&[]), Err(PortionError::Empty));
        assert_eq!(portion(&[("", all.clone())]), Err(PortionError::Unnamed));
        let twice = [("a", all.clone()), ("a", range("b", "c"))];
        assert_eq!(portion(&twice), Err(PortionError::Twice("a".into())));
        assert_eq!(portion(&[("a", range("c", "b"))]), Err(PortionError::NoKeys("a".into())));
        let long = "x".repeat(Portion::BYTES_MAX);
        assert!(portion(&[(&long, all.clone())]).is_ok());
        assert_eq!(portion(&[(&long, range("", "a"))]), Err(PortionError::TooLong(long.len() + 1)));
        let many = (0..=Portion::TABLES_MAX).map(|number| (number.to_string(), all.clone()));
        assert_eq!(Portion::new(many), Err(PortionError::TooMany(Portion::TABLES_MAX + 1)));
    }

    #[test]
    fn two_portions_have_in_common_what_both_hold() {
        let one = portion(&[("a", KeyRange::ALL), ("b", range("c", "m")), ("d", KeyRange::ALL)]).unwrap();
        let other = portion(&[("a", range("f", "g")), ("b", range("k", "z")), ("e", KeyRange::ALL)]).unwrap();
        let both = portion(&[("a", range("f", "g")), ("b", range("k", "m"))]).unwrap();
        assert_eq!(one.intersect(&other), both);
        assert_eq!(other.intersect(&one), both);
        let apart = portion(&[("b", range("m", "n"))]).unwrap();
        assert!(one.intersect(&apart).is_empty());
    }

    #[test]
    fn a_portion_is_told_in_a_line() {
        let one = portion(&[("flights", KeyRange::ALL), ("airports", range("A", "F"))]).unwrap();
        assert_eq!(one.to_string(), "airports [A, F), flights");
        assert_eq!(Portion::default().to_string(), "nothing yet");
        let many = Portion::new((0..20).map(|number| (format!("t{number:02}"), KeyRange::ALL))).unwrap();
        assert!(many.to_string().ends_with("t07 and 12 more"), "{many}");
    }
}
