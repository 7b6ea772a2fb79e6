use proptest::prelude::*;

use super::{COLUMNS_MAX, Column, Schema};
use crate::table::{ColumnType, Value};

/// Any value of a type.
pub(in crate::table) fn any_value_of(ty: ColumnType) -> BoxedStrategy<Value> {
    match ty {
        ColumnType::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        ColumnType::Int64 => {
            prop_oneof![any::<i64>(), -3..3_i64, Just(i64::MIN), Just(i64::MAX)].prop_map(Value::Int).boxed()
        }
        ColumnType::Float64 => prop_oneof![
            any::<u64>().prop_map(f64::from_bits),
            -2.0..2.0_f64,
            Just(0.0),
            Just(-0.0),
            Just(f64::NAN),
            Just(f64::INFINITY)
        ]
        .prop_map(Value::Float)
        .boxed(),
        ColumnType::Text => prop_oneof![".{0,12}", "[\0\u{1}a]{0,5}"].prop_map(Value::Text).boxed(),
        ColumnType::Bytes => {
            let byte = prop_oneof![Just(0_u8), Just(1), Just(255), any::<u8>()];
            prop::collection::vec(byte, 0..8).prop_map(Value::Bytes).boxed()
        }
        ColumnType::Timestamp => prop_oneof![any::<i64>(), 0..1_i64 << 51].prop_map(Value::Timestamp).boxed(),
        ColumnType::Date => prop_oneof![any::<i32>(), 0..20_000].prop_map(Value::Date).boxed(),
    }
}

/// Any type.
pub(in crate::table) fn any_type() -> impl Strategy<Value = ColumnType> {
    prop::sample::select(ColumnType::ALL.to_vec())
}

/// Any value but null.
pub(in crate::table) fn any_value() -> impl Strategy<Value = Value> {
    any_type().prop_flat_map(any_value_of)
}

/// A schema of up to eight columns with a key of up to three, in any order, and rows that fit it.
pub(in crate::table) fn any_table(rows: usize) -> impl Strategy<Value = (Schema, Vec<Vec<Value>>)> {
    let column = (any_type(), any::<bool>());
    (prop::collection::vec(column, 1..9), 1..4_usize)
        .prop_flat_map(|(columns, key_len)| {
            let positions: Vec<usize> = (0..columns.len()).collect();
            let key = prop::sample::subsequence(positions, 1..=key_len.min(columns.len())).prop_shuffle();
            (Just(columns), key)
        })
        .prop_flat_map(move |(columns, key)| {
            let columns: Vec<Column> = columns
                .into_iter()
                .enumerate()
                .map(|(position, (ty, nullable))| {
                    let column = Column::new(format!("c{position}"), ty);
                    if nullable && !key.contains(&position) { column.nullable() } else { column }
                })
                .collect();
            let row: Vec<_> = columns
                .iter()
                .map(|column| {
                    if column.nullable {
                        prop_oneof![1 => Just(Value::Null), 3 => any_value_of(column.ty)].boxed()
                    } else {
                        any_value_of(column.ty)
                    }
                })
                .collect();
            let schema = Schema::checked(columns, key, false).unwrap();
            (Just(schema), prop::collection::vec(row, rows))
        })
}

/// The schema of the real weather table, shortened.
pub(in crate::table) fn weather() -> Schema {
    Schema::builder()
        .column(Column::new("origin", ColumnType::Text))
        .column(Column::new("temp", ColumnType::Float64).nullable())
        .column(Column::new("wind_dir", ColumnType::Int64).nullable())
        .column(Column::new("time_hour", ColumnType::Timestamp))
        .key(["origin", "time_hour"])
        .build()
        .unwrap()
}

fn message(built: crate::Result<Schema>) -> String {
    let error = built.unwrap_err();
    assert_eq!(error.code(), "schema");
    error.to_string()
}

#[test]
fn a_schema_knows_its_key() {
    let schema = weather();
    assert_eq!(schema.key(), [0, 3]);
    assert_eq!(schema.rest(), [1, 2]);
    assert_eq!(schema.position("wind_dir"), Some(2));
    let names: Vec<_> = schema.key_columns().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["origin", "time_hour"]);
}

#[test]
fn bad_schemas_are_refused_by_name() {
    let one = || Schema::builder().column(Column::new("a", ColumnType::Int64));
    assert!(message(one().build()).contains("no primary key"));
    assert!(message(one().key(["b"]).build()).contains("the columns are a"));
    assert!(message(one().key(["a", "a"]).build()).contains("twice"));
    assert!(
        message(one().column(Column::new("a", ColumnType::Bool)).key(["a"]).build()).contains("two columns")
    );
    let nullable = Schema::builder().column(Column::new("a", ColumnType::Int64).nullable()).key(["a"]);
    assert!(message(nullable.build()).contains("nullable"));
    for name in ["", "a\nb", &"x".repeat(129)] {
        let named = one().column(Column::new(name, ColumnType::Bool)).key(["a"]);
        assert!(message(named.build()).contains("1 to 128 bytes"));
    }
    let defaulted =
        |default: Value| one().column(Column::new("d", ColumnType::Text).with_default(default)).key(["a"]);
    assert!(message(defaulted(Value::Int(1)).build()).contains("convert it"));
    assert!(message(defaulted(Value::Null).build()).contains("null for a default"));
    assert_eq!(defaulted(Value::Text("x".repeat(5_000))).build().unwrap_err().code(), "too_large");
    assert!(defaulted(Value::Text("x".into())).build().is_ok());
}

#[test]
fn the_number_of_columns_is_limited() {
    let wide = |count: usize| {
        let columns = (0..count).map(|n| Column::new(format!("c{n}"), ColumnType::Bool));
        columns.fold(Schema::builder(), super::SchemaBuilder::column).key(["c0"])
    };
    let widest = wide(COLUMNS_MAX).build().unwrap();
    assert!(message(wide(COLUMNS_MAX + 1).build()).contains("1024"));
    assert!(message(widest.evolve([Column::new("more", ColumnType::Bool).nullable()])).contains("1024"));
}

#[test]
fn evolution_only_adds_what_old_rows_can_do_without() {
    let schema = weather();
    let newer = schema
        .evolve([
            Column::new("visib", ColumnType::Float64).nullable(),
            Column::new("station", ColumnType::Text).with_default("unknown"),
        ])
        .unwrap();
    assert!(schema.is_evolved_by(&newer));
    assert!(!newer.is_evolved_by(&schema));
    assert!(message(schema.evolve([Column::new("bad", ColumnType::Text)])).contains("default"));
    assert!(
        message(schema.evolve([Column::new("temp", ColumnType::Text).nullable()])).contains("two columns")
    );
}

#[test]
fn a_column_says_what_does_not_fit() {
    let column = Column::new("year", ColumnType::Int64);
    assert_eq!(column.parse("2013").unwrap(), Value::Int(2013));
    let error = column.parse("NA").unwrap_err().to_string();
    assert!(error.contains("\"year\"") && error.contains("\"NA\"") && error.contains("int64"), "{error}");
    assert!(column.check(&Value::Null).unwrap_err().to_string().contains("nullable"));
    let error = column.check(&Value::Text("x".into())).unwrap_err().to_string();
    assert!(error.contains("int64") && error.contains("text"), "{error}");
}
