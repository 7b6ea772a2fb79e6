use std::io::{Cursor, Read};

use super::super::reader::{ReaderOptions, RecordReader};
use super::super::record::{Field, Record, RecordError};
use super::super::source::Source;
use super::RECORD_BYTES_MAX;

/// Gives one byte at a time, so that every record is met at every cut.
struct Trickle(Cursor<Vec<u8>>);

impl Read for Trickle {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let end = buf.len().min(1);
        self.0.read(&mut buf[..end])
    }
}

fn open(bytes: &[u8], options: &ReaderOptions) -> RecordReader {
    let source = Source::new(Trickle(Cursor::new(bytes.to_vec())), None).unwrap();
    RecordReader::new(source, options).unwrap()
}

fn show(field: Field<'_>) -> String {
    match field {
        Field::Missing => "<missing>".into(),
        Field::Null => "<null>".into(),
        Field::Plain(text) => text.into(),
        Field::Quoted(text) => format!("'{text}'"),
        Field::Text(text) => format!("text {text}"),
    }
}

/// Every record as its line and its fields, every error as its text.
fn lines_of(bytes: &[u8], options: &ReaderOptions) -> Vec<String> {
    let mut reader = open(bytes, options);
    let mut record = Record::default();
    let mut out = Vec::new();
    loop {
        match reader.read(&mut record) {
            Ok(false) => return out,
            Ok(true) => {
                let fields: Vec<_> = record.fields().map(show).collect();
                out.push(format!("{}: {}", record.line(), fields.join("|")));
            }
            Err(RecordError { error, .. }) => out.push(format!("[{}] {}", error.code, error.what)),
        }
    }
}

fn read(text: &str) -> Vec<String> {
    lines_of(text.as_bytes(), &ReaderOptions::default())
}

#[test]
fn records_come_with_the_lines_on_which_they_begin() {
    let expected = ["2: 1|'x\ny'", "4: 2|z", "7: 3|"].map(|line| line.replace("3|", "3|<null>"));
    assert_eq!(read("a,b\n1,\"x\ny\"\n2,z\n\n\n3,\n"), expected);
    let crlf = read("a,b\r\n1,\"x\r\ny\"\r\n2,z\r\n\r\n\r\n3,\r\n");
    assert_eq!(crlf, ["2: 1|'x\r\ny'", "4: 2|z", "7: 3|<null>"]);
    assert_eq!(read("a,b\n1,2"), ["2: 1|2"]);
    assert_eq!(read("a,b\n1,2\r"), ["2: 1|2"]);
    assert!(read("a,b\n").is_empty());
    assert!(read("a,b").is_empty());
}

#[test]
fn quotes_hold_delimiters_and_quotes() {
    assert_eq!(read("a,b\n\"x,\"\"y\"\"\",\"\"\n"), ["2: 'x,\"y\"'|''"]);
    assert_eq!(read("a,b\n\"\"\"\",x\ry\n"), ["2: '\"'|x\ry"]);
    assert_eq!(read("\u{feff}a,b\n1,2\n"), ["2: 1|2"]);
}

#[test]
fn other_delimiters_and_null_texts() {
    let options = ReaderOptions { delimiter: b'\t', null_text: "NA".into(), format: None };
    assert_eq!(lines_of(b"a\tb\nNA\t\"NA\"\n\t1,5\n", &options), ["2: <null>|'NA'", "3: |1,5"]);
    let bad = ReaderOptions { delimiter: b'"', ..ReaderOptions::default() };
    let source = Source::new(Cursor::new("a\n"), None).unwrap();
    assert_eq!(RecordReader::new(source, &bad).err().unwrap().exit_status(), 2);
}

#[test]
fn reading_goes_on_behind_a_bad_record() {
    assert_eq!(
        read("a,b\n1\n1,2,3\n4,5\n"),
        [
            "[csv] line 2: the record has 1 fields, but the header names 2 columns",
            "[csv] line 3: the record has 3 fields, but the header names 2 columns",
            "4: 4|5"
        ]
    );
    assert_eq!(
        read("a,b\n1,x\"y\n\"1\"2,3\n4,5\n"),
        [
            "[csv] line 2: a quote stands inside a field that is not quoted",
            "[csv] line 3: a quoted field goes on after its closing quote",
            "4: 4|5"
        ]
    );
    assert_eq!(
        lines_of(b"a,b\n\xff,2\n4,5\n", &ReaderOptions::default()),
        ["[csv] line 2: the record is not UTF-8: byte 1 of it is not a character", "3: 4|5"]
    );
    assert_eq!(
        lines_of(b"a,b\n\xc3,\xa9\n4,5\n", &ReaderOptions::default()),
        ["[csv] line 2: the record is not UTF-8: byte 1 of it is not a character", "3: 4|5"]
    );
}

#[test]
fn an_open_quote_costs_its_line_not_the_rest_of_the_file() {
    assert_eq!(read("a,b\n1,\"x\n2,y\n3,z\n"), ["[csv] line 2: a quote is not closed", "3: 2|y", "4: 3|z"]);
}

#[test]
fn a_record_has_a_limit() {
    let text = format!("a,b\n1,\"{}\n2,y\n", "x".repeat(RECORD_BYTES_MAX + 1));
    let source = Source::new(Cursor::new(text), None).unwrap();
    let mut reader = RecordReader::new(source, &ReaderOptions::default()).unwrap();
    let mut record = Record::default();
    let error = reader.read(&mut record).unwrap_err();
    assert!(error.error.what.contains("16 MiB") || error.error.what.contains("not closed"), "{error}");
    assert!(reader.read(&mut record).unwrap());
    assert_eq!((record.line(), record.field(0)), (3, Field::Plain("2")));
    assert!(!reader.read(&mut record).unwrap());
}

#[test]
fn a_bad_header_is_refused() {
    for (text, part) in [("", "empty"), ("\n\n", "empty"), ("a,,b\n", "column 2"), ("a,b,a\n", "\"a\" twice")]
    {
        let source = Source::new(Cursor::new(text), None).unwrap();
        let error = RecordReader::new(source, &ReaderOptions::default()).err().unwrap();
        assert_eq!(error.code, "csv");
        assert!(error.what.contains(part), "{}", error.what);
    }
}

#[test]
fn real_tables_are_read_whole() {
    for (bytes, rows, columns) in [
        (&include_bytes!("../../data/weather.csv.gz")[..], 26_115, 15),
        (include_bytes!("../../data/planes.csv.gz"), 3_322, 9),
        (include_bytes!("../../data/airports.csv.gz"), 1_458, 8),
        (include_bytes!("../../data/airlines.csv.gz"), 16, 2),
    ] {
        let source = Source::new(Cursor::new(bytes), Some(bytes.len() as u64)).unwrap();
        let mut reader = RecordReader::new(source, &ReaderOptions::default()).unwrap();
        assert_eq!(reader.columns().len(), columns);
        let mut record = Record::default();
        let mut count = 0;
        while reader.read(&mut record).unwrap() {
            count += 1;
            assert_eq!(record.line(), count + 1);
        }
        assert_eq!(count, rows);
        assert_eq!(Some(reader.consumed_bytes()), reader.total_bytes());
    }
}
