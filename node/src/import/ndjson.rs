//! NDJSON: one JSON object a line, its members the fields of a record. Numbers keep the digits they were written with;
//! arrays and objects within become their JSON text. Empty lines are skipped.

use std::collections::HashMap;
use std::ops::Range;

use serde::de::IgnoredAny;
use serde_json::StreamDeserializer;
use serde_json::de::StrRead;

use super::csv::RECORD_BYTES_MAX;
use super::record::{FieldKind, Record, RecordError};
use super::source::Source;

const CODE: &str = "json";

/// Reads records from NDJSON.
#[derive(Default)]
pub(super) struct NdjsonReader {
    /// The lines taken so far.
    lines: u64,
    columns: Vec<String>,
    positions: HashMap<String, usize>,
    /// Whether the columns are settled: a name seen for the first time is an error.
    is_settled: bool,
    members: Vec<Member>,
}

/// A member of an object: its column, how it was written, and its text: decoded, or a range of the line.
struct Member {
    column: usize,
    kind: FieldKind,
    text: MemberText,
}

enum MemberText {
    Decoded(String),
    Line(Range<usize>),
}

impl NdjsonReader {
    /// The names of the columns seen so far, in the order of their first appearance.
    pub(super) fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Names columns that records may have, whether one was seen with them or not.
    pub(super) fn expect_columns<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) {
        for name in names {
            if !self.positions.contains_key(name) {
                self.positions.insert(name.to_owned(), self.columns.len());
                self.columns.push(name.to_owned());
            }
        }
    }

    /// From now on a name seen for the first time is an error.
    pub(super) fn settle_columns(&mut self) {
        self.is_settled = true;
    }

    /// Reads the next record; `false` at the end. After an error the source stands on the next line.
    pub(super) fn read(&mut self, source: &mut Source, record: &mut Record) -> Result<bool, RecordError> {
        loop {
            let Some(len) = self.line_len(source)? else {
                return Ok(false);
            };
            self.lines += 1;
            let line = source.window().get(..len).unwrap_or_default();
            let parsed = if line.trim_ascii().is_empty() { None } else { Some(self.parse(line, record)) };
            source.advance(len);
            match parsed {
                None => {}
                Some(Ok(())) => return Ok(true),
                Some(Err(what)) => {
                    let error = RecordError::bad(CODE, self.lines, what);
                    return Err(error);
                }
            }
        }
    }

    /// The length of the line at the front, with its end; `None` at the end of the input.
    fn line_len(&mut self, source: &mut Source) -> Result<Option<usize>, RecordError> {
        let mut is_too_long = false;
        loop {
            let end = source.window().iter().position(|byte| *byte == b'\n').map(|end| end + 1);
            let found = if source.is_at_end() { end.or(Some(source.window().len())) } else { end };
            match found {
                Some(len) if is_too_long => {
                    source.advance(len);
                    self.lines += 1;
                    return Err(RecordError::bad(CODE, self.lines, "the line exceeds 16 MiB"));
                }
                Some(0) => return Ok(None),
                Some(len) => return Ok(Some(len)),
                None => {}
            }
            if source.window().len() > RECORD_BYTES_MAX {
                is_too_long = true;
                source.advance(source.window().len());
            }
            source.extend().map_err(|error| RecordError::io(self.lines + 1, &error))?;
        }
    }

    /// Fills `record` from the object on `line`.
    fn parse(&mut self, line: &[u8], record: &mut Record) -> Result<(), String> {
        let line = std::str::from_utf8(line)
            .map_err(|error| format!("the line is not UTF-8 from byte {} on", error.valid_up_to() + 1))?;
        self.members.clear();
        let mut scanner = Scanner { line, position: 0 };
        scanner.expect(b'{', "a JSON object, as in {\"origin\": \"EWR\"}")?;
        if scanner.peek() == Some(b'}') {
            scanner.position += 1;
        } else {
            loop {
                let name = scanner.string()?;
                scanner.expect(b':', "a colon behind the name")?;
                let column = self.column(name)?;
                let (kind, text) = scanner.value()?;
                self.members.push(Member { column, kind, text });
                if scanner.peek() == Some(b',') {
                    scanner.position += 1;
                } else {
                    scanner.expect(b'}', "a comma or the end of the object")?;
                    break;
                }
            }
        }
        if scanner.peek().is_some() {
            return Err(format!("something follows the object at byte {}", scanner.position + 1));
        }
        self.fill(line, record)
    }

    fn column(&mut self, name: String) -> Result<usize, String> {
        if let Some(position) = self.positions.get(&name) {
            return Ok(*position);
        }
        if self.is_settled {
            return Err(format!("field {name:?} is no column of the table"));
        }
        if self.columns.len() >= planaria_engine::table::COLUMNS_MAX {
            return Err(format!("field {name:?} would be one column more than a table may have"));
        }
        let position = self.columns.len();
        self.columns.push(name.clone());
        self.positions.insert(name, position);
        Ok(position)
    }

    /// Puts the members in the order of the columns.
    fn fill(&mut self, line: &str, record: &mut Record) -> Result<(), String> {
        record.reset(self.lines);
        self.members.sort_by_key(|member| member.column);
        let mut next = 0;
        for member in &self.members {
            if member.column < next {
                let name = self.columns.get(member.column).map_or("", String::as_str);
                return Err(format!("field {name:?} is there twice"));
            }
            while next < member.column {
                record.push(FieldKind::Missing, "");
                next += 1;
            }
            next += 1;
            match &member.text {
                MemberText::Decoded(text) => record.push(member.kind, text),
                MemberText::Line(range) => {
                    record.push(member.kind, line.get(range.clone()).unwrap_or_default());
                }
            }
        }
        Ok(())
    }
}

/// Finds the members of an object; `serde_json` reads and checks each of their values.
struct Scanner<'a> {
    line: &'a str,
    position: usize,
}

impl<'a> Scanner<'a> {
    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.line.as_bytes().get(self.position..)?;
        let spaces = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
        self.position += spaces;
        rest.get(spaces).copied()
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<(), String> {
        if self.peek() == Some(byte) {
            self.position += 1;
            return Ok(());
        }
        Err(format!("{what} is expected at byte {}", self.position + 1))
    }

    fn string(&mut self) -> Result<String, String> {
        if self.peek() != Some(b'"') {
            return Err(format!("a name in quotes is expected at byte {}", self.position + 1));
        }
        self.take::<String>().map(|(text, _)| text)
    }

    fn value(&mut self) -> Result<(FieldKind, MemberText), String> {
        match self.peek() {
            Some(b'"') => self.take().map(|(text, _)| (FieldKind::Text, MemberText::Decoded(text))),
            Some(b'n') => {
                self.take::<()>().map(|((), range)| (FieldKind::Null, MemberText::Line(range.end..range.end)))
            }
            first => {
                let is_nested = matches!(first, Some(b'{' | b'['));
                let (_, range) = self.take::<IgnoredAny>()?;
                let kind = if is_nested { FieldKind::Text } else { FieldKind::Plain };
                Ok((kind, MemberText::Line(range)))
            }
        }
    }

    /// Reads one JSON value and tells where it stood.
    fn take<T: serde::Deserialize<'a>>(&mut self) -> Result<(T, Range<usize>), String> {
        let start = self.position;
        let rest = self.line.get(start..).unwrap_or_default();
        let mut values: StreamDeserializer<'_, StrRead<'_>, T> =
            serde_json::Deserializer::from_str(rest).into_iter();
        match values.next() {
            Some(Ok(value)) => {
                self.position = start + values.byte_offset();
                Ok((value, start..self.position))
            }
            Some(Err(error)) => Err(format!("no JSON from byte {} on: {error}", start + 1)),
            None => Err(format!("the line ends at byte {}, within an object", start + 1)),
        }
    }
}

#[cfg(test)]
#[path = "ndjson_tests.rs"]
mod tests;
