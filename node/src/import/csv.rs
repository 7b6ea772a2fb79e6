//! CSV (RFC 4180), strictly: quotes only around whole fields, every record as long as the header, UTF-8. Lines end with
//! LF or CRLF; empty lines are skipped.
//!
//! The parser is our own because the crate `csv` accepts misplaced and unclosed quotes and does not tell a quoted empty
//! text from no value: `docs/decisions/0004-csv-reader.md`.

use super::record::{FieldKind, Record, RecordError};
use super::source::Source;
use crate::output::CliError;

/// A record has at most so many bytes.
pub(super) const RECORD_BYTES_MAX: usize = 16 << 20;
/// So many fields of a record are kept; a record with more is an error whatever the header says.
const FIELDS_MAX: usize = 4_096;

const CODE: &str = "csv";

/// Reads records from CSV.
pub(super) struct CsvReader {
    delimiter: u8,
    null_text: String,
    /// The line that the source's window begins with, from 1.
    line: u64,
    columns: Vec<String>,
    raw: RawRecord,
}

/// The fields of one record, unquoted.
#[derive(Default)]
struct RawRecord {
    bytes: Vec<u8>,
    /// Where each field ends in `bytes`, and whether it was quoted.
    fields: Vec<(usize, bool)>,
    /// The number of fields, also of those not kept.
    count: usize,
}

/// What stands at the front of the window.
#[derive(PartialEq, Eq, Debug)]
enum Scan {
    /// A record of so many bytes, its line end included.
    Record(usize),
    /// An empty line of so many bytes.
    Empty(usize),
    /// More bytes are needed to tell.
    Incomplete,
    /// No record.
    Bad(&'static str),
}

impl CsvReader {
    /// Reads the header.
    ///
    /// Fails with the code `csv` if there is none, or a name is empty or not unique.
    pub(super) fn new(source: &mut Source, delimiter: u8, null_text: &str) -> Result<Self, CliError> {
        let mut reader = Self {
            delimiter,
            null_text: null_text.to_owned(),
            line: 1,
            columns: Vec::new(),
            raw: RawRecord::default(),
        };
        if reader.next_record(source)?.is_none() {
            return Err(CliError::new(CODE, "the input is empty")
                .hint("the first line must name the columns, as in: origin,time_hour,temp"));
        }
        reader.columns = reader.raw_fields().map(|(name, _)| name.to_owned()).collect();
        check_header(&reader.columns)?;
        Ok(reader)
    }

    /// The names of the columns.
    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Reads the next record; `false` at the end.
    pub(super) fn read(&mut self, source: &mut Source, record: &mut Record) -> Result<bool, RecordError> {
        let Some(line) = self.next_record(source)? else {
            return Ok(false);
        };
        let (count, expected) = (self.raw.count, self.columns.len());
        if count != expected {
            return Err(RecordError::bad(
                CODE,
                line,
                format_args!("the record has {count} fields, but the header names {expected} columns"),
            ));
        }
        record.reset(line);
        for (text, is_quoted) in self.raw_fields() {
            let kind = if is_quoted {
                FieldKind::Quoted
            } else if text == self.null_text {
                FieldKind::Null
            } else {
                FieldKind::Plain
            };
            record.push(kind, text);
        }
        Ok(true)
    }

    fn raw_fields(&self) -> impl Iterator<Item = (&str, bool)> {
        let mut start = 0;
        self.raw.fields.iter().map(move |(end, is_quoted)| {
            let field = self.raw.bytes.get(start..*end).unwrap_or_default();
            start = *end;
            // `next_record` checked that the record is UTF-8; delimiters and quotes cannot split a character.
            (std::str::from_utf8(field).unwrap_or_default(), *is_quoted)
        })
    }

    /// Puts the next record into `raw` and returns its line; `None` at the end. After an error the source stands on the
    /// next line, or behind the record if that could be told.
    fn next_record(&mut self, source: &mut Source) -> Result<Option<u64>, RecordError> {
        loop {
            if source.window().is_empty() && source.is_at_end() {
                return Ok(None);
            }
            match scan(source.window(), source.is_at_end(), self.delimiter, &mut self.raw) {
                Scan::Empty(len) => self.advance(source, len),
                Scan::Record(len) => return self.finish_record(source, len).map(Some),
                Scan::Bad(what) => return Err(self.reject_line(source, what)),
                Scan::Incomplete if source.window().len() > RECORD_BYTES_MAX => {
                    return Err(self.reject_line(source, "the record exceeds 16 MiB; is a quote not closed?"));
                }
                Scan::Incomplete => source.extend().map_err(|error| RecordError::io(self.line, &error))?,
            }
        }
    }

    fn finish_record(&mut self, source: &mut Source, len: usize) -> Result<u64, RecordError> {
        let line = self.line;
        let bytes = source.window().get(..len).unwrap_or_default();
        let bad_at = std::str::from_utf8(bytes).err().map(|error| error.valid_up_to());
        self.advance(source, len);
        if let Some(offset) = bad_at {
            let what = format_args!("the record is not UTF-8: byte {} of it is not a character", offset + 1);
            return Err(RecordError::bad(CODE, line, what)
                .hint("convert the file, as with `iconv -f latin1 -t utf-8`, or use --on-error skip"));
        }
        Ok(line)
    }

    /// Takes the first line off the source.
    fn reject_line(&mut self, source: &mut Source, what: &str) -> RecordError {
        let error = RecordError::bad(CODE, self.line, what);
        loop {
            if let Some(end) = source.window().iter().position(|byte| *byte == b'\n') {
                self.advance(source, end + 1);
                return error;
            }
            source.advance(source.window().len());
            if source.is_at_end() {
                return error;
            }
            if let Err(failure) = source.extend() {
                return RecordError::io(self.line, &failure);
            }
        }
    }

    fn advance(&mut self, source: &mut Source, len: usize) {
        let taken = source.window().get(..len).unwrap_or_default();
        self.line += taken.split(|byte| *byte == b'\n').count().saturating_sub(1) as u64;
        source.advance(len);
    }
}

fn check_header(columns: &[String]) -> Result<(), CliError> {
    let mut seen = std::collections::HashSet::with_capacity(columns.len());
    for (index, name) in columns.iter().enumerate() {
        if name.is_empty() {
            return Err(CliError::new(
                CODE,
                format!("line 1: column {} of the header has no name", index + 1),
            )
            .hint("the first line must name the columns"));
        }
        if !seen.insert(name) {
            return Err(CliError::new(CODE, format!("line 1: the header names column {name:?} twice"))
                .hint("rename one of them"));
        }
    }
    Ok(())
}

impl RawRecord {
    fn reset(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        self.count = 0;
    }

    fn end_field(&mut self, is_quoted: bool) {
        self.count += 1;
        if self.fields.len() < FIELDS_MAX {
            self.fields.push((self.bytes.len(), is_quoted));
        }
    }
}

/// What ends a field.
enum End {
    Field(usize),
    Record(usize),
}

/// Looks at the front of `window` for a record and puts it into `raw`.
fn scan(window: &[u8], at_end: bool, delimiter: u8, raw: &mut RawRecord) -> Scan {
    raw.reset();
    match field_end(window, at_end, delimiter) {
        Ok(Some(End::Record(len))) => return Scan::Empty(len),
        Ok(_) => {}
        Err(scan) => return scan,
    }
    let mut position = 0;
    loop {
        let rest = window.get(position..).unwrap_or_default();
        let field = match rest.split_first() {
            Some((b'"', quoted)) => quoted_field(quoted, at_end, raw).map(|len| len + 1),
            _ => plain_field(rest, at_end, delimiter, raw),
        };
        let len = match field {
            Ok(len) => len,
            Err(scan) => return scan,
        };
        raw.end_field(rest.first() == Some(&b'"'));
        let after = rest.get(len..).unwrap_or_default();
        match field_end(after, at_end, delimiter) {
            Ok(Some(End::Field(end))) => position += len + end,
            Ok(Some(End::Record(end))) => return Scan::Record(position + len + end),
            Ok(None) => return Scan::Bad("a quoted field goes on after its closing quote"),
            Err(scan) => return scan,
        }
    }
}

/// The end of a field that stands at the front, with its length in bytes; `None` if something else stands there.
fn field_end(rest: &[u8], at_end: bool, delimiter: u8) -> Result<Option<End>, Scan> {
    match rest {
        [] | [b'\r'] if !at_end => Err(Scan::Incomplete),
        [] => Ok(Some(End::Record(0))),
        [b'\n', ..] | [b'\r'] => Ok(Some(End::Record(1))),
        [b'\r', b'\n', ..] => Ok(Some(End::Record(2))),
        [first, ..] if *first == delimiter => Ok(Some(End::Field(1))),
        _ => Ok(None),
    }
}

/// Copies what follows an opening quote up to the closing one; returns the length with the closing quote.
fn quoted_field(rest: &[u8], at_end: bool, raw: &mut RawRecord) -> Result<usize, Scan> {
    let mut position = 0;
    loop {
        let after = rest.get(position..).unwrap_or_default();
        let Some(quote) = after.iter().position(|byte| *byte == b'"') else {
            return Err(if at_end { Scan::Bad("a quote is not closed") } else { Scan::Incomplete });
        };
        raw.bytes.extend_from_slice(after.get(..quote).unwrap_or_default());
        match after.get(quote + 1) {
            Some(b'"') => raw.bytes.push(b'"'),
            None if !at_end => return Err(Scan::Incomplete),
            _ => return Ok(position + quote + 1),
        }
        position += quote + 2;
    }
}

/// Copies a field without quotes; returns its length.
fn plain_field(rest: &[u8], at_end: bool, delimiter: u8, raw: &mut RawRecord) -> Result<usize, Scan> {
    let mut position = 0;
    loop {
        let after = rest.get(position..).unwrap_or_default();
        let found = after.iter().position(|byte| *byte == delimiter || matches!(byte, b'\n' | b'\r' | b'"'));
        let Some(offset) = found else {
            if !at_end {
                return Err(Scan::Incomplete);
            }
            raw.bytes.extend_from_slice(after);
            return Ok(rest.len());
        };
        raw.bytes.extend_from_slice(after.get(..offset).unwrap_or_default());
        position += offset;
        match (after.get(offset), after.get(offset + 1)) {
            (Some(b'"'), _) => return Err(Scan::Bad("a quote stands inside a field that is not quoted")),
            // A carriage return that ends no line is a part of the field.
            (Some(b'\r'), Some(next)) if *next != b'\n' => {
                raw.bytes.push(b'\r');
                position += 1;
            }
            _ => return Ok(position),
        }
    }
}

#[cfg(test)]
#[path = "csv_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "csv_crate_tests.rs"]
mod crate_tests;
