//! From guesses to a schema, and from records to rows of values.

use std::str::FromStr;

use planaria_engine::{Column, ColumnType, Schema, Value};

use super::record::{Field, Record, RecordError};
use super::sniff::Guess;
use crate::output::CliError;

/// Spellings that often stand for no value.
const NULL_SPELLINGS: [&str; 9] = ["NA", "N/A", "n/a", "null", "NULL", "None", "\\N", "-", "?"];

/// `--type COLUMN=TYPE`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TypeChoice {
    /// The column.
    pub(crate) column: String,
    /// Its type, whatever it seems to be.
    pub(crate) ty: ColumnType,
}

impl FromStr for TypeChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (column, ty) =
            text.rsplit_once('=').ok_or_else(|| format!("{text:?} has no =; write it as column=type"))?;
        Ok(Self { column: column.to_owned(), ty: ty.parse().map_err(|error| format!("{error}"))? })
    }
}

/// The schema of a new table: the columns of the input in their order, nullable unless they are in the key.
///
/// Fails with the code `usage` if the key or a choice names no column of the input, and with `schema` over the limits.
pub(crate) fn schema_from(
    columns: &[String],
    guesses: &[Guess],
    key: &[String],
    choices: &[TypeChoice],
) -> Result<Schema, CliError> {
    let named = || format!("the columns are {}", columns.join(", "));
    if key.is_empty() {
        return Err(CliError::usage("the table has no primary key")
            .hint(format!("use --key COLUMN,...; {}", named())));
    }
    let chosen = choices.iter().map(|choice| ("--type", &choice.column));
    for (option, name) in key.iter().map(|name| ("--key", name)).chain(chosen) {
        if !columns.contains(name) {
            return Err(CliError::usage(format!("{option} names {name:?}, which is no column of the input"))
                .hint(named()));
        }
    }
    let mut builder = Schema::builder();
    for (name, guess) in columns.iter().zip(guesses) {
        let choice = choices.iter().rev().find(|choice| choice.column == *name);
        let column = Column::new(name, choice.map_or(guess.ty, |choice| choice.ty));
        builder = builder.column(if key.contains(name) { column } else { column.nullable() });
    }
    Ok(builder.key(key).build()?)
}

/// Turns records into rows of a schema.
#[derive(Clone, Debug)]
pub(crate) struct RowParser {
    /// For each column of the schema, the field of the record, if the input has it.
    columns: Vec<(Column, Option<usize>)>,
}

impl RowParser {
    /// Finds the columns of `schema` among those of the input, by name.
    ///
    /// Fails with the code `schema` if the input has a column that the schema has not, or lacks one without which no row
    /// is complete.
    pub(crate) fn new(schema: &Schema, input_columns: &[String]) -> Result<Self, CliError> {
        if let Some(unknown) = input_columns.iter().find(|name| schema.position(name).is_none()) {
            return Err(CliError::new(
                "schema",
                format!("the table has no column {unknown:?}, which the input has"),
            )
            .hint("add the column to the table, or leave it out of the input"));
        }
        let mut columns = Vec::with_capacity(schema.columns().len());
        for column in schema.columns() {
            let field = input_columns.iter().position(|name| *name == column.name);
            if field.is_none() && !column.nullable && column.default.is_none() {
                return Err(CliError::new("schema", format!("the input has no column {:?}", column.name))
                    .because("every row of the table needs a value there")
                    .hint("add it to the input, or give the column a default"));
            }
            columns.push((column.clone(), field));
        }
        Ok(Self { columns })
    }

    /// Puts the values of `record` into `values`, one for each column of the schema.
    ///
    /// Fails with the code `schema`, naming line, column and value, and what to do.
    pub(crate) fn parse(&self, record: &Record, values: &mut Vec<Value>) -> Result<(), RecordError> {
        values.clear();
        for (column, field) in &self.columns {
            let field = field.map_or(Field::Missing, |index| record.field(index));
            let value = parse_field(column, field).map_err(|what| {
                RecordError::bad("schema", record.line(), what).hint(way_out(column, field))
            })?;
            values.push(value);
        }
        Ok(())
    }
}

fn parse_field(column: &Column, field: Field<'_>) -> Result<Value, String> {
    let value = match field {
        Field::Missing => column.missing_value(),
        Field::Null => Value::Null,
        // Programs that quote everything quote what is not there as well.
        Field::Quoted("") if column.ty != ColumnType::Text => Value::Null,
        Field::Plain(text) | Field::Quoted(text) | Field::Text(text) => {
            return column.parse(text).map_err(|error| error.to_string());
        }
    };
    if value.is_null() && !column.nullable {
        return Err(format!("column {:?}: there is no value, and every row needs one", column.name));
    }
    Ok(value)
}

/// What to do about a field that does not fit.
fn way_out(column: &Column, field: Field<'_>) -> String {
    const SKIP: &str = "leave such records out with --on-error skip";
    match field {
        Field::Missing | Field::Null => format!("correct the line, or {SKIP}"),
        Field::Plain(text) | Field::Quoted(text) | Field::Text(text) => {
            let null = if NULL_SPELLINGS.contains(&text) {
                format!("use --null {text} if it stands for no value, ")
            } else {
                String::new()
            };
            format!("{null}use --type {}=text, or {SKIP}", column.name)
        }
    }
}

#[cfg(test)]
#[path = "typing_tests.rs"]
mod tests;
