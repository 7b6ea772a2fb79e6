use std::io::Cursor;

use super::super::reader::{ReaderOptions, RecordReader};
use super::super::record::{Field, Record};
use super::super::source::Source;

fn open(bytes: &[u8]) -> RecordReader {
    let source = Source::new(Cursor::new(bytes.to_vec()), None).unwrap();
    let options =
        ReaderOptions { format: Some(super::super::InputFormat::Ndjson), ..ReaderOptions::default() };
    RecordReader::new(source, &options).unwrap()
}

/// Every record as its line and its fields, every error as its text.
fn read(bytes: &[u8]) -> Vec<String> {
    let mut reader = open(bytes);
    let mut record = Record::default();
    let mut out = Vec::new();
    loop {
        match reader.read(&mut record) {
            Ok(false) => return out,
            Ok(true) => out.push(format!("{}: {:?}", record.line(), record.fields().collect::<Vec<_>>())),
            Err(error) => out.push(format!("[{}] {}", error.error.code, error.error.what)),
        }
    }
}

#[test]
fn numbers_keep_their_digits_and_nested_values_become_text() {
    assert_eq!(
        read(b"{\"a\": 0.1000, \"b\": 123456789012345678901234567890, \"c\": [1, {\"x\": 2.50}], \"d\": true, \"e\": null}\n"),
        ["1: [Plain(\"0.1000\"), Plain(\"123456789012345678901234567890\"), Text(\"[1, {\\\"x\\\": 2.50}]\"), Plain(\"true\"), Null]"]
    );
    assert_eq!(read("{\"a\":\"\\u00e9\\n\\\"\"}".as_bytes()), ["1: [Text(\"é\\n\\\"\")]"]);
}

#[test]
fn members_take_the_place_of_their_column() {
    assert_eq!(
        read(b"{\"a\":1,\"b\":2}\n\n  \r\n{\"c\":3,\"a\":4}\r\n{}\n"),
        ["1: [Plain(\"1\"), Plain(\"2\")]", "4: [Plain(\"4\"), Missing, Plain(\"3\")]", "5: []"]
    );
    let mut reader = open(b"{\"a\":1}\n{\"b\":2}\n{\"a\":3}\n{\"new\":4}\n");
    assert_eq!(reader.sample(3).count(), 3);
    assert_eq!(reader.columns(), ["a", "b"]);
    let mut record = Record::default();
    assert!(reader.read(&mut record).unwrap());
    assert_eq!((record.field(0), record.field(1)), (Field::Plain("1"), Field::Missing));
    assert!(reader.read(&mut record).unwrap() && reader.read(&mut record).unwrap());
    let error = reader.read(&mut record).unwrap_err();
    assert!(error.error.what.contains("\"new\"") && error.line == 4, "{error}");
    assert!(!reader.read(&mut record).unwrap());
}

#[test]
fn reading_goes_on_behind_a_bad_line() {
    let bad = [
        "[1]",
        "{\"a\":}",
        "{\"a\" 1}",
        "{\"a\":1",
        "{\"a\":1}x",
        "{\"a\":1,}",
        "{a:1}",
        "{\"a\":01}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":1,\"a\":2}",
        "{\"a\":nul}",
        "{\"a\":NaN}",
        "{\"a\":[1}",
        "{\"a\":\"x",
        "{",
        "1",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1}{\"a\":2}",
    ];
    for line in bad {
        let lines = read(format!("{line}\n{{\"a\":7}}\n").as_bytes());
        assert_eq!(lines.len(), 2, "{line}: {lines:?}");
        assert!(lines[0].starts_with("[json] line 1: "), "{line}: {lines:?}");
        assert_eq!(lines[1], "2: [Plain(\"7\")]", "{line}");
    }
    let lines = read(b"{\"a\":\"\xff\"}\n{\"a\":7}");
    assert!(lines[0].contains("not UTF-8 from byte 7"), "{lines:?}");
    assert_eq!(lines[1], "2: [Plain(\"7\")]");
}

#[test]
fn deep_nesting_is_text_not_a_crash() {
    let deep = format!("{{\"a\":{}{}}}\n", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(read(deep.as_bytes()).len(), 1);
    let open_end = format!("{{\"a\":{}\n", "[".repeat(100_000));
    assert!(read(open_end.as_bytes())[0].starts_with("[json]"));
}

#[test]
fn a_line_has_a_limit() {
    let text = format!("{{\"a\":\"{}\"}}\n{{\"a\":7}}\n", "x".repeat(super::RECORD_BYTES_MAX * 3));
    let lines = read(text.as_bytes());
    assert_eq!(lines, ["[json] line 1: the line exceeds 16 MiB", "2: [Plain(\"7\")]"]);
}
