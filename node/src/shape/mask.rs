//! What is put in the place of values that must not be given away.

use blake3::Hasher;
use planaria_engine::{Column, ColumnType, Value};

/// The days of a year, and the microseconds of a day: a value stays within its own.
const YEAR_DAYS: i32 = 365;
const DAY_US: i64 = 24 * 3_600 * 1_000_000;
/// Letters of a hash: 128 bits.
const HASH_BYTES: usize = 16;

/// How a column is masked.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Mask {
    /// There is no value.
    Null,
    /// A value that is the same wherever the original is the same, within one clone.
    Hash,
    /// Always this value.
    Constant(Value),
    /// A value that looks alike: letters for letters, digits for digits, as long as it was.
    KeepFormat,
}

impl Mask {
    /// Reads `null`, `hash`, `keep-format` or `constant:VALUE` for a column. The error says why it cannot be.
    pub(super) fn parse(column: &Column, is_key: bool, text: &str) -> Result<Self, String> {
        let ty = column.ty;
        let mask = match text.split_once(':') {
            None if text == "null" => Self::Null,
            None if text == "hash" => Self::Hash,
            None if text == "keep-format" => Self::KeepFormat,
            Some(("constant", value)) => {
                Self::Constant(column.parse(value).map_err(|error| error.to_string())?)
            }
            _ => {
                return Err(format!(
                    "there is no mask {text:?}: use null, hash, keep-format or constant:VALUE"
                ));
            }
        };
        let no = |why: &str| Err(format!("column {:?} {why}", column.name));
        match &mask {
            Self::Hash if !matches!(ty, ColumnType::Int64 | ColumnType::Text | ColumnType::Bytes) => {
                no(&format!("is {}: a hash is an int64, text or bytes", ty.name()))
            }
            Self::KeepFormat if matches!(ty, ColumnType::Bool | ColumnType::Float64) => {
                no(&format!("is {}, which has no format to keep", ty.name()))
            }
            Self::Null if !column.nullable => no("may not be null"),
            Self::Hash => Ok(mask),
            _ if is_key => {
                no("is part of the key: it can be hashed, which keeps keys apart, and nothing else")
            }
            _ => Ok(mask),
        }
    }

    /// What stands for `value`; a null stays one, but for a constant.
    pub(super) fn apply(&self, key: &[u8; 32], value: &Value) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Constant(constant) => constant.clone(),
            Self::Hash | Self::KeepFormat if value.is_null() => Value::Null,
            Self::Hash => hash(key, value),
            Self::KeepFormat => keep_format(key, value),
        }
    }
}

/// As many bytes as are wanted, that only who has the key can tell for a value. Values of different types never share them.
fn stream(key: &[u8; 32], value: &Value, bytes: usize) -> Vec<u8> {
    let mut hasher = Hasher::new_keyed(key);
    match value {
        Value::Text(text) => hasher.update(b"t").update(text.as_bytes()),
        Value::Bytes(bytes) => hasher.update(b"b").update(bytes),
        Value::Int(number) | Value::Timestamp(number) => hasher.update(b"i").update(&number.to_le_bytes()),
        Value::Date(days) => hasher.update(b"d").update(&days.to_le_bytes()),
        Value::Float(number) => hasher.update(b"f").update(&number.to_bits().to_le_bytes()),
        Value::Bool(is) => hasher.update(&[u8::from(*is)]),
        Value::Null => &mut hasher,
    };
    let mut out = vec![0; bytes];
    hasher.finalize_xof().fill(&mut out);
    out
}

/// The first eight bytes as a number.
fn number(key: &[u8; 32], value: &Value) -> u64 {
    let bytes = stream(key, value, 8);
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn hash(key: &[u8; 32], value: &Value) -> Value {
    match value {
        Value::Int(_) => Value::Int((number(key, value) >> 1).cast_signed()),
        Value::Text(_) => {
            let letters = stream(key, value, HASH_BYTES);
            let digits = letters.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
            Value::Text(digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect())
        }
        other => Value::Bytes(stream(key, other, HASH_BYTES)),
    }
}

fn keep_format(key: &[u8; 32], value: &Value) -> Value {
    match value {
        Value::Text(text) => {
            let noise = stream(key, value, text.len() * 2);
            let letters = text.chars().zip(noise.chunks_exact(2));
            Value::Text(letters.map(|(letter, noise)| alike(letter, noise)).collect())
        }
        Value::Bytes(bytes) => Value::Bytes(stream(key, value, bytes.len())),
        Value::Int(original) => {
            // As many digits, the first of which is none of the leading zeros.
            let digits = original.unsigned_abs().max(1).ilog10();
            let low = 10_u64.pow(digits);
            let span = (low * 9).min(i64::MAX.unsigned_abs() - low + 1);
            let other = (low + number(key, value) % span).cast_signed();
            Value::Int(if *original < 0 { -other } else { other })
        }
        Value::Date(days) => {
            let within = (number(key, value) % u64::from(YEAR_DAYS.unsigned_abs())) as i32;
            Value::Date(days.div_euclid(YEAR_DAYS).saturating_mul(YEAR_DAYS).saturating_add(within))
        }
        Value::Timestamp(micros) => {
            let day = micros.div_euclid(DAY_US);
            let within = (number(key, value) % DAY_US.unsigned_abs()).cast_signed();
            Value::Timestamp(day.saturating_mul(DAY_US).saturating_add(within))
        }
        other => other.clone(),
    }
}

/// Another letter of the same kind. What is neither letter nor digit shows the format, and stays.
fn alike(letter: char, noise: &[u8]) -> char {
    let noise = noise.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    let from = |first: char, count: u32| char::from_u32(first as u32 + noise % count).unwrap_or(first);
    match letter {
        _ if letter.is_ascii_digit() => from('0', 10),
        _ if letter.is_uppercase() => from('A', 26),
        _ if letter.is_alphabetic() => from('a', 26),
        _ if letter.is_numeric() => from('0', 10),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(ty: ColumnType) -> Column {
        Column::new("c", ty)
    }

    #[test]
    fn a_hash_is_the_same_for_the_same_and_within_one_clone_only() {
        for value in [Value::Int(-5), Value::Text("Ada".into()), Value::Bytes(vec![1])] {
            let mask = Mask::parse(&column(value.column_type().unwrap()), true, "hash").unwrap();
            let masked = mask.apply(&[1; 32], &value);
            assert_ne!(masked, value);
            assert_eq!(masked.column_type(), value.column_type());
            assert_eq!(masked, mask.apply(&[1; 32], &value));
            assert_ne!(masked, mask.apply(&[2; 32], &value));
        }
    }

    #[test]
    fn a_format_is_kept_and_nothing_else() {
        let keep = |value: Value| Mask::KeepFormat.apply(&[7; 32], &value);
        let Value::Text(text) = keep(Value::Text("Zo\u{eb} O'Hara +49 (30) 12-34".into())) else { panic!() };
        let shape = |text: &str| -> String {
            let kind = |letter: char| match letter {
                _ if letter.is_ascii_digit() => '0',
                _ if letter.is_uppercase() => 'A',
                _ if letter.is_alphabetic() => 'a',
                other => other,
            };
            text.chars().map(kind).collect()
        };
        assert_eq!(shape(&text), shape("Zo\u{eb} O'Hara +49 (30) 12-34"));
        assert!(text.is_ascii() && !text.contains("Hara"));
        for original in [0, 7, -7, 10, 99, 12_345, i64::MAX, i64::MIN] {
            let Value::Int(other) = keep(Value::Int(original)) else { panic!() };
            let digits = |number: i64| number.unsigned_abs().to_string().len();
            assert_eq!((digits(other), other < 0), (digits(original), original < 0), "{original} {other}");
        }
        let Value::Timestamp(other) = keep(Value::Timestamp(-1)) else { panic!() };
        assert_eq!(other.div_euclid(DAY_US), -1);
        assert!(matches!(keep(Value::Timestamp(i64::MIN)), Value::Timestamp(_)));
        assert!(matches!(keep(Value::Date(i32::MIN + 400)), Value::Date(_)));
        assert_eq!(
            keep(Value::Bytes(vec![0; 5])).to_string().len(),
            Value::Bytes(vec![0; 5]).to_string().len()
        );
        assert_eq!(keep(Value::Null), Value::Null);
    }

    #[test]
    fn masks_that_cannot_be_are_refused() {
        let refused = |column: &Column, is_key, text| Mask::parse(column, is_key, text).unwrap_err();
        let text = column(ColumnType::Text);
        assert!(refused(&text, false, "null").contains("may not be null"));
        assert!(refused(&text, true, "keep-format").contains("part of the key"));
        assert!(refused(&text, true, "constant:x").contains("part of the key"));
        assert!(refused(&text, false, "blur").contains("there is no mask"));
        assert!(refused(&column(ColumnType::Bool), false, "hash").contains("is bool"));
        assert!(refused(&column(ColumnType::Float64), false, "keep-format").contains("no format"));
        assert!(Mask::parse(&column(ColumnType::Int64), false, "constant:x").is_err());
        let constant = Mask::parse(&column(ColumnType::Int64), false, "constant:5").unwrap();
        assert_eq!(constant.apply(&[0; 32], &Value::Null), Value::Int(5));
        assert_eq!(Mask::Null.apply(&[0; 32], &Value::Int(1)), Value::Null);
    }
}
