use std::fmt;

use super::civil;
use super::value::{ColumnType, Value};

/// At most so many characters of a value are repeated in a message.
const SHOWN_CHARS_MAX: usize = 60;

/// A text is not a value of a type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseValueError {
    ty: ColumnType,
    text: String,
}

impl fmt::Display for ParseValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not {}", self.text, expected_form(self.ty))
    }
}

impl std::error::Error for ParseValueError {}

/// What a text of type `ty` looks like, for messages.
fn expected_form(ty: ColumnType) -> &'static str {
    match ty {
        ColumnType::Bool => "a bool (true or false, t or f, 1 or 0)",
        ColumnType::Int64 => "an int64 (a whole number from -9223372036854775808 to 9223372036854775807)",
        ColumnType::Float64 => "a float64 (a number such as -12.5 or 1e9, or NaN, inf, -inf)",
        ColumnType::Text => "text",
        ColumnType::Bytes => "bytes (0x and an even number of hexadecimal digits)",
        ColumnType::Timestamp => {
            "a timestamp (such as 2013-01-01T10:00:00Z or 2013-01-01 10:00:00.25, down to microseconds)"
        }
        ColumnType::Date => "a date (YYYY-MM-DD)",
    }
}

/// `text` cut to what a message should repeat.
pub(super) fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl Value {
    /// The value of type `ty` that `text` says. Spaces are not skipped; no text means null: which one does is for the
    /// caller to decide.
    ///
    /// - bool: `true`, `false`, `t`, `f` in any case, `1`, `0`
    /// - int64: digits with an optional sign
    /// - float64: a decimal number with an optional exponent, or `NaN`, `inf`, `infinity` in any case with an optional
    ///   sign
    /// - bytes: `0x` and an even number of hexadecimal digits
    /// - timestamp: RFC 3339; also with a space for the `T`, without seconds, without zone (meaning UTC), and a date
    ///   alone
    /// - date: `YYYY-MM-DD`
    ///
    /// Fails if `text` says no value of that type, or one that could not be kept exactly.
    pub fn parse(ty: ColumnType, text: &str) -> Result<Self, ParseValueError> {
        let value = match ty {
            ColumnType::Bool => parse_bool(text).map(Self::Bool),
            ColumnType::Int64 => text.parse().ok().map(Self::Int),
            ColumnType::Float64 => text.parse().ok().filter(|number| is_kept(*number, text)).map(Self::Float),
            ColumnType::Text => Some(Self::Text(text.to_owned())),
            ColumnType::Bytes => parse_hex(text).map(Self::Bytes),
            ColumnType::Timestamp => civil::parse_timestamp(text).map(Self::Timestamp),
            ColumnType::Date => civil::parse_date(text).map(Self::Date),
        };
        value.ok_or_else(|| ParseValueError { ty, text: shorten(text) })
    }
}

/// Whether a number that was written with digits did not become infinite.
fn is_kept(number: f64, text: &str) -> bool {
    number.is_finite() || !text.bytes().any(|byte| byte.is_ascii_digit())
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" => Some(true),
        "0" => Some(false),
        _ if text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("t") => Some(true),
        _ if text.eq_ignore_ascii_case("false") || text.eq_ignore_ascii_case("f") => Some(false),
        _ => None,
    }
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    if digits.len() % 2 != 0 {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16);
    digits
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some((nibble(*high)? << 4 | nibble(*low)?) as u8),
            _ => None,
        })
        .collect()
}

/// The text that [`Value::parse`] reads back as the same value; null is `null`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Float(value) => write_float(f, *value),
            Self::Text(value) => f.write_str(value),
            Self::Bytes(value) => {
                f.write_str("0x")?;
                value.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Timestamp(micros) => civil::write_timestamp(f, *micros),
            Self::Date(days) => civil::write_date(f, i64::from(*days)),
        }
    }
}

/// The shortest digits that name the number; an exponent only where there would be many zeros.
fn write_float(f: &mut fmt::Formatter<'_>, number: f64) -> fmt::Result {
    let magnitude = number.abs();
    if number == 0.0 || (1e-5..1e16).contains(&magnitude) || !number.is_finite() {
        write!(f, "{number}")
    } else {
        write!(f, "{number:e}")
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::{ColumnType, Value};

    fn parse(ty: ColumnType, text: &str) -> Option<Value> {
        Value::parse(ty, text).ok()
    }

    #[test]
    fn texts_of_each_type_are_read() {
        use ColumnType::{Bool, Bytes, Date, Float64, Int64, Text, Timestamp};
        for (text, value) in
            [("true", true), ("T", true), ("1", true), ("FALSE", false), ("f", false), ("0", false)]
        {
            assert_eq!(parse(Bool, text), Some(Value::Bool(value)), "{text}");
        }
        assert_eq!(parse(Int64, "-9223372036854775808"), Some(Value::Int(i64::MIN)));
        assert_eq!(parse(Int64, "9223372036854775808"), None);
        assert_eq!(parse(Int64, "1.0"), None);
        assert_eq!(parse(Int64, ""), None);
        assert_eq!(parse(Float64, "10.357019999999999"), Some(Value::Float(10.357_019_999_999_999)));
        assert_eq!(parse(Float64, "nan"), Some(Value::Float(f64::NAN)));
        assert_eq!(parse(Float64, "-inf"), Some(Value::Float(f64::NEG_INFINITY)));
        assert_eq!(parse(Float64, "1e400"), None);
        assert_eq!(parse(Float64, "NA"), None);
        assert_eq!(parse(Text, ""), Some(Value::Text(String::new())));
        assert_eq!(parse(Bytes, "0x00fF"), Some(Value::Bytes(vec![0, 255])));
        assert_eq!(parse(Bytes, "0x0"), None);
        assert_eq!(parse(Bytes, "00"), None);
        assert_eq!(parse(Bytes, "0x+1"), None);
        assert_eq!(parse(Date, "1969-12-31"), Some(Value::Date(-1)));
        assert_eq!(parse(Timestamp, "1970-01-01T00:00:01Z"), Some(Value::Timestamp(1_000_000)));
    }

    #[test]
    fn a_message_names_the_value_and_the_form_and_stays_short() {
        let error = Value::parse(ColumnType::Date, "01/02/2013").unwrap_err().to_string();
        assert_eq!(error, "\"01/02/2013\" is not a date (YYYY-MM-DD)");
        let error = Value::parse(ColumnType::Int64, &"é".repeat(10_000)).unwrap_err().to_string();
        assert!(error.len() < 300, "{error}");
    }

    #[test]
    fn values_are_written_for_people() {
        assert_eq!(Value::Float(1.0).to_string(), "1");
        assert_eq!(Value::Float(1e300).to_string(), "1e300");
        assert_eq!(Value::Float(-2.5e-9).to_string(), "-2.5e-9");
        assert_eq!(Value::Float(f64::NAN).to_string(), "NaN");
        assert_eq!(Value::Timestamp(1_357_034_400_250_000).to_string(), "2013-01-01T10:00:00.25Z");
        assert_eq!(Value::Date(i32::MAX).to_string(), "+5881580-07-11");
        assert_eq!(Value::Date(-800_000).to_string(), "-0221-09-04");
        assert_eq!(Value::Bytes(vec![1, 0xab]).to_string(), "0x01ab");
    }

    proptest! {
        #[test]
        fn a_value_survives_its_text(value in crate::table::schema::tests::any_value()) {
            let text = value.to_string();
            let back = value.column_type().map(|ty| Value::parse(ty, &text));
            prop_assert!(matches!(&back, Some(Ok(same)) if *same == value), "{value:?} {text:?} {back:?}");
        }

        #[test]
        fn no_text_is_too_strange(text in ".{0,40}") {
            for ty in ColumnType::ALL {
                let _ = Value::parse(ty, &text);
            }
        }
    }
}
