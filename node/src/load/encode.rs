use bytes::Bytes;
use planaria_engine::{MAX_KEY_BYTES, MAX_ROW_BYTES, TableDef, Value, table};

use crate::import::{Field, Record, RecordError, RowParser};
use crate::key_text::parse_raw;
use crate::output::CliError;

/// A record as it will be stored, and where it stood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct EncodedRow {
    /// The line of the input on which it begins, from 1.
    pub(crate) line: u64,
    /// The key.
    pub(crate) key: Bytes,
    /// The row.
    pub(crate) row: Bytes,
}

/// Turns records into the bytes of keys and rows of one table.
pub(crate) struct RowEncoder {
    definition: TableDef,
    shape: Shape,
}

enum Shape {
    Typed {
        parser: RowParser,
        values: Vec<Value>,
    },
    /// The fields of key and row.
    Raw {
        key: usize,
        row: usize,
    },
}

impl RowEncoder {
    /// Finds the columns of the table among those of the input. Those of a raw table are `key` and `row`.
    ///
    /// Fails with the code `schema` if they do not fit together.
    pub(crate) fn new(definition: &TableDef, input_columns: &[String]) -> Result<Self, CliError> {
        let shape = if definition.is_typed() {
            Shape::Typed {
                parser: RowParser::new(definition.schema()?.1, input_columns)?,
                values: Vec::new(),
            }
        } else {
            let position = |name: &str| input_columns.iter().position(|column| column == name);
            match (position("key"), position("row"), input_columns.len()) {
                (Some(key), Some(row), 2) => Shape::Raw { key, row },
                _ => {
                    return Err(CliError::new(
                        "schema",
                        format!("table {:?} has no columns: its keys and rows are bytes", definition.name),
                    )
                    .because(format!("the columns of the input are {}", input_columns.join(", ")))
                    .hint("the input must have the columns key and row, and no others"));
                }
            }
        };
        Ok(Self { definition: definition.clone(), shape })
    }

    /// The record as it will be stored.
    pub(crate) fn encode(&mut self, record: &Record) -> Result<EncodedRow, RecordError> {
        let line = record.line();
        let bad = |error: CliError| RecordError::bad("schema", line, error.what);
        let (key, row) = match &mut self.shape {
            Shape::Typed { parser, values } => {
                parser.parse(record, values)?;
                let schema = self.definition.schema();
                schema
                    .and_then(|(id, schema)| table::encode(schema, id, values))
                    .map_err(|error| bad(error.into()))?
            }
            Shape::Raw { key, row } => {
                (raw_field(record.field(*key)).map_err(bad)?, raw_field(record.field(*row)).map_err(bad)?)
            }
        };
        for (what, bytes, limit) in [("key", key.len(), MAX_KEY_BYTES), ("row", row.len(), MAX_ROW_BYTES)] {
            if bytes > limit {
                let what = format_args!("the {what} has {bytes} bytes, and {limit} are the limit");
                return Err(RecordError::bad("too_large", line, what));
            }
        }
        Ok(EncodedRow { line, key: key.into(), row: row.into() })
    }
}

fn raw_field(field: Field<'_>) -> Result<Vec<u8>, CliError> {
    match field {
        // Bytes are never null; an empty field has no bytes.
        Field::Missing | Field::Null => Ok(Vec::new()),
        Field::Plain(text) | Field::Quoted(text) | Field::Text(text) => parse_raw(text),
    }
}
