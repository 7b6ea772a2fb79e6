use std::io::Cursor;

use planaria_engine::{Column, ColumnType, Schema, Value};

use super::super::reader::{ReaderOptions, RecordReader};
use super::super::record::Record;
use super::super::sniff::sniff;
use super::super::source::Source;
use super::{RowParser, TypeChoice, schema_from};
use crate::output::CliError;

fn open(bytes: &[u8], null_text: &str) -> RecordReader {
    let options = ReaderOptions { null_text: null_text.into(), ..ReaderOptions::default() };
    RecordReader::new(Source::new(Cursor::new(bytes.to_vec()), None).unwrap(), &options).unwrap()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn guessed_schema(reader: &mut RecordReader, key: &[&str], choices: &[&str]) -> Result<Schema, CliError> {
    let records: Vec<_> = reader.sample(10_000).cloned().collect();
    let guesses = sniff(reader.columns().len(), &records);
    let choices: Vec<TypeChoice> = choices.iter().map(|choice| choice.parse().unwrap()).collect();
    schema_from(reader.columns(), &guesses, &names(key), &choices)
}

/// Reads all rows; the first error as it would be told.
fn rows(reader: &mut RecordReader, schema: &Schema) -> Result<Vec<Vec<Value>>, CliError> {
    let parser = RowParser::new(schema, reader.columns())?;
    let mut record = Record::default();
    let mut rows = Vec::new();
    while reader.read(&mut record)? {
        let mut values = Vec::new();
        parser.parse(&record, &mut values)?;
        rows.push(values);
    }
    Ok(rows)
}

#[test]
fn whole_real_tables_keep_the_types_of_their_beginning() {
    for (bytes, key, count) in [
        (&include_bytes!("../../data/weather.csv.gz")[..], &["origin", "time_hour"][..], 26_115),
        (include_bytes!("../../data/planes.csv.gz"), &["tailnum"], 3_322),
        (include_bytes!("../../data/airports.csv.gz"), &["faa"], 1_458),
        (include_bytes!("../../data/airlines.csv.gz"), &["carrier"], 16),
    ] {
        let mut reader = open(bytes, "NA");
        let schema = guessed_schema(&mut reader, key, &[]).unwrap();
        let rows = rows(&mut reader, &schema).unwrap();
        assert_eq!(rows.len(), count);
        let mut keys: Vec<_> =
            rows.iter().map(|row| planaria_engine::table::encode_key(&schema, row).unwrap()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }
}

#[test]
fn a_guess_that_fails_later_says_where_and_the_way_out() {
    let mut reader = open(b"id,code\n1,7\n2,8\n3,A9\n", "");
    let records: Vec<_> = reader.sample(2).cloned().collect();
    let guesses = sniff(2, &records);
    let schema = schema_from(reader.columns(), &guesses, &names(&["id"]), &[]).unwrap();
    let error = rows(&mut reader, &schema).unwrap_err();
    assert_eq!(error.code, "schema");
    assert!(error.what.starts_with("line 4: column \"code\": \"A9\" is not an int64"), "{}", error.what);
    assert!(error.hint.unwrap().contains("--type code=text"));
}

#[test]
fn a_spelling_of_null_is_recognised_in_the_hint() {
    let mut reader = open(b"id,code\n1,7\n2,NA\n", "");
    let schema = guessed_schema(&mut reader, &["id"], &["code=int64"]).unwrap();
    let error = rows(&mut reader, &schema).unwrap_err();
    assert!(error.hint.unwrap().contains("--null NA"));
}

#[test]
fn choices_override_guesses_and_the_key_is_not_nullable() {
    let mut reader = open(b"id,code,at\n1,7,2013-01-01\n2,,2013-01-02\n", "");
    let schema =
        guessed_schema(&mut reader, &["id"], &["code=text", "at=timestamp", "code=float64"]).unwrap();
    let shown: Vec<_> = schema.columns().iter().map(|c| (c.ty.name(), c.nullable)).collect();
    assert_eq!(shown, [("int64", false), ("float64", true), ("timestamp", true)]);
    let rows = rows(&mut reader, &schema).unwrap();
    assert_eq!(rows[1], [Value::Int(2), Value::Null, Value::Timestamp(1_357_084_800_000_000)]);
}

#[test]
fn wrong_keys_and_choices_are_wrong_use() {
    for (key, choices) in [(&[][..], &[][..]), (&["nope"], &[]), (&["id"], &["nope=text"])] {
        let error = guessed_schema(&mut open(b"id,b\n1,2\n", ""), key, choices).unwrap_err();
        assert_eq!(error.exit_status(), 2);
        assert!(error.hint.unwrap().contains("id, b"));
    }
    assert!("code".parse::<TypeChoice>().unwrap_err().contains("column=type"));
    assert!("code=varchar".parse::<TypeChoice>().unwrap_err().contains("float64"));
    let odd: TypeChoice = "a=b=date".parse().unwrap();
    assert_eq!(odd, TypeChoice { column: "a=b".into(), ty: ColumnType::Date });
}

#[test]
fn a_record_without_a_key_is_refused_by_line() {
    let mut reader = open(b"id,b\n1,2\n,3\n", "");
    let schema = guessed_schema(&mut reader, &["id"], &[]).unwrap();
    let error = rows(&mut reader, &schema).unwrap_err();
    assert!(error.what.starts_with("line 3: column \"id\": there is no value"), "{}", error.what);
}

#[test]
fn quoted_empty_texts_are_texts_and_nothing_elsewhere() {
    let schema = Schema::builder()
        .column(Column::new("id", ColumnType::Int64))
        .column(Column::new("t", ColumnType::Text).nullable())
        .column(Column::new("n", ColumnType::Int64).nullable())
        .key(["id"])
        .build()
        .unwrap();
    let mut reader = open(b"id,t,n\n\"1\",\"\",\"\"\n2,,\n", "");
    let rows = rows(&mut reader, &schema).unwrap();
    assert_eq!(rows[0], [Value::Int(1), "".into(), Value::Null]);
    assert_eq!(rows[1], [Value::Int(2), Value::Null, Value::Null]);
}

#[test]
fn an_existing_table_takes_its_columns_in_any_order_and_defaults_for_the_rest() {
    let schema = Schema::builder()
        .column(Column::new("id", ColumnType::Int64))
        .column(Column::new("note", ColumnType::Text).nullable().with_default("none"))
        .column(Column::new("must", ColumnType::Bool))
        .key(["id"])
        .build()
        .unwrap();
    let read = rows(&mut open(b"must,id\ntrue,1\n", ""), &schema).unwrap();
    assert_eq!(read, [vec![Value::Int(1), "none".into(), true.into()]]);
    let error = rows(&mut open(b"id\n1\n", ""), &schema).unwrap_err();
    assert!(error.what.contains("\"must\""), "{}", error.what);
    let error = rows(&mut open(b"id,must,more\n", ""), &schema).unwrap_err();
    assert!(error.what.contains("\"more\""), "{}", error.what);
    let mut json = open(b"{\"id\":1,\"must\":true}\n{\"id\":2,\"must\":false,\"note\":null}\n", "");
    assert_eq!(json.sample(10).count(), 2);
    let read = rows(&mut json, &schema).unwrap();
    assert_eq!(read[0][1], "none".into());
    assert_eq!(read[1][1], Value::Null);
}
