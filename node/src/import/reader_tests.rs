use std::io::{Cursor, Write};

use super::{InputFormat, ReaderOptions, Record, RecordReader, Source};

fn open(bytes: &[u8]) -> RecordReader {
    let source = Source::new(Cursor::new(bytes.to_vec()), None).unwrap();
    RecordReader::new(source, &ReaderOptions::default()).unwrap()
}

#[test]
fn the_format_is_told_by_the_first_character() {
    assert_eq!(open(b" \n{\"a\":1}\n").sample(1).count(), 1);
    assert_eq!(open(b"a,b\n").columns(), ["a", "b"]);
    let source = Source::new(Cursor::new("{\n1\n"), None).unwrap();
    let options = ReaderOptions { format: Some(InputFormat::Csv), ..ReaderOptions::default() };
    assert_eq!(RecordReader::new(source, &options).unwrap().columns(), ["{"]);
}

#[test]
fn the_records_of_a_sample_are_read_again_with_their_errors() {
    let mut reader = open(b"a,b\n1,2\nbad\n3,4\n5,6\n");
    assert_eq!(reader.sample(3).count(), 2);
    let mut record = Record::default();
    let mut lines = Vec::new();
    loop {
        match reader.read(&mut record) {
            Ok(false) => break,
            Ok(true) => lines.push(record.line()),
            Err(error) => lines.push(100 + error.line),
        }
    }
    assert_eq!(lines, [2, 103, 4, 5]);
    assert!(!reader.read(&mut record).unwrap());
}

#[test]
fn a_cut_archive_gives_its_whole_records_then_one_error() {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(b"a,b\n").unwrap();
    let mut state = 1_u64;
    for _ in 0..50_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        writeln!(encoder, "{},{}", state >> 33, state & 0xffff_ffff).unwrap();
    }
    let whole = encoder.finish().unwrap();
    let mut reader = open(&whole[..whole.len() / 2]);
    let mut record = Record::default();
    let mut count = 0;
    let error = loop {
        match reader.read(&mut record) {
            Ok(true) => count += 1,
            Ok(false) => panic!("the end of a cut archive is no end"),
            Err(error) => break error,
        }
    };
    assert!(count > 1_000, "{count}");
    assert!(error.ends_input && error.error.code == "io", "{error}");
    assert_eq!(error.line, count + 2);
    assert!(!reader.read(&mut record).unwrap());
}
