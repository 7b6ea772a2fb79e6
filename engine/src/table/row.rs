//! Rows: the schema's id, which values are null, and the values of the columns outside the key.

use super::definition::TableDef;
use super::key::{check_value_count, decode_key, encode_key};
use super::schema::Schema;
use super::value::{ColumnType, Value, canonical_bits};
use super::varint;
use crate::error::{Error, Result};

/// The key and the row of `values`, one for each column of the schema, in its order.
///
/// Fails with [`Error::Schema`], naming the column, if a value does not fit.
pub fn encode(schema: &Schema, schema_id: u32, values: &[Value]) -> Result<(Vec<u8>, Vec<u8>)> {
    let key = encode_key(schema, values)?;
    Ok((key, encode_row(schema, schema_id, values)?))
}

/// The values of a record of `table`, one for each column of its newest schema, in its order. Where the row was
/// written under an older schema, columns added since have their default, or null.
///
/// Fails with [`Error::Schema`] if the table is not typed, and with [`Error::Invalid`] unless the bytes are what
/// [`encode`] makes under one of the table's schemas.
pub fn decode(table: &TableDef, key: &[u8], row: &[u8]) -> Result<Vec<Value>> {
    let (_, newest) = table.schema()?;
    let mut rest = row;
    let schema_id = varint::take(&mut rest).ok_or_else(|| bad_row(table, "its schema id"))?;
    let written = u32::try_from(schema_id).ok().and_then(|id| table.schema_by_id(id)).ok_or_else(|| {
        Error::Invalid(format!(
            "a row of table {:?} has schema {schema_id}, which this copy does not know; it was written by a newer copy, or is damaged",
            table.name
        ))
    })?;
    let mut values = missing_values(written, newest);
    for (position, value) in written.key().iter().zip(decode_key(written, key)?) {
        if let Some(place) = values.get_mut(*position) {
            *place = value;
        }
    }
    take_values(table, written, rest, &mut values)?;
    Ok(values)
}

fn encode_row(schema: &Schema, schema_id: u32, values: &[Value]) -> Result<Vec<u8>> {
    check_value_count(schema, values)?;
    let bitmap_len = schema.rest().len().div_ceil(8);
    let mut out = Vec::with_capacity(5 + bitmap_len + 9 * schema.rest().len());
    varint::put(&mut out, u64::from(schema_id));
    let bitmap_start = out.len();
    out.resize(bitmap_start + bitmap_len, 0);
    for (index, position) in schema.rest().iter().enumerate() {
        let (Some(column), Some(value)) = (schema.columns().get(*position), values.get(*position)) else {
            continue;
        };
        column.check(value)?;
        if let (true, Some(byte)) = (value.is_null(), out.get_mut(bitmap_start + index / 8)) {
            *byte |= 1 << (index % 8);
        }
        put_value(&mut out, value);
    }
    Ok(out)
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => {}
        Value::Bool(value) => out.push(u8::from(*value)),
        Value::Int(value) | Value::Timestamp(value) => varint::put(out, varint::zigzag(*value)),
        Value::Date(value) => varint::put(out, varint::zigzag(i64::from(*value))),
        Value::Float(value) => out.extend_from_slice(&canonical_bits(*value).to_le_bytes()),
        Value::Text(value) => put_bytes(out, value.as_bytes()),
        Value::Bytes(value) => put_bytes(out, value),
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A place for each value of a row under the newest schema; those that `written` lacks are filled in.
fn missing_values(written: &Schema, newest: &Schema) -> Vec<Value> {
    let known = written.columns().len();
    let mut values = vec![Value::Null; known];
    values.extend(newest.columns().iter().skip(known).map(super::schema::Column::missing_value));
    values
}

fn take_values(table: &TableDef, written: &Schema, row: &[u8], values: &mut [Value]) -> Result<()> {
    let columns = written.rest();
    let bitmap_len = columns.len().div_ceil(8);
    let (bitmap, mut rest) =
        row.split_at_checked(bitmap_len).ok_or_else(|| bad_row(table, "its null bitmap"))?;
    let is_null = |index: usize| bitmap.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1);
    for (index, position) in columns.iter().enumerate() {
        let (Some(column), Some(place)) = (written.columns().get(*position), values.get_mut(*position))
        else {
            continue;
        };
        if is_null(index) {
            if !column.nullable {
                return Err(bad_row(table, &format!("column {:?}, which cannot be null", column.name)));
            }
        } else {
            *place = take_value(&mut rest, column.ty)
                .ok_or_else(|| bad_row(table, &format!("column {:?}", column.name)))?;
        }
    }
    if (columns.len()..bitmap_len * 8).any(is_null) {
        return Err(bad_row(table, "its null bitmap"));
    }
    if rest.is_empty() { Ok(()) } else { Err(bad_row(table, "bytes after its last column")) }
}

fn take_value(rest: &mut &[u8], ty: ColumnType) -> Option<Value> {
    Some(match ty {
        ColumnType::Bool => match take_exactly(rest, 1)? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            _ => return None,
        },
        ColumnType::Int64 => Value::Int(varint::unzigzag(varint::take(rest)?)),
        ColumnType::Timestamp => Value::Timestamp(varint::unzigzag(varint::take(rest)?)),
        ColumnType::Date => Value::Date(i32::try_from(varint::unzigzag(varint::take(rest)?)).ok()?),
        ColumnType::Float64 => {
            let bits = u64::from_le_bytes(take_exactly(rest, 8)?.try_into().ok()?);
            let number = f64::from_bits(bits);
            // Only one of the patterns of NaN is ever written.
            if canonical_bits(number) != bits {
                return None;
            }
            Value::Float(number)
        }
        ColumnType::Text => Value::Text(std::str::from_utf8(take_bytes(rest)?).ok()?.to_owned()),
        ColumnType::Bytes => Value::Bytes(take_bytes(rest)?.to_vec()),
    })
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint::take(rest)?).ok()?;
    take_exactly(rest, len)
}

fn take_exactly<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(taken)
}

fn bad_row(table: &TableDef, what: &str) -> Error {
    Error::Invalid(format!(
        "a row of table {:?} does not fit its schema: {what}; it was written for another table, or is damaged",
        table.name
    ))
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "row_tests.rs"]
mod tests;
