//! Guesses the types of columns from a sample of records.

use planaria_engine::{ColumnType, Value};

use super::record::{Field, Record};

/// The largest whole number up to which every one is also a float.
const EXACT_FLOAT_MAX: u64 = 1 << 53;

/// What a column seems to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Guess {
    /// The narrowest type that fits every value of the sample; text if there was none.
    pub(crate) ty: ColumnType,
    /// Whether some record had no value.
    pub(crate) has_null: bool,
}

/// Guesses the types of `columns` columns. In a column of numbers, all are whole or some are not; a column of days and
/// times is one of timestamps; everything mixed, numbers with leading zeros and numbers too large to be kept are text.
pub(crate) fn sniff<'a>(columns: usize, records: impl IntoIterator<Item = &'a Record>) -> Vec<Guess> {
    let mut candidates = vec![Candidates::default(); columns];
    for record in records {
        for (index, column) in candidates.iter_mut().enumerate() {
            column.observe(record.field(index));
        }
    }
    candidates.into_iter().map(Candidates::guess).collect()
}

/// The types that can be guessed, the first choice first.
const TYPES: [ColumnType; 5] =
    [ColumnType::Bool, ColumnType::Int64, ColumnType::Float64, ColumnType::Date, ColumnType::Timestamp];

/// The types that a column may still have.
#[derive(Clone, Copy)]
struct Candidates {
    /// For each of [`TYPES`], whether all values so far fit.
    fits: [bool; TYPES.len()],
    /// Whether a value spoke for a type. `NaN` and `inf` fit numbers but may be names as well, and speak for none.
    has_evidence: bool,
    has_null: bool,
}

impl Default for Candidates {
    fn default() -> Self {
        Self { fits: [true; TYPES.len()], has_evidence: false, has_null: false }
    }
}

impl Candidates {
    fn observe(&mut self, field: Field<'_>) {
        let (text, is_text) = match field {
            Field::Missing | Field::Null | Field::Quoted("") => {
                self.has_null = true;
                return;
            }
            Field::Plain(text) | Field::Quoted(text) => (text, false),
            Field::Text(text) => (text, true),
        };
        self.has_evidence |= !is_nameless_number(text);
        for (fits, ty) in self.fits.iter_mut().zip(TYPES) {
            *fits = *fits && looks_like(ty, text, is_text);
        }
    }

    fn guess(self) -> Guess {
        let first = TYPES.into_iter().zip(self.fits).find(|(_, fits)| *fits).map(|(ty, _)| ty);
        let ty = first.filter(|_| self.has_evidence).unwrap_or(ColumnType::Text);
        Guess { ty, has_null: self.has_null }
    }
}

/// Whether `text` may be a value of type `ty`; `is_text` if it is known to be neither number nor boolean.
fn looks_like(ty: ColumnType, text: &str, is_text: bool) -> bool {
    match ty {
        ColumnType::Bool => !is_text && is_bool(text),
        ColumnType::Int64 => !is_text && is_int(text),
        ColumnType::Float64 => !is_text && is_float(text),
        _ => Value::parse(ty, text).is_ok(),
    }
}

/// `t`, `f`, `1` and `0` are read as booleans only on request: a column of them is more likely something else.
fn is_bool(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
}

/// Digits as a number would be written back: without leading zeros or a plus, and no negative zero.
fn is_int(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    has_no_leading_zero(digits) && text != "-0" && !text.starts_with('+') && text.parse::<i64>().is_ok()
}

fn is_float(text: &str) -> bool {
    if is_nameless_number(text) {
        return true;
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    let Ok(number) = Value::parse(ColumnType::Float64, text) else {
        return false;
    };
    let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit());
    let is_exact = !is_whole || digits.parse::<u64>().is_ok_and(|whole| whole <= EXACT_FLOAT_MAX);
    digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && has_no_leading_zero(digits)
        && is_exact
        && !number.is_null()
}

fn has_no_leading_zero(digits: &str) -> bool {
    !matches!(digits.as_bytes(), [b'0', b'0'..=b'9', ..])
}

/// Floating-point numbers that are written as words.
fn is_nameless_number(text: &str) -> bool {
    matches!(text, "NaN" | "nan" | "inf" | "-inf" | "Inf" | "-Inf")
}

#[cfg(test)]
mod tests {
    use super::super::reader::{ReaderOptions, RecordReader};
    use super::super::source::Source;
    use super::{ColumnType, Guess, sniff};

    fn guesses(text: &str, null_text: &str) -> Vec<Guess> {
        let options = ReaderOptions { null_text: null_text.into(), ..ReaderOptions::default() };
        let source = Source::new(std::io::Cursor::new(text.to_owned()), None).unwrap();
        let mut reader = RecordReader::new(source, &options).unwrap();
        let records: Vec<_> = reader.sample(100).cloned().collect();
        sniff(reader.columns().len(), &records)
    }

    fn type_of(values: &[&str]) -> ColumnType {
        let guesses = guesses(&format!("c,d\n{}\n", values.join(",x\n") + ",x"), "NA");
        guesses[0].ty
    }

    #[test]
    fn columns_get_the_narrowest_type_that_fits() {
        use ColumnType::{Bool, Date, Float64, Int64, Text, Timestamp};
        for (values, ty) in [
            (&["1", "-20", "0"][..], Int64),
            (&["1", "2.5"], Float64),
            (&["1e3", "-.5", "NaN"], Float64),
            (&["true", "FALSE"], Bool),
            (&["t", "f"], Text),
            (&["0", "1"], Int64),
            (&["2013-01-01", "2013-02-28"], Date),
            (&["2013-01-01", "2013-01-01 10:00"], Timestamp),
            (&["2013-01-01T10:00:00Z"], Timestamp),
            (&["2013-02-30"], Text),
            (&["007", "12"], Text),
            (&["00.5"], Text),
            (&["+5"], Text),
            (&["9223372036854775808"], Text),
            (&["9007199254740993", "0.5"], Text),
            (&["NaN", "inf"], Text),
            (&["NaN", "Nancy"], Text),
            (&["1", "true"], Text),
            (&["1", " 2"], Text),
            (&["NA", "NA"], Text),
            (&["NA", "7"], Int64),
        ] {
            assert_eq!(type_of(values), ty, "{values:?}");
        }
    }

    #[test]
    fn real_tables_get_the_types_that_they_have() {
        let weather = guesses(include_str!("../../testdata/weather.csv"), "NA");
        let types: String = weather.iter().map(|guess| guess.ty.name().chars().next().unwrap()).collect();
        assert_eq!(types, "tiiiifffiffifft");
        assert_eq!(weather.last().unwrap().ty, ColumnType::Timestamp);
        assert_eq!(weather[0].ty, ColumnType::Text);
        assert!(weather[10].has_null && !weather[0].has_null);
        let planes = guesses(include_str!("../../testdata/planes.csv"), "NA");
        assert_eq!(planes[1], Guess { ty: ColumnType::Int64, has_null: true });
    }

    #[test]
    fn strings_of_json_are_no_numbers_but_may_be_times() {
        let text = "{\"a\":\"12\",\"b\":12,\"c\":\"2013-01-01\",\"d\":true}\n{\"a\":null,\"b\":1.5,\"d\":false,\"e\":[1]}\n";
        let guesses = guesses(text, "");
        let types: Vec<_> = guesses.iter().map(|guess| guess.ty.name()).collect();
        assert_eq!(types, ["text", "float64", "date", "bool", "text"]);
        let nulls: Vec<_> = guesses.iter().map(|guess| guess.has_null).collect();
        assert_eq!(nulls, [true, false, true, false, true]);
    }
}
