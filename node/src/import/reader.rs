use std::collections::VecDeque;

use super::csv::CsvReader;
use super::ndjson::NdjsonReader;
use super::record::{Record, RecordError};
use super::source::Source;
use crate::output::CliError;

/// So many records are looked at to guess types, unless said otherwise.
pub(crate) const SAMPLE_RECORDS_DEFAULT: usize = 10_000;
/// A sample ends early when its texts pass so many bytes.
const SAMPLE_BYTES_MAX: usize = 64 << 20;
/// What some programs write before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What the input is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum InputFormat {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object a line.
    Ndjson,
}

/// How the input is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ReaderOptions {
    /// The format; `None` tells by the first character that is no space: an object is NDJSON, all else CSV.
    pub(crate) format: Option<InputFormat>,
    /// What separates the fields of CSV: an ASCII character other than a quote or a line end.
    pub(crate) delimiter: u8,
    /// The text that stands for no value in CSV, unless it is quoted.
    pub(crate) null_text: String,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self { format: None, delimiter: b',', null_text: String::new() }
    }
}

/// Reads the records of a CSV or NDJSON input, one after the other, with the lines on which they begin.
///
/// Order of calls: [`RecordReader::open`]; [`RecordReader::sample`] if types are to be guessed, else
/// [`RecordReader::expect_columns`], either of which settles the columns of NDJSON; [`RecordReader::read`] until it says `false`. The records of the sample are read again.
/// After a bad record reading goes on with the next; after an error whose `ends_input` is set there are no more.
pub(crate) struct RecordReader {
    source: Source,
    reader: FormatReader,
    sampled: VecDeque<Result<Record, RecordError>>,
    has_ended: bool,
}

enum FormatReader {
    Csv(CsvReader),
    Ndjson(NdjsonReader),
}

impl RecordReader {
    /// Opens a file, or stdin for `-`, and reads the header of CSV.
    ///
    /// Fails with the codes `input` (cannot be opened), `io` (cannot be read), `csv` (the header is bad) and `usage`.
    pub(crate) fn open(path: &str, options: &ReaderOptions) -> Result<Self, CliError> {
        Self::new(Source::open(path)?, options)
    }

    /// The same, from anywhere.
    pub(crate) fn new(mut source: Source, options: &ReaderOptions) -> Result<Self, CliError> {
        if !options.delimiter.is_ascii() || matches!(options.delimiter, b'"' | b'\n' | b'\r') {
            return Err(CliError::usage(
                "the delimiter must be one ASCII character, and no quote or line end",
            ));
        }
        source.extend().map_err(|error| RecordError::io(1, &error))?;
        if source.window().starts_with(BYTE_ORDER_MARK) {
            source.advance(BYTE_ORDER_MARK.len());
        }
        let first = source.window().trim_ascii_start().first();
        let guessed = if first == Some(&b'{') { InputFormat::Ndjson } else { InputFormat::Csv };
        let reader = match options.format.unwrap_or(guessed) {
            InputFormat::Csv => {
                FormatReader::Csv(CsvReader::new(&mut source, options.delimiter, &options.null_text)?)
            }
            InputFormat::Ndjson => FormatReader::Ndjson(NdjsonReader::default()),
        };
        Ok(Self { source, reader, sampled: VecDeque::new(), has_ended: false })
    }

    /// Looks at up to `records_max` records, fewer if they are very large, and settles the columns. Bad records are left
    /// for [`RecordReader::read`] to report.
    pub(crate) fn sample(&mut self, records_max: usize) -> impl Iterator<Item = &Record> {
        let mut bytes = 0;
        while self.sampled.len() < records_max && bytes < SAMPLE_BYTES_MAX && !self.has_ended {
            let mut record = Record::default();
            match self.read_source(&mut record) {
                Ok(false) => break,
                Ok(true) => {
                    bytes += record.byte_len();
                    self.sampled.push_back(Ok(record));
                }
                Err(error) => self.sampled.push_back(Err(error)),
            }
        }
        if let FormatReader::Ndjson(reader) = &mut self.reader {
            reader.settle_columns();
        }
        self.sampled.iter().filter_map(|sampled| sampled.as_ref().ok())
    }

    /// Settles the columns of NDJSON to those of a table: fields that are none of them are errors of their records, and
    /// records need not have them all. Without meaning for CSV, whose header names the columns.
    pub(crate) fn expect_columns<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        if let FormatReader::Ndjson(reader) = &mut self.reader {
            reader.expect_columns(names);
            reader.settle_columns();
        }
    }

    /// The names of the columns, in the order of the records' fields. For NDJSON those of the records seen so far, which
    /// [`RecordReader::sample`] settles.
    pub(crate) fn columns(&self) -> &[String] {
        match &self.reader {
            FormatReader::Csv(reader) => reader.columns(),
            FormatReader::Ndjson(reader) => reader.columns(),
        }
    }

    /// Reads the next record into `record`; `false` at the end.
    ///
    /// Fails with the codes `csv` and `json` for a bad record and `io` where the input fails.
    pub(crate) fn read(&mut self, record: &mut Record) -> Result<bool, RecordError> {
        match self.sampled.pop_front() {
            Some(sampled) => {
                *record = sampled?;
                Ok(true)
            }
            None => self.read_source(record),
        }
    }

    /// Bytes taken from the input so far, as it is compressed.
    pub(crate) fn consumed_bytes(&self) -> u64 {
        self.source.consumed_bytes()
    }

    /// The length of the input in bytes, as it is compressed, if it is a file.
    pub(crate) fn total_bytes(&self) -> Option<u64> {
        self.source.total_bytes()
    }

    fn read_source(&mut self, record: &mut Record) -> Result<bool, RecordError> {
        if self.has_ended {
            return Ok(false);
        }
        let read = match &mut self.reader {
            FormatReader::Csv(reader) => reader.read(&mut self.source, record),
            FormatReader::Ndjson(reader) => reader.read(&mut self.source, record),
        };
        self.has_ended = match &read {
            Ok(found) => !found,
            Err(error) => error.ends_input,
        };
        read
    }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
