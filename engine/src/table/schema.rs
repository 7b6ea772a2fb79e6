use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::value::{ColumnType, Value};
use super::value_text::shorten;
use crate::error::{Error, Result};

/// A schema has at most so many columns.
pub const COLUMNS_MAX: usize = 1_024;
/// The name of a column has at most so many bytes.
pub const COLUMN_NAME_BYTES_MAX: usize = 128;
/// The default of a text or bytes column has at most so many bytes.
pub const DEFAULT_BYTES_MAX: usize = 4_096;

/// A column of a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Column {
    /// The name, unique in its table, of 1 to [`COLUMN_NAME_BYTES_MAX`] bytes without control characters.
    pub name: String,
    /// The type of its values.
    pub ty: ColumnType,
    /// Whether a row may have no value here.
    pub nullable: bool,
    /// What rows have here that were written before the column was added, and rows that do not name it.
    pub default: Option<Value>,
}

impl Column {
    /// A column in which every row has a value.
    pub fn new(name: impl Into<String>, ty: ColumnType) -> Self {
        Self { name: name.into(), ty, nullable: false, default: None }
    }

    /// The same column, in which a row may have no value.
    #[must_use]
    pub fn nullable(self) -> Self {
        Self { nullable: true, ..self }
    }

    /// The same column with a default.
    #[must_use]
    pub fn with_default(self, default: impl Into<Value>) -> Self {
        Self { default: Some(default.into()), ..self }
    }

    /// The value of this column that `text` says ([`Value::parse`]).
    ///
    /// Fails with [`Error::Schema`], naming the column, the text and the form that is expected.
    pub fn parse(&self, text: &str) -> Result<Value> {
        Value::parse(self.ty, text).map_err(|error| Error::Schema(format!("column {:?}: {error}", self.name)))
    }

    /// Fails unless `value` may stand in this column.
    pub fn check(&self, value: &Value) -> Result<()> {
        match value.column_type() {
            Some(ty) if ty == self.ty => Ok(()),
            None if self.nullable => Ok(()),
            None => Err(Error::Schema(format!(
                "column {:?} must have a value of type {}, but none is given; give one, or make the column nullable",
                self.name, self.ty
            ))),
            Some(_) => Err(Error::Schema(format!(
                "column {:?} holds values of type {}, but {} is of type {}; convert it first",
                self.name,
                self.ty,
                shorten(&value.to_string()),
                value.type_name()
            ))),
        }
    }

    /// What a row has here that does not say.
    pub fn missing_value(&self) -> Value {
        self.default.clone().unwrap_or(Value::Null)
    }

    fn check_definition(&self) -> Result<()> {
        check_name("a column", &self.name, COLUMN_NAME_BYTES_MAX)?;
        let Some(default) = &self.default else {
            return Ok(());
        };
        if default.is_null() {
            return Err(Error::Schema(format!(
                "column {:?} has null for a default; leave the default out and make the column nullable",
                self.name
            )));
        }
        self.check(default)?;
        if default.byte_len() > DEFAULT_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "the default of a column",
                bytes: default.byte_len() as u64,
                limit: DEFAULT_BYTES_MAX as u64,
            });
        }
        Ok(())
    }
}

/// Fails unless `name` has 1 to `limit` bytes and no control characters.
pub(super) fn check_name(of: &str, name: &str, limit: usize) -> Result<()> {
    if name.is_empty() || name.len() > limit || name.chars().any(char::is_control) {
        return Err(Error::Schema(format!(
            "{:?} cannot name {of}; a name has 1 to {limit} bytes and no control characters",
            shorten(name)
        )));
    }
    Ok(())
}

/// The columns of a table and its primary key. Always valid: see [`SchemaBuilder::build`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "SchemaParts", into = "SchemaParts")]
pub struct Schema {
    columns: Vec<Column>,
    key: Vec<usize>,
    /// The columns outside the key, in the order of their positions: those that a row holds.
    rest: Vec<usize>,
    /// Only the schemas of indexes: a null has its place in the order of the keys.
    nulls_in_key: bool,
}

/// A schema as it is stored: not checked yet.
#[derive(Serialize, Deserialize)]
struct SchemaParts {
    columns: Vec<Column>,
    key: Vec<u16>,
    nulls_in_key: bool,
}

impl From<Schema> for SchemaParts {
    fn from(schema: Schema) -> Self {
        let key = schema.key.iter().map(|position| *position as u16).collect();
        Self { columns: schema.columns, key, nulls_in_key: schema.nulls_in_key }
    }
}

impl TryFrom<SchemaParts> for Schema {
    type Error = Error;

    fn try_from(parts: SchemaParts) -> Result<Self> {
        Self::checked(parts.columns, parts.key.into_iter().map(usize::from).collect(), parts.nulls_in_key)
    }
}

impl Schema {
    /// Begins a schema without columns.
    pub fn builder() -> SchemaBuilder {
        SchemaBuilder::default()
    }

    /// The columns, in the order of a row's values.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The positions of the primary key's columns, in key order.
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    /// The columns of the primary key, in key order.
    pub fn key_columns(&self) -> impl ExactSizeIterator<Item = &Column> + Clone {
        // Every position was checked when the schema was made, so the filter drops none.
        let columns: Vec<_> = self.key.iter().filter_map(|position| self.columns.get(*position)).collect();
        columns.into_iter()
    }

    /// The position of the column called `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// The positions of the columns outside the key, rising.
    pub(super) fn rest(&self) -> &[usize] {
        &self.rest
    }

    /// Whether values of `column`, if it is in the key, are preceded by a byte that tells nulls.
    pub(super) fn marks_nulls(&self, column: &Column) -> bool {
        self.nulls_in_key && column.nullable
    }

    /// This schema with more columns at its end. Rows written under this one can be read under the new one: where
    /// they have no value they get the default, or null.
    ///
    /// Fails with [`Error::Schema`] if a column is neither nullable nor has a default, if a name is taken, or over the
    /// limits.
    pub fn evolve(&self, added: impl IntoIterator<Item = Column>) -> Result<Self> {
        let mut columns = self.columns.clone();
        for column in added {
            if !column.nullable && column.default.is_none() {
                return Err(Error::Schema(format!(
                    "column {:?} has no value in the rows that exist; make it nullable or give it a default",
                    column.name
                )));
            }
            columns.push(column);
            check_count(columns.len())?;
        }
        Self::checked(columns, self.key.clone(), self.nulls_in_key)
    }

    /// Whether `newer` is this schema with columns added at its end.
    pub(super) fn is_evolved_by(&self, newer: &Self) -> bool {
        newer.columns.starts_with(&self.columns)
            && newer.key == self.key
            && newer.nulls_in_key == self.nulls_in_key
            && newer.columns.iter().skip(self.columns.len()).all(|c| c.nullable || c.default.is_some())
    }

    pub(super) fn checked(columns: Vec<Column>, key: Vec<usize>, nulls_in_key: bool) -> Result<Self> {
        check_count(columns.len())?;
        let mut names = HashSet::with_capacity(columns.len());
        for column in &columns {
            column.check_definition()?;
            if !names.insert(column.name.as_str()) {
                return Err(Error::Schema(format!(
                    "there are two columns {:?}; rename one of them",
                    column.name
                )));
            }
        }
        check_key(&columns, &key, nulls_in_key)?;
        let rest = (0..columns.len()).filter(|position| !key.contains(position)).collect();
        Ok(Self { columns, key, rest, nulls_in_key })
    }
}

fn check_count(columns: usize) -> Result<()> {
    if columns > COLUMNS_MAX {
        return Err(Error::Schema(format!(
            "{columns} columns are more than a table may have; {COLUMNS_MAX} is the limit"
        )));
    }
    Ok(())
}

fn check_key(columns: &[Column], key: &[usize], nulls_in_key: bool) -> Result<()> {
    if key.is_empty() {
        return Err(Error::Schema("the table has no primary key; name one or more of its columns".into()));
    }
    let mut seen = HashSet::with_capacity(key.len());
    for position in key {
        let Some(column) = columns.get(*position) else {
            return Err(Error::Schema(format!(
                "the primary key names column {position}, which does not exist"
            )));
        };
        if !seen.insert(*position) {
            return Err(Error::Schema(format!(
                "the primary key names column {:?} twice; name it once",
                column.name
            )));
        }
        if column.nullable && !nulls_in_key {
            return Err(Error::Schema(format!(
                "column {:?} is in the primary key and cannot be nullable; every row needs a key",
                column.name
            )));
        }
    }
    Ok(())
}

/// Makes a [`Schema`].
#[derive(Clone, Debug, Default)]
pub struct SchemaBuilder {
    columns: Vec<Column>,
    key: Vec<String>,
}

impl SchemaBuilder {
    /// Adds a column at the end.
    #[must_use]
    pub fn column(mut self, column: Column) -> Self {
        self.columns.push(column);
        self
    }

    /// Sets the primary key: names of columns, in key order.
    #[must_use]
    pub fn key<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.key = names.into_iter().map(Into::into).collect();
        self
    }

    /// The schema.
    ///
    /// Fails with [`Error::Schema`] if a name is bad or not unique, a default does not fit its column, the key is
    /// empty, names a column twice, an unknown or a nullable one, or there are more than [`COLUMNS_MAX`] columns; with
    /// [`Error::TooLarge`] if a default exceeds [`DEFAULT_BYTES_MAX`].
    pub fn build(self) -> Result<Schema> {
        let columns = self.columns;
        let key = self.key.into_iter().map(|name| {
            columns.iter().position(|column| column.name == name).ok_or_else(|| {
                let names: Vec<_> = columns.iter().take(20).map(|column| column.name.as_str()).collect();
                Error::Schema(format!(
                    "the primary key names a column {name:?} that does not exist; the columns are {}",
                    names.join(", ")
                ))
            })
        });
        let key = key.collect::<Result<_>>()?;
        Schema::checked(columns, key, false)
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
pub(super) mod tests;
