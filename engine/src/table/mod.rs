//! Typed tables: values, schemas, order-preserving keys and rows.
//!
//! Nothing here knows how records are stored. A table's definition turns values into the bytes of a key and a row,
//! and back; `docs/FORMAT.md` has the bytes.

mod civil;
mod definition;
mod index;
mod key;
mod row;
mod schema;
mod value;
mod value_text;
mod varint;

pub use definition::{SCHEMA_VERSIONS_MAX, TABLE_NAME_BYTES_MAX, TableDef, TableKind};
pub use key::{decode_key, encode_key, encode_key_prefix};
pub use row::{decode, encode};
pub use schema::{COLUMN_NAME_BYTES_MAX, COLUMNS_MAX, Column, DEFAULT_BYTES_MAX, Schema, SchemaBuilder};
pub use value::{ColumnType, Value};
pub use value_text::ParseValueError;
