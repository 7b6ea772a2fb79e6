use proptest::prelude::*;

use super::{decode_key, encode_key, encode_key_prefix};
use crate::table::schema::tests::{any_table, any_type, any_value_of, weather};
use crate::table::{Column, ColumnType, Schema, Value};

fn single(ty: ColumnType) -> Schema {
    Schema::builder().column(Column::new("k", ty)).key(["k"]).build().unwrap()
}

fn key_of(value: Value) -> Vec<u8> {
    encode_key(&single(value.column_type().unwrap()), &[value]).unwrap()
}

fn key_values(schema: &Schema, row: &[Value]) -> Vec<Value> {
    schema.key().iter().map(|position| row[*position].clone()).collect()
}

#[test]
fn the_bytes_of_each_type_never_change() {
    assert_eq!(key_of(Value::Bool(true)), [1]);
    assert_eq!(key_of(Value::Int(1)), [0x80, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!(key_of(Value::Int(-1)), [0x7f, 255, 255, 255, 255, 255, 255, 255]);
    assert_eq!(key_of(Value::Float(1.5)), [0xbf, 0xf8, 0, 0, 0, 0, 0, 0]);
    assert_eq!(key_of(Value::Float(-1.5)), [0x40, 0x07, 255, 255, 255, 255, 255, 255]);
    assert_eq!(key_of(Value::Float(-0.0)), [0x80, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(key_of(Value::Float(-f64::NAN)), [0xff, 0xf8, 0, 0, 0, 0, 0, 0]);
    assert_eq!(key_of(Value::Text("JFK".into())), *b"JFK\0\x01");
    assert_eq!(key_of(Value::Bytes(vec![0, 1])), [0, 0xff, 1, 0, 1]);
    assert_eq!(key_of(Value::Timestamp(1_357_034_400_000_000)), [0x80, 4, 0xd2, 0x37, 0x31, 0x5c, 0x28, 0]);
    assert_eq!(key_of(Value::Date(15_706)), [0x80, 0, 0x3d, 0x5a]);
}

#[test]
fn a_prefix_of_a_key_is_the_key_of_its_first_columns() {
    let schema = weather();
    let row = [Value::from("EWR"), Value::Null, Value::Null, Value::Timestamp(7)];
    let key = encode_key(&schema, &row).unwrap();
    let prefix = encode_key_prefix(&schema, &[Value::from("EWR")]).unwrap();
    assert!(key.starts_with(&prefix));
    let longer =
        encode_key(&schema, &["EWR2".into(), Value::Null, Value::Null, Value::Timestamp(0)]).unwrap();
    assert!(!longer.starts_with(&prefix));
    assert_eq!(encode_key_prefix(&schema, &[Value::from("EWR"), Value::Timestamp(7)]).unwrap(), key);
    assert!(encode_key_prefix(&schema, &[]).unwrap().is_empty());
    let three = [Value::from("EWR"), Value::Timestamp(7), Value::Int(1)];
    assert_eq!(encode_key_prefix(&schema, &three).unwrap_err().code(), "schema");
    assert_eq!(encode_key_prefix(&schema, &[Value::Int(1)]).unwrap_err().code(), "schema");
}

#[test]
fn keys_of_other_tables_are_refused() {
    let schema = weather();
    let key =
        encode_key(&schema, &[Value::from("EWR"), Value::Null, Value::Null, Value::Timestamp(7)]).unwrap();
    for end in 0..key.len() {
        assert_eq!(decode_key(&schema, &key[..end]).unwrap_err().code(), "invalid");
    }
    assert!(decode_key(&schema, &[key.as_slice(), &[0]].concat()).is_err());
    assert!(decode_key(&single(ColumnType::Text), b"a\0\x02").is_err());
    assert!(decode_key(&single(ColumnType::Text), b"\xff\0\x01").is_err());
    assert!(decode_key(&single(ColumnType::Bool), &[2]).is_err());
    assert!(decode_key(&single(ColumnType::Float64), &[255; 8]).is_err());
    assert!(decode_key(&single(ColumnType::Float64), &[0x7f, 255, 255, 255, 255, 255, 255, 255]).is_err());
}

proptest! {
    #[test]
    fn keys_order_as_their_values((schema, rows) in any_table(2)) {
        let keys: Vec<_> = rows.iter().map(|row| encode_key(&schema, row).unwrap()).collect();
        let values: Vec<_> = rows.iter().map(|row| key_values(&schema, row)).collect();
        prop_assert_eq!(keys[0].cmp(&keys[1]), values[0].cmp(&values[1]));
        prop_assert_eq!(&decode_key(&schema, &keys[0]).unwrap(), &values[0]);
    }

    #[test]
    fn single_keys_order_as_their_values(
        pair in any_type().prop_flat_map(|ty| (any_value_of(ty), any_value_of(ty)))
    ) {
        prop_assert_eq!(key_of(pair.0.clone()).cmp(&key_of(pair.1.clone())), pair.0.cmp(&pair.1));
    }

    #[test]
    fn any_bytes_are_a_key_or_an_error((schema, _) in any_table(0), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(values) = decode_key(&schema, &bytes) {
            prop_assert_eq!(encode_key_prefix(&schema, &values).unwrap(), bytes);
        }
    }
}
