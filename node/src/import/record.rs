use crate::output::CliError;

/// One record of the input: its fields as texts, in the order of the reader's columns, and where it stood.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Record {
    line: u64,
    /// The texts of all fields, one after the other.
    text: String,
    fields: Vec<Span>,
}

/// Where a field's text ends, and how it was written. It begins where the one before ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Span {
    end: usize,
    kind: FieldKind,
}

/// How a field was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FieldKind {
    Missing,
    Null,
    Plain,
    Quoted,
    Text,
}

/// One field of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Field<'a> {
    /// The record does not have the field: a column's default stands in.
    Missing,
    /// The record says that there is no value.
    Null,
    /// Text whose type is open.
    Plain(&'a str),
    /// Text in quotes in a CSV file: its type is open, but in a text column it is never null.
    Quoted(&'a str),
    /// A JSON string: text, or what has no form of its own in JSON, but no number and no boolean.
    Text(&'a str),
}

impl Record {
    /// The line of the input on which the record begins, from 1.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// The length of all texts in bytes.
    pub(crate) fn byte_len(&self) -> usize {
        self.text.len()
    }

    /// The field at `index`; beyond the last, fields are missing.
    pub(crate) fn field(&self, index: usize) -> Field<'_> {
        let Some(span) = self.fields.get(index) else {
            return Field::Missing;
        };
        let start =
            index.checked_sub(1).and_then(|before| self.fields.get(before)).map_or(0, |span| span.end);
        let text = self.text.get(start..span.end).unwrap_or_default();
        match span.kind {
            FieldKind::Missing => Field::Missing,
            FieldKind::Null => Field::Null,
            FieldKind::Plain => Field::Plain(text),
            FieldKind::Quoted => Field::Quoted(text),
            FieldKind::Text => Field::Text(text),
        }
    }

    /// The fields, in order.
    #[cfg(test)]
    pub(crate) fn fields(&self) -> impl Iterator<Item = Field<'_>> {
        (0..self.fields.len()).map(|index| self.field(index))
    }

    /// Begins anew, keeping the memory.
    pub(super) fn reset(&mut self, line: u64) {
        self.line = line;
        self.text.clear();
        self.fields.clear();
    }

    /// Adds a field.
    pub(super) fn push(&mut self, kind: FieldKind, text: &str) {
        self.text.push_str(text);
        self.fields.push(Span { end: self.text.len(), kind });
    }
}

/// A record that cannot be read, or a value that does not fit.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{error}")]
pub(crate) struct RecordError {
    /// The line on which the record begins, from 1.
    pub(crate) line: u64,
    /// What to say; it names the line.
    pub(crate) error: CliError,
    /// Whether nothing can be read after it: the input itself failed.
    pub(crate) ends_input: bool,
}

impl RecordError {
    /// A bad record, after which reading goes on.
    pub(crate) fn bad(code: &'static str, line: u64, what: impl std::fmt::Display) -> Self {
        let error = CliError::new(code, format!("line {line}: {what}"))
            .hint("correct the line, or leave such records out with --on-error skip");
        Self { line, error, ends_input: false }
    }

    /// The end of what can be read.
    pub(super) fn io(line: u64, source: &std::io::Error) -> Self {
        let error =
            CliError::new("io", format!("line {line}: the input cannot be read any further: {source}"))
                .hint("check that the file is complete; a compressed file may be cut off or damaged");
        Self { line, error, ends_input: true }
    }

    /// The same error with another hint.
    #[must_use]
    pub(super) fn hint(self, hint: impl Into<String>) -> Self {
        Self { error: self.error.hint(hint), ..self }
    }
}

impl From<RecordError> for CliError {
    fn from(error: RecordError) -> Self {
        error.error
    }
}
