use planaria_engine::{TableDef, Value, table};

use crate::key_text::format_raw;
use crate::output::{CliError, Heading};

/// Shows the stored bytes of a table's rows as values under headings.
///
/// A raw table has two columns, `key` and `row`, whose bytes are text where they are printable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowView<'a> {
    definition: &'a TableDef,
}

impl<'a> RowView<'a> {
    /// A view of the rows of that table.
    pub(crate) fn new(definition: &'a TableDef) -> Self {
        Self { definition }
    }

    /// The headings of its columns.
    pub(crate) fn headings(self) -> Result<Vec<Heading>, CliError> {
        if !self.definition.is_typed() {
            return Ok(vec![Heading::text("key"), Heading::text("row")]);
        }
        Ok(self.definition.schema()?.1.columns().iter().map(Heading::from).collect())
    }

    /// The values of a row, one for each heading.
    pub(crate) fn values(self, key: &[u8], row: &[u8]) -> Result<Vec<Value>, CliError> {
        if !self.definition.is_typed() {
            return Ok(vec![Value::Text(format_raw(key)), Value::Text(format_raw(row))]);
        }
        Ok(table::decode(self.definition, key, row)?)
    }
}
