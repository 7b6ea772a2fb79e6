//! The crate `csv` beside our parser: what it accepts without a word, and that both agree on what is right. The reasons
//! are in `docs/decisions/0004-csv-reader.md`.

use std::io::Cursor;

use super::super::reader::{ReaderOptions, RecordReader};
use super::super::record::{Field, Record};
use super::super::source::Source;

/// The records of the crate, as its fields; it is as strict as it can be told to be.
fn theirs(text: &str) -> Result<Vec<Vec<String>>, String> {
    let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(text.as_bytes());
    let records = reader.records().map(|record| {
        record.map(|record| record.iter().map(str::to_owned).collect()).map_err(|error| error.to_string())
    });
    records.collect()
}

fn ours(text: &str) -> Result<Vec<Vec<String>>, String> {
    let source = Source::new(Cursor::new(text.to_owned()), None).unwrap();
    let mut reader = RecordReader::new(source, &ReaderOptions::default()).map_err(|error| error.what)?;
    let mut record = Record::default();
    let mut all = Vec::new();
    while reader.read(&mut record).map_err(|error| error.error.what)? {
        let text = |field: Field<'_>| match field {
            Field::Missing | Field::Null => String::new(),
            Field::Plain(text) | Field::Quoted(text) | Field::Text(text) => text.to_owned(),
        };
        all.push(record.fields().map(text).collect());
    }
    Ok(all)
}

#[test]
fn the_crate_accepts_what_is_an_error_here() {
    for (text, accepted) in [
        // A quote inside a field that is not quoted.
        ("a,b\n1,x\"y\n", &[["1", "x\"y"]][..]),
        // A quoted field that goes on.
        ("a,b\n\"1\"2,3\n", &[["12", "3"]]),
        // A quote that is not closed: the rest of the file is its field.
        ("a,b\n1,\"x\n2,y\n3,z\n", &[["1", "x\n2,y\n3,z\n"]]),
    ] {
        assert_eq!(theirs(text).unwrap(), accepted, "{text:?}");
        assert!(ours(text).is_err(), "{text:?}");
    }
}

#[test]
fn the_crate_takes_names_twice_and_names_that_are_empty() {
    for text in ["a,a\n1,2\n", "a,\n1,2\n"] {
        assert!(theirs(text).is_ok(), "{text:?}");
        assert!(ours(text).is_err(), "{text:?}");
    }
}

#[test]
fn both_agree_on_what_is_right() {
    for text in [
        "a,b\n1,\"x\ny\"\n2,z\n",
        "a,b\r\n\"x,\"\"y\"\"\",\"\"\r\n",
        "a,b\n\n\n1,2",
        include_str!("../../testdata/weather.csv"),
        include_str!("../../testdata/airports.csv"),
        include_str!("../../testdata/flights.csv"),
    ] {
        assert_eq!(ours(text).unwrap(), theirs(text).unwrap());
    }
}
