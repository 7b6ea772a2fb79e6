use std::io::{self, Write};

use super::human::escape_control;
use super::{Cell, Format, Heading, Render, RowWriter, Target};

/// What a command says of one thing: names and cells, in order.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Report {
    fields: Vec<(&'static str, Cell)>,
}

impl Report {
    /// A report that says nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The same report with one thing more. `name` is its name for programs, in `snake_case`; people see spaces.
    #[must_use]
    pub(crate) fn with(mut self, name: &'static str, cell: impl Into<Cell>) -> Self {
        self.fields.push((name, cell.into()));
        self
    }

    /// The same report with nothing told under `name`.
    #[must_use]
    pub(crate) fn untold(mut self, name: &str) -> Self {
        for (_, cell) in self.fields.iter_mut().filter(|(own, _)| *own == name) {
            *cell = Cell::None;
        }
        self
    }

    /// The cells alone, for a listing that has its own headings.
    pub(crate) fn into_cells(self) -> Vec<Cell> {
        self.fields.into_iter().map(|(_, cell)| cell).collect()
    }

    /// Writes the report: aligned lines, one JSON object, or a CSV heading and line.
    pub(crate) fn write(&self, out: impl Write, target: Target) -> io::Result<()> {
        Self::write_all(std::slice::from_ref(self), out, target)
    }

    fn write_lines(&self, out: &mut impl Write) -> io::Result<()> {
        let width = self.fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, cell) in &self.fields {
            writeln!(out, "{:width$}  {}", name.replace('_', " "), escape_control(&cell.human()))?;
        }
        Ok(())
    }

    /// Writes several reports on things of one kind: one after the other, or as the rows of one listing. All have the
    /// fields of the first.
    pub(crate) fn write_all(reports: &[Self], mut out: impl Write, target: Target) -> io::Result<()> {
        let Some(first) = reports.first() else { return Ok(()) };
        if target.format == Format::Table {
            for (index, report) in reports.iter().enumerate() {
                if index > 0 {
                    writeln!(out)?;
                }
                report.write_lines(&mut out)?;
            }
            return out.flush();
        }
        let headings = first.fields.iter().map(|(name, _)| Heading::text(*name)).collect();
        let mut rows = RowWriter::new(out, target, headings, "")?;
        for report in reports {
            let cells: Vec<_> = report.fields.iter().map(|(_, cell)| cell.clone()).collect();
            rows.write(&cells)?;
        }
        rows.finish().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Cell, Format, Report, Target};

    #[test]
    fn a_report_reads_in_every_format() {
        let report = Report::new()
            .with("table", "weather")
            .with("rows", Cell::Count(26_115))
            .with("bytes_read", Cell::Bytes(398_032))
            .with("took", Cell::Duration(Duration::from_millis(250)));
        let written = |format| {
            let mut out = Vec::new();
            report.write(&mut out, Target { format, terminal_width: None }).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            written(Format::Table),
            "table       weather\nrows        26,115\nbytes read  389 KiB\ntook        250 ms\n"
        );
        assert_eq!(
            written(Format::Json),
            "{\"table\":\"weather\",\"rows\":26115,\"bytes_read\":398032,\"took\":0.25}\n"
        );
        assert_eq!(written(Format::Csv), "table,rows,bytes_read,took\nweather,26115,398032,0.25\n");
    }
}
