//! Keys on the command line: one argument for each column of the primary key, or one for a table of bytes.

use planaria_engine::table::{decode_key, encode_key_prefix};
use planaria_engine::{Schema, TableDef, TableKind, Value};

use crate::output::CliError;

/// The bytes of the key that `arguments` name in `table`.
///
/// Fails with the code `usage` unless there is one argument for each key column, each of that column's type.
pub(crate) fn parse_key(table: &TableDef, arguments: &[String]) -> Result<Vec<u8>, CliError> {
    let expected = key_len(table)?;
    if arguments.len() != expected {
        return Err(wrong_count(table, expected, arguments.len())?);
    }
    parse_key_prefix(table, arguments)
}

/// The bytes with which all keys begin whose first columns are `arguments`: what a scan starts from.
///
/// Fails with the code `usage` if there are more arguments than key columns, or one is not of its column's type.
pub(crate) fn parse_key_prefix(table: &TableDef, arguments: &[String]) -> Result<Vec<u8>, CliError> {
    let expected = key_len(table)?;
    if arguments.len() > expected {
        return Err(wrong_count(table, expected, arguments.len())?);
    }
    if !table.is_typed() {
        return arguments.first().map_or(Ok(Vec::new()), |text| parse_raw(text));
    }
    let (_, schema) = table.schema()?;
    let mut values = Vec::with_capacity(arguments.len());
    for (column, text) in schema.key_columns().zip(arguments) {
        let value = column
            .parse(text)
            .map_err(|error| CliError::usage(format!("{error}")).hint(key_form(table, schema)))?;
        values.push(value);
    }
    Ok(encode_key_prefix(schema, &values)?)
}

/// The arguments that [`parse_key`] reads back as `key`.
///
/// Fails if `key` is none of the table's.
pub(crate) fn format_key(table: &TableDef, key: &[u8]) -> Result<Vec<String>, CliError> {
    match table.kind {
        TableKind::Raw => Ok(vec![format_raw(key)]),
        TableKind::Typed { .. } => {
            let values = decode_key(table.schema()?.1, key)?;
            Ok(values.iter().map(Value::to_string).collect())
        }
    }
}

/// Bytes of a raw table as text: themselves where they are printable, else `0x` and hexadecimal digits.
pub(crate) fn format_raw(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.starts_with("0x") && !text.chars().any(char::is_control) => text.to_owned(),
        _ => Value::Bytes(bytes.to_vec()).to_string(),
    }
}

/// The bytes that [`format_raw`] shows as `text`.
///
/// Fails with the code `usage` if `text` begins with `0x` and no even number of hexadecimal digits follows.
pub(crate) fn parse_raw(text: &str) -> Result<Vec<u8>, CliError> {
    if !text.starts_with("0x") {
        return Ok(text.as_bytes().to_vec());
    }
    match Value::parse(planaria_engine::ColumnType::Bytes, text) {
        Ok(Value::Bytes(bytes)) => Ok(bytes),
        Ok(_) => Ok(text.as_bytes().to_vec()),
        Err(error) => Err(CliError::usage(error.to_string())
            .hint("text that begins with 0x is read as hexadecimal digits; write its bytes so, too")),
    }
}

fn key_len(table: &TableDef) -> Result<usize, CliError> {
    Ok(if table.is_typed() { table.schema()?.1.key().len() } else { 1 })
}

fn wrong_count(table: &TableDef, expected: usize, got: usize) -> Result<CliError, CliError> {
    let what = format!("the key of table {:?} has {expected} parts, but {got} are given", table.name);
    let hint = if table.is_typed() {
        key_form(table, table.schema()?.1)
    } else {
        format!("write it as: {} KEY", table.name)
    };
    Ok(CliError::usage(what).hint(hint))
}

fn key_form(table: &TableDef, schema: &Schema) -> String {
    let parts: Vec<_> = schema.key_columns().map(|column| format!("{}:{}", column.name, column.ty)).collect();
    format!("write it as: {} {}", table.name, parts.join(" "))
}

#[cfg(test)]
mod tests {
    use planaria_engine::{Column, ColumnType, Schema, TableDef};

    use super::{format_key, format_raw, parse_key, parse_key_prefix, parse_raw};

    fn weather() -> TableDef {
        let schema = Schema::builder()
            .column(Column::new("origin", ColumnType::Text))
            .column(Column::new("temp", ColumnType::Float64).nullable())
            .column(Column::new("time_hour", ColumnType::Timestamp))
            .key(["origin", "time_hour"])
            .build()
            .unwrap();
        TableDef::typed(planaria_types::TableId(1), "weather", schema).unwrap()
    }

    fn arguments(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_key_survives_its_arguments() {
        let given = arguments(&["EWR", "2013-01-01T06:00:00Z"]);
        let key = parse_key(&weather(), &given).unwrap();
        assert_eq!(format_key(&weather(), &key).unwrap(), given);
        let prefix = parse_key_prefix(&weather(), &given[..1]).unwrap();
        assert!(key.starts_with(&prefix));
        assert!(parse_key_prefix(&weather(), &[]).unwrap().is_empty());
        assert!(format_key(&weather(), b"x").is_err());
    }

    #[test]
    fn a_wrong_key_says_how_it_is_written() {
        let error = parse_key(&weather(), &arguments(&["EWR"])).unwrap_err();
        assert_eq!((error.code.as_ref(), error.exit_status()), ("usage", 2));
        assert_eq!(error.hint.unwrap(), "write it as: weather origin:text time_hour:timestamp");
        let error = parse_key(&weather(), &arguments(&["EWR", "noon"])).unwrap_err();
        assert!(error.what.contains("time_hour") && error.what.contains("noon"), "{}", error.what);
        assert!(parse_key_prefix(&weather(), &arguments(&["a", "b", "c"])).is_err());
    }

    #[test]
    fn keys_of_bytes_are_text_where_they_can_be() {
        let raw = TableDef::raw(planaria_types::TableId(2), "blobs").unwrap();
        for (bytes, text) in [(&b"plain"[..], "plain"), (b"", ""), (b"\0\xff", "0x00ff"), (b"0x", "0x3078")] {
            assert_eq!(format_raw(bytes), text);
            assert_eq!(parse_raw(text).unwrap(), bytes);
            assert_eq!(parse_key(&raw, &arguments(&[text])).unwrap(), bytes);
        }
        assert_eq!(parse_raw("0xgg").unwrap_err().code, "usage");
        assert!(parse_key(&raw, &[]).is_err());
    }
}
