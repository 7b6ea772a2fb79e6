use std::io::{self, Write};

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};

use super::human::escape_control;
use super::{Format, Render, Target};

/// A table looks at so many rows before it settles the widths of its columns; no more are held at a time.
pub(crate) const TABLE_ROWS_HELD: usize = 1_000;

/// The heading of a column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Heading {
    /// The name.
    pub(crate) name: String,
    /// Whether its cells are numbers and are aligned to the right.
    pub(crate) is_number: bool,
}

impl Heading {
    /// The heading of a column of texts.
    pub(crate) fn text(name: impl Into<String>) -> Self {
        Self { name: name.into(), is_number: false }
    }

    /// The heading of a column of numbers.
    pub(crate) fn number(name: impl Into<String>) -> Self {
        Self { name: name.into(), is_number: true }
    }
}

impl From<&planaria_engine::Column> for Heading {
    fn from(column: &planaria_engine::Column) -> Self {
        Self { name: column.name.clone(), is_number: column.ty.is_number() }
    }
}

/// Writes rows under headings as they come: [`RowWriter::write`] for each, then [`RowWriter::finish`].
///
/// JSON and CSV hold nothing back. A table holds [`TABLE_ROWS_HELD`] rows to find its widths and keeps those widths for
/// all that follow.
pub(crate) struct RowWriter<W> {
    out: W,
    headings: Vec<Heading>,
    style: Style,
    rows: u64,
}

enum Style {
    Json {
        /// The names as JSON strings.
        names: Vec<String>,
    },
    Csv {
        /// What stands for no value; a text that reads the same is quoted.
        null_text: String,
    },
    Table(Box<TableStyle>),
}

struct TableStyle {
    terminal_width: Option<u16>,
    held: Vec<Vec<String>>,
    /// Known once the first rows are written.
    widths: Option<Vec<u16>>,
}

impl<W: Write> RowWriter<W> {
    /// Begins with the headings, which CSV writes at once. `null_text` stands for no value in CSV.
    pub(crate) fn new(
        mut out: W,
        target: Target,
        headings: Vec<Heading>,
        null_text: &str,
    ) -> io::Result<Self> {
        let style = match target.format {
            Format::Json => {
                let names = headings.iter().map(|heading| serde_json::to_string(&heading.name));
                Style::Json { names: names.collect::<Result<_, _>>()? }
            }
            Format::Csv => {
                let names = headings.iter().map(|heading| Some(heading.name.clone()));
                write_csv_line(&mut out, names, null_text)?;
                Style::Csv { null_text: null_text.to_owned() }
            }
            Format::Table => Style::Table(Box::new(TableStyle {
                terminal_width: target.terminal_width,
                held: Vec::new(),
                widths: None,
            })),
        };
        Ok(Self { out, headings, style, rows: 0 })
    }

    /// Writes a row: one cell for each heading.
    pub(crate) fn write<R: Render>(&mut self, row: &[R]) -> io::Result<()> {
        self.rows += 1;
        match &mut self.style {
            Style::Json { names } => {
                let mut separator = '{';
                for (name, cell) in names.iter().zip(row) {
                    write!(self.out, "{separator}{name}:{}", cell.json())?;
                    separator = ',';
                }
                self.out.write_all(if separator == '{' { b"{}\n" } else { b"}\n" })
            }
            Style::Csv { null_text } => {
                write_csv_line(&mut self.out, row.iter().map(Render::plain), null_text)
            }
            Style::Table(table) => {
                table.held.push(row.iter().map(|cell| escape_control(&cell.human()).into_owned()).collect());
                if table.held.len() >= TABLE_ROWS_HELD {
                    table.write_held(&mut self.out, &self.headings)?;
                }
                Ok(())
            }
        }
    }

    /// Writes what is held back and returns the number of rows and the output.
    pub(crate) fn finish(mut self) -> io::Result<(u64, W)> {
        if let Style::Table(table) = &mut self.style
            && (table.widths.is_none() || !table.held.is_empty())
        {
            table.write_held(&mut self.out, &self.headings)?;
        }
        self.out.flush()?;
        Ok((self.rows, self.out))
    }
}

impl TableStyle {
    /// Writes the rows held, with the headings if they are the first.
    fn write_held(&mut self, out: &mut impl Write, headings: &[Heading]) -> io::Result<()> {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        match self.terminal_width {
            Some(width) => {
                table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
            }
            None => {
                table.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        if self.widths.is_none() {
            table.set_header(headings.iter().map(|heading| escape_control(&heading.name).into_owned()));
        }
        table.add_rows(self.held.drain(..));
        for (index, heading) in headings.iter().enumerate() {
            if let Some(column) = table.column_mut(index) {
                // Headings stand directly over their cells, with two spaces between columns.
                column.set_padding((0, 2));
                if heading.is_number {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        match &self.widths {
            Some(widths) => keep_widths(&mut table, widths, self.terminal_width.is_some()),
            None => self.widths = Some(shown_widths(&table)),
        }
        for line in table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The width of each column as it is shown, padding included.
fn shown_widths(table: &Table) -> Vec<u16> {
    let natural = table.column_max_content_widths();
    natural.into_iter().map(|width| width.saturating_add(2)).collect()
}

/// Gives the columns the widths of the rows before. On a terminal a longer cell is wrapped; elsewhere it sticks out, so
/// that no line is broken.
fn keep_widths(table: &mut Table, widths: &[u16], is_terminal: bool) {
    for (index, width) in widths.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            let width = Width::Fixed(*width);
            column.set_constraint(if is_terminal {
                ColumnConstraint::Absolute(width)
            } else {
                ColumnConstraint::LowerBoundary(width)
            });
        }
    }
}

/// One line of CSV (RFC 4180). Only what must be is quoted, and a value that reads like no value.
fn write_csv_line(
    out: &mut impl Write,
    cells: impl Iterator<Item = Option<String>>,
    null_text: &str,
) -> io::Result<()> {
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        match cell {
            None => out.write_all(null_text.as_bytes())?,
            Some(text) if text == null_text || text.contains([',', '"', '\n', '\r']) => {
                write!(out, "\"{}\"", text.replace('"', "\"\""))?;
            }
            Some(text) => out.write_all(text.as_bytes())?,
        }
    }
    out.write_all(b"\n")
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
