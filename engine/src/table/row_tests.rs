use planaria_types::TableId;
use proptest::prelude::*;

use super::{decode, encode};
use crate::table::schema::tests::{any_table, weather};
use crate::table::{Column, ColumnType, Schema, TableDef, Value};

fn table(schema: &Schema) -> TableDef {
    TableDef::typed(TableId(1), "t", schema.clone()).unwrap()
}

/// The row's bytes of one value behind a key.
fn row_of(value: Value) -> Vec<u8> {
    let schema = Schema::builder()
        .column(Column::new("k", ColumnType::Bool))
        .column(Column::new("v", value.column_type().unwrap()))
        .key(["k"])
        .build()
        .unwrap();
    let values = [Value::Bool(true), value];
    let (key, row) = encode(&schema, 1, &values).unwrap();
    assert_eq!(decode(&table(&schema), &key, &row).unwrap(), values);
    row
}

#[test]
fn the_bytes_of_each_type_never_change() {
    assert_eq!(row_of(Value::Bool(true)), [1, 0, 1]);
    assert_eq!(row_of(Value::Int(-3)), [1, 0, 5]);
    assert_eq!(row_of(Value::Int(200)), [1, 0, 0x90, 3]);
    assert_eq!(row_of(Value::Float(1.5)), [1, 0, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f]);
    assert_eq!(row_of(Value::Float(-0.0)), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0x80]);
    assert_eq!(row_of(Value::Text("é".into())), [1, 0, 2, 0xc3, 0xa9]);
    assert_eq!(row_of(Value::Bytes(vec![0, 255])), [1, 0, 2, 0, 255]);
    assert_eq!(row_of(Value::Timestamp(1_000_000)), [1, 0, 0x80, 0x89, 0x7a]);
    assert_eq!(row_of(Value::Date(-1)), [1, 0, 1]);
}

#[test]
fn a_row_holds_what_the_key_does_not() {
    let values = ["EWR".into(), Value::Null, Value::Int(270), Value::Timestamp(7)];
    let (key, row) = encode(&weather(), 1, &values).unwrap();
    assert_eq!(key, b"EWR\0\x01\x80\0\0\0\0\0\0\x07");
    assert_eq!(row, [1, 0b01, 0x9c, 4]);
    assert_eq!(decode(&table(&weather()), &key, &row).unwrap(), values);
}

#[test]
fn old_rows_take_the_defaults_of_columns_added_since() {
    let mut table = table(&weather());
    let old = ["EWR".into(), Value::Float(39.02), Value::Null, Value::Timestamp(7)];
    let (key, row) = encode(&weather(), 1, &old).unwrap();
    let id = table
        .evolve([
            Column::new("visib", ColumnType::Float64).nullable(),
            Column::new("station", ColumnType::Text).with_default("unknown"),
        ])
        .unwrap();
    let mut expected = old.to_vec();
    expected.extend([Value::Null, "unknown".into()]);
    assert_eq!(decode(&table, &key, &row).unwrap(), expected);
    let new = [&old[..], &[Value::Float(10.0), "EWR-1".into()]].concat();
    let (key, row) = encode(table.schema().unwrap().1, id, &new).unwrap();
    assert_eq!(decode(&table, &key, &row).unwrap(), new);
    let error = decode(&self::table(&weather()), &key, &row).unwrap_err();
    assert!(error.to_string().contains("newer copy"), "{error}");
}

#[test]
fn values_that_do_not_fit_are_refused_by_column() {
    let schema = weather();
    let message = |values: &[Value]| {
        let error = encode(&schema, 1, values).unwrap_err();
        assert_eq!(error.code(), "schema");
        error.to_string()
    };
    let hour = Value::Timestamp(7);
    assert!(message(&["EWR".into(), Value::Null, Value::Null]).contains("4 columns"));
    assert!(message(&["EWR".into(), "warm".into(), Value::Null, hour.clone()]).contains("\"temp\""));
    assert!(message(&[Value::Null, Value::Null, Value::Null, hour]).contains("\"origin\""));
    assert!(message(&["EWR".into(), Value::Null, Value::Null, Value::Int(7)]).contains("timestamp"));
}

#[test]
fn damaged_rows_are_refused() {
    let schema = Schema::builder()
        .column(Column::new("k", ColumnType::Bool))
        .column(Column::new("must", ColumnType::Text))
        .column(Column::new("may", ColumnType::Float64).nullable())
        .key(["k"])
        .build()
        .unwrap();
    let table = table(&schema);
    let (key, row) = encode(&schema, 1, &[true.into(), "abc".into(), 1.0.into()]).unwrap();
    let refused = |row: &[u8]| {
        let error = decode(&table, &key, row).unwrap_err();
        assert_eq!(error.code(), "invalid", "{row:?}");
    };
    for end in 0..row.len() {
        refused(&row[..end]);
    }
    refused(&[row.as_slice(), &[0]].concat());
    refused(&[&[2], &row[1..]].concat());
    refused(&[&[0], &row[1..]].concat());
    refused(&[1, 0b01]);
    refused(&[1, 0b110, 0]);
    refused(&[1, 0b10, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    refused(&[1, 0b10, 1, 0xff]);
    refused(&[1, 0b00, 0, 1, 0, 0, 0, 0, 0, 0xf8, 0x7f]);
    assert!(decode(&table, &[2], &row).is_err());
}

proptest! {
    #[test]
    fn rows_survive((schema, rows) in any_table(1)) {
        let (key, row) = encode(&schema, 1, &rows[0]).unwrap();
        prop_assert_eq!(&decode(&table(&schema), &key, &row).unwrap(), &rows[0]);
    }

    #[test]
    fn any_bytes_are_a_row_or_an_error(
        (schema, rows) in any_table(1),
        mut bytes in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let (key, _) = encode(&schema, 1, &rows[0]).unwrap();
        bytes[0] = 1;
        if let Ok(values) = decode(&table(&schema), &key, &bytes) {
            prop_assert_eq!(encode(&schema, 1, &values).unwrap(), (key, bytes));
        }
    }
}
