use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The type of a column.
///
/// The numbers are those of the format and never change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ColumnType {
    /// True or false.
    Bool = 0,
    /// A whole number of 64 bits.
    Int64 = 1,
    /// A floating-point number of 64 bits (IEEE 754).
    Float64 = 2,
    /// UTF-8 text.
    Text = 3,
    /// Any bytes.
    Bytes = 4,
    /// A point in time: microseconds since 1970-01-01T00:00:00Z.
    Timestamp = 5,
    /// A day: days since 1970-01-01.
    Date = 6,
}

impl ColumnType {
    /// Every type, in the order of their numbers.
    pub const ALL: [Self; 7] =
        [Self::Bool, Self::Int64, Self::Float64, Self::Text, Self::Bytes, Self::Timestamp, Self::Date];

    /// The name in commands and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int64 => "int64",
            Self::Float64 => "float64",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
        }
    }

    /// Whether values are numbers, which read best aligned to the right.
    pub fn is_number(self) -> bool {
        matches!(self, Self::Int64 | Self::Float64)
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for ColumnType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|ty| ty.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|ty| ty.name()).collect();
            Error::Schema(format!("there is no column type {text:?}; use one of {}", names.join(", ")))
        })
    }
}

/// One value of a row.
///
/// Values are ordered: null first, then by the order of their type. Floating-point numbers have a total order in
/// which -0 equals 0, every NaN equals every other, and NaN is greater than all numbers. Values of different types are
/// ordered by the numbers of their types; a column never mixes them. Encoded keys have the same order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Value {
    /// No value.
    Null,
    /// A [`ColumnType::Bool`].
    Bool(bool),
    /// A [`ColumnType::Int64`].
    Int(i64),
    /// A [`ColumnType::Float64`].
    Float(f64),
    /// A [`ColumnType::Text`].
    Text(String),
    /// A [`ColumnType::Bytes`].
    Bytes(Vec<u8>),
    /// A [`ColumnType::Timestamp`]: microseconds since 1970-01-01T00:00:00Z.
    Timestamp(i64),
    /// A [`ColumnType::Date`]: days since 1970-01-01.
    Date(i32),
}

impl Value {
    /// The type of a column that holds this value; `None` for null, which fits every nullable column.
    pub fn column_type(&self) -> Option<ColumnType> {
        Some(match self {
            Self::Null => return None,
            Self::Bool(_) => ColumnType::Bool,
            Self::Int(_) => ColumnType::Int64,
            Self::Float(_) => ColumnType::Float64,
            Self::Text(_) => ColumnType::Text,
            Self::Bytes(_) => ColumnType::Bytes,
            Self::Timestamp(_) => ColumnType::Timestamp,
            Self::Date(_) => ColumnType::Date,
        })
    }

    /// Whether this is null.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The name of the value's type in messages.
    pub(crate) fn type_name(&self) -> &'static str {
        self.column_type().map_or("null", ColumnType::name)
    }

    /// The length of the value's variable part in bytes.
    pub(crate) fn byte_len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            _ => 8,
        }
    }

    fn rank(&self) -> u8 {
        self.column_type().map_or(0, |ty| ty as u8 + 1)
    }
}

/// The one bit pattern that stands for every NaN.
const NAN_BITS: u64 = 0x7ff8_0000_0000_0000;

/// The bits of `number`, with all NaNs made one, so that equal contents have equal bytes.
pub(crate) fn canonical_bits(number: f64) -> u64 {
    if number.is_nan() { NAN_BITS } else { number.to_bits() }
}

/// A number whose unsigned order is the order of [`Value::Float`].
pub(crate) fn ordered_bits(number: f64) -> u64 {
    const SIGN: u64 = 1 << 63;
    let bits = if number == 0.0 { 0 } else { canonical_bits(number) };
    if bits & SIGN == 0 { bits | SIGN } else { !bits }
}

/// The number whose [`ordered_bits`] are `ordered`.
pub(crate) fn from_ordered_bits(ordered: u64) -> f64 {
    const SIGN: u64 = 1 << 63;
    f64::from_bits(if ordered & SIGN == 0 { !ordered } else { ordered & !SIGN })
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) | (Self::Timestamp(a), Self::Timestamp(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => ordered_bits(*a).cmp(&ordered_bits(*b)),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (Self::Date(a), Self::Date(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

macro_rules! value_from {
    ($($from:ty => $variant:ident),*) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

value_from!(bool => Bool, i64 => Int, i32 => Int, f64 => Float, &str => Text, String => Text, Vec<u8> => Bytes, &[u8] => Bytes);

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::{ColumnType, Value, canonical_bits, from_ordered_bits, ordered_bits};

    #[test]
    fn floats_have_a_total_order() {
        let rising = [f64::NEG_INFINITY, -1.5, -f64::MIN_POSITIVE, 0.0, 5e-324, 2.0, f64::INFINITY, f64::NAN];
        for pair in rising.windows(2) {
            assert!(Value::Float(pair[0]) < Value::Float(pair[1]), "{pair:?}");
        }
        assert_eq!(Value::Float(-0.0), Value::Float(0.0));
        assert_eq!(Value::Float(-f64::NAN), Value::Float(f64::NAN));
        assert_eq!(canonical_bits(-f64::NAN), canonical_bits(f64::from_bits(0x7ff8_0000_0000_0001)));
        assert_ne!(canonical_bits(-0.0), canonical_bits(0.0));
        for number in rising {
            assert_eq!(Value::Float(from_ordered_bits(ordered_bits(number))), Value::Float(number));
        }
    }

    #[test]
    fn null_comes_first() {
        assert!(Value::Null < Value::Bool(false));
        assert!(Value::Null < Value::Text(String::new()));
        assert_eq!(Value::from(None::<i64>), Value::Null);
    }

    #[test]
    fn a_type_survives_its_name() {
        for ty in ColumnType::ALL {
            assert_eq!(ty.name().parse::<ColumnType>().unwrap(), ty);
        }
        let error = "varchar".parse::<ColumnType>().unwrap_err();
        assert_eq!(error.code(), "schema");
        assert!(error.to_string().contains("timestamp"), "{error}");
    }
}
