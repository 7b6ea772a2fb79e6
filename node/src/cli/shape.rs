//! What a source makes of its rows before it gives them away.

use std::str::FromStr;

use clap::Args;
use planaria_engine::{ColumnType, Value};
use planaria_net::wire::message::{AsOf, Shape};

use super::choice::parse_uid;

/// Options of a clone that is not to have everything.
#[derive(Args, Debug, Default)]
pub(crate) struct ShapeArgs {
    /// Leave this table out; may be repeated
    #[arg(long, value_name = "TABLE")]
    leave_out: Vec<String>,
    /// Give away only the rows of a table for which this is true: comparisons of columns and values, AND, OR, NOT, IN, BETWEEN, LIKE,
    /// IS NULL; may be repeated
    #[arg(long = "where", value_name = "TABLE: CONDITION")]
    filters: Vec<TableFilter>,
    /// Mask a column at the source: null, hash (equal values stay equal within the clone), keep-format (letters for letters, digits for
    /// digits) or constant:VALUE; may be repeated
    #[arg(long = "mask", value_name = "TABLE.COLUMN=MASK")]
    masks: Vec<ColumnMask>,
    /// The state at a time (2026-11-01T08:00:00Z) or after a commit (its UID), as far back as older versions are kept
    #[arg(long, value_name = "TIME|UID")]
    as_of: Option<CutChoice>,
}

impl ShapeArgs {
    /// What is asked for.
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            as_of: self.as_of.map_or(AsOf::Newest, |choice| choice.0),
            leave_out: self.leave_out.clone(),
            filters: self
                .filters
                .iter()
                .map(|filter| (filter.table.clone(), filter.condition.clone()))
                .collect(),
            masks: self
                .masks
                .iter()
                .map(|mask| (mask.table.clone(), mask.column.clone(), mask.mask.clone()))
                .collect(),
        }
    }
}

/// The same as options of a command, one a line.
pub(crate) fn shape_words(shape: &Shape) -> Vec<String> {
    let leave_out = shape.leave_out.iter().map(|table| format!("--leave-out {table}"));
    let filters = shape.filters.iter().map(|(table, condition)| format!("--where {table}: {condition}"));
    let masks = shape.masks.iter().map(|(table, column, mask)| format!("--mask {table}.{column}={mask}"));
    let as_of = cut_text(&shape.as_of).map(|cut| format!("--as-of {cut}"));
    leave_out.chain(filters).chain(masks).chain(as_of).collect()
}

/// A cut as it is given; none for the newest.
pub(crate) fn cut_text(cut: &AsOf) -> Option<String> {
    match cut {
        AsOf::Newest => None,
        AsOf::Time(millis) => {
            let micros = i64::try_from(millis.saturating_mul(1_000)).unwrap_or(i64::MAX);
            Some(Value::Timestamp(micros).to_string())
        }
        AsOf::Position(uid) => Some(uid.to_string()),
    }
}

/// What a source makes of its rows, from the words of a file: as the options of a command say it.
pub(crate) fn shape_of_words(
    leave_out: Vec<String>,
    filters: &[String],
    masks: &[String],
    as_of: Option<&str>,
) -> Result<Shape, String> {
    let filters: Result<_, String> = filters.iter().map(|text| text.parse()).collect();
    let masks: Result<_, String> = masks.iter().map(|text| text.parse()).collect();
    let as_of = as_of.map(str::parse).transpose()?;
    Ok(ShapeArgs { leave_out, filters: filters?, masks: masks?, as_of }.shape())
}

#[derive(Clone, Debug)]
struct TableFilter {
    table: String,
    condition: String,
}

impl FromStr for TableFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (table, condition) =
            text.split_once(':').ok_or("write the table, a colon and the condition: \"birds: count > 3\"")?;
        Ok(Self { table: table.trim().to_owned(), condition: condition.trim().to_owned() })
    }
}

#[derive(Clone, Debug)]
struct ColumnMask {
    table: String,
    column: String,
    mask: String,
}

impl FromStr for ColumnMask {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(place, mask)| Some((place.split_once('.')?, mask)));
        let ((table, column), mask) = parts.ok_or("write TABLE.COLUMN=MASK, such as people.mail=hash")?;
        Ok(Self { table: table.to_owned(), column: column.to_owned(), mask: mask.to_owned() })
    }
}

#[derive(Clone, Copy, Debug)]
struct CutChoice(AsOf);

impl FromStr for CutChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(uid) = parse_uid(text) {
            return Ok(Self(AsOf::Position(uid)));
        }
        match Value::parse(ColumnType::Timestamp, text) {
            Ok(Value::Timestamp(micros)) => {
                let millis =
                    u64::try_from(micros.div_euclid(1_000)).map_err(|_| "the time is before 1970")?;
                Ok(Self(AsOf::Time(millis)))
            }
            _ => Err(
                "write a time such as 2026-11-01T08:00:00Z, or the UID of a commit such as 1793520000000.0"
                    .into(),
            ),
        }
    }
}
