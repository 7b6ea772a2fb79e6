//! Keys: bytes whose order is the order of the key columns' values, one after the other.
//!
//! Every value says itself where it ends, so that the encoding of the first columns of a key is a prefix of the whole.

use super::schema::{Column, Schema};
use super::value::{ColumnType, Value, from_ordered_bits, ordered_bits};
use super::value_text::shorten;
use crate::error::{Error, Result};

/// Ends a text or bytes value: two bytes below every continuation.
const END: [u8; 2] = [0x00, 0x01];
/// Stands for a zero byte within a text or bytes value.
const ESCAPED_ZERO: [u8; 2] = [0x00, 0xff];
/// In indexes, where a nullable column may be in a key: no value.
const NULL_MARK: u8 = 0;
/// In indexes, before the value of a nullable column.
const PRESENT_MARK: u8 = 1;

const SIGN_64: u64 = 1 << 63;
const SIGN_32: u32 = 1 << 31;

/// The key of a row: `values` are those of all columns, in the order of the schema.
///
/// Fails with [`Error::Schema`] if the number of values or a key value does not fit.
pub fn encode_key(schema: &Schema, values: &[Value]) -> Result<Vec<u8>> {
    check_value_count(schema, values)?;
    let mut out = Vec::with_capacity(16 * schema.key().len());
    for (position, column) in schema.key().iter().zip(schema.key_columns()) {
        put_column(&mut out, schema, column, values.get(*position).unwrap_or(&Value::Null))?;
    }
    Ok(out)
}

/// The beginning that all keys have in common whose first columns hold `key_values`, for scans; with a value for every
/// key column, the whole key.
///
/// Fails with [`Error::Schema`] if there are more values than key columns or one does not fit.
pub fn encode_key_prefix(schema: &Schema, key_values: &[Value]) -> Result<Vec<u8>> {
    if key_values.len() > schema.key().len() {
        return Err(Error::Schema(format!(
            "{} values are given for a key of {} columns; leave out the last",
            key_values.len(),
            schema.key().len()
        )));
    }
    let mut out = Vec::with_capacity(16 * key_values.len());
    for (value, column) in key_values.iter().zip(schema.key_columns()) {
        put_column(&mut out, schema, column, value)?;
    }
    Ok(out)
}

/// The values of the key columns, in key order.
///
/// Fails with [`Error::Invalid`] unless `key` is exactly what [`encode_key`] makes of some values.
pub fn decode_key(schema: &Schema, key: &[u8]) -> Result<Vec<Value>> {
    let mut rest = key;
    let mut values = Vec::with_capacity(schema.key().len());
    for column in schema.key_columns() {
        let value = take_column(&mut rest, schema, column);
        values.push(value.ok_or_else(|| bad_key(key, &column.name))?);
    }
    if rest.is_empty() { Ok(values) } else { Err(bad_key(key, "after the last")) }
}

/// Fails unless there is one value per column.
pub(super) fn check_value_count(schema: &Schema, values: &[Value]) -> Result<()> {
    if values.len() == schema.columns().len() {
        return Ok(());
    }
    Err(Error::Schema(format!(
        "a row of {} values does not fit a table of {} columns; give one value, or null, for each",
        values.len(),
        schema.columns().len()
    )))
}

fn bad_key(key: &[u8], column: &str) -> Error {
    Error::Invalid(format!(
        "key {} does not fit the table's schema (column {column:?}); the record was written for another table, or is damaged",
        shorten(&key.escape_ascii().to_string())
    ))
}

fn put_column(out: &mut Vec<u8>, schema: &Schema, column: &Column, value: &Value) -> Result<()> {
    if schema.marks_nulls(column) {
        out.push(if value.is_null() { NULL_MARK } else { PRESENT_MARK });
    }
    column.check(value)?;
    put_value(out, value);
    Ok(())
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => {}
        Value::Bool(value) => out.push(u8::from(*value)),
        Value::Int(value) | Value::Timestamp(value) => {
            out.extend_from_slice(&(*value as u64 ^ SIGN_64).to_be_bytes());
        }
        Value::Float(value) => out.extend_from_slice(&ordered_bits(*value).to_be_bytes()),
        Value::Date(value) => out.extend_from_slice(&(*value as u32 ^ SIGN_32).to_be_bytes()),
        Value::Text(value) => put_escaped(out, value.as_bytes()),
        Value::Bytes(value) => put_escaped(out, value),
    }
}

fn put_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + END.len());
    let mut parts = bytes.split(|byte| *byte == 0);
    if let Some(first) = parts.next() {
        out.extend_from_slice(first);
    }
    for part in parts {
        out.extend_from_slice(&ESCAPED_ZERO);
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&END);
}

fn take_column(rest: &mut &[u8], schema: &Schema, column: &Column) -> Option<Value> {
    if schema.marks_nulls(column) {
        match u8::from_be_bytes(take_array(rest)?) {
            NULL_MARK => return Some(Value::Null),
            PRESENT_MARK => {}
            _ => return None,
        }
    }
    take_value(rest, column.ty)
}

fn take_value(rest: &mut &[u8], ty: ColumnType) -> Option<Value> {
    Some(match ty {
        ColumnType::Bool => match take_array(rest)? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            _ => return None,
        },
        ColumnType::Int64 => Value::Int(take_signed(rest)?),
        ColumnType::Timestamp => Value::Timestamp(take_signed(rest)?),
        ColumnType::Float64 => {
            let ordered = u64::from_be_bytes(take_array(rest)?);
            let number = from_ordered_bits(ordered);
            // Only one of the patterns of NaN, and of zero, is ever written.
            if ordered_bits(number) != ordered {
                return None;
            }
            Value::Float(number)
        }
        ColumnType::Date => Value::Date((u32::from_be_bytes(take_array(rest)?) ^ SIGN_32) as i32),
        ColumnType::Text => Value::Text(String::from_utf8(take_escaped(rest)?).ok()?),
        ColumnType::Bytes => Value::Bytes(take_escaped(rest)?),
    })
}

fn take_signed(rest: &mut &[u8]) -> Option<i64> {
    Some((u64::from_be_bytes(take_array(rest)?) ^ SIGN_64) as i64)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (array, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*array)
}

fn take_escaped(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        let zero = rest.iter().position(|byte| *byte == 0)?;
        bytes.extend_from_slice(rest.get(..zero)?);
        let after = rest.get(zero + 2..)?;
        let pair = [0, *rest.get(zero + 1)?];
        *rest = after;
        match pair {
            END => return Some(bytes),
            ESCAPED_ZERO => bytes.push(0),
            _ => return None,
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "key_tests.rs"]
mod tests;
