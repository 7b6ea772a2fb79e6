use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use planaria_net::wire::message::ScanSpec;
use planaria_types::KeyRange;

use super::{print, stdout};
use crate::cli::{ExportArgs, ExportFormat, Global};
use crate::output::{Cell, CliError, Format, Report, RowWriter, Target, count_rate};
use crate::row_view::RowView;
use crate::session::{IfAbsent, Session, TableSummary};
use crate::stopwatch::Stopwatch;

/// What stands for stdout.
const STDOUT: &str = "-";

/// `planaria export`.
pub(super) fn run(global: &Global, arguments: &ExportArgs) -> Result<(), CliError> {
    let session = arguments.place.place(global)?.open(IfAbsent::Fail)?;
    let table = session.table(&arguments.table)?;
    if arguments.file == Path::new(STDOUT) {
        write_rows(&*session, &table, arguments, stdout())?;
        return Ok(());
    }
    let stopwatch = Stopwatch::start();
    let rows = to_file(&*session, &table, arguments)?;
    let bytes = std::fs::metadata(&arguments.file).map_or(Cell::None, |metadata| Cell::Bytes(metadata.len()));
    let seconds = stopwatch.elapsed();
    let report = Report::new()
        .with("table", arguments.table.clone())
        .with("file", arguments.file.display().to_string())
        .with("rows", Cell::Count(rows))
        .with("bytes", bytes)
        .with("seconds", Cell::Duration(seconds))
        .with("rate", count_rate(rows, seconds));
    print(global, &report)
}

/// Writes to a file beside the one that is meant, which takes its name when it is complete.
fn to_file(session: &dyn Session, table: &TableSummary, arguments: &ExportArgs) -> Result<u64, CliError> {
    let file = arguments.file.as_path();
    let failed = |error: io::Error| {
        let error_of = |hint: &str| {
            CliError::new("output", format!("cannot write {}: {error}", file.display())).hint(hint)
        };
        match error.kind() {
            io::ErrorKind::AlreadyExists => error_of("name another file, or use --force to replace it"),
            _ => error_of("check that the directory exists, can be written to and has room"),
        }
    };
    if !arguments.force && file.exists() {
        return Err(failed(io::ErrorKind::AlreadyExists.into()));
    }
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    // Others may read it as they may read what a shell redirects to.
    let partial = tempfile::Builder::new()
        .prefix(".planaria-export-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(dir)
        .map_err(failed)?;
    let out = BufWriter::with_capacity(256 << 10, partial.as_file().try_clone().map_err(failed)?);
    let rows = if has_extension(file, "gz") {
        let (rows, out) = write_rows(session, table, arguments, GzEncoder::new(out, Compression::default()))?;
        sync(out.finish().map_err(failed)?).map_err(failed)?;
        rows
    } else {
        let (rows, out) = write_rows(session, table, arguments, out)?;
        sync(out).map_err(failed)?;
        rows
    };
    let persisted = if arguments.force { partial.persist(file) } else { partial.persist_noclobber(file) };
    persisted.map_err(|error| failed(error.error))?;
    Ok(rows)
}

fn sync(out: BufWriter<File>) -> io::Result<()> {
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Writes all rows of a table; returns their number and the output.
fn write_rows<W: Write>(
    session: &dyn Session,
    table: &TableSummary,
    arguments: &ExportArgs,
    out: W,
) -> Result<(u64, W), CliError> {
    let view = RowView::new(&table.definition);
    let format = match arguments.format.unwrap_or_else(|| format_of(&arguments.file)) {
        ExportFormat::Csv => Format::Csv,
        ExportFormat::Json => Format::Json,
    };
    let target = Target { format, terminal_width: None };
    let mut rows = RowWriter::new(out, target, view.headings()?, &arguments.null)?;
    let all = ScanSpec { table: arguments.table.clone(), range: KeyRange::ALL, ..ScanSpec::default() };
    session.scan(all, &mut |key, row| {
        rows.write(&view.values(key, row)?)?;
        Ok(true)
    })?;
    Ok(rows.finish()?)
}

/// The format that the name of a file tells.
fn format_of(file: &Path) -> ExportFormat {
    let inner =
        if has_extension(file, "gz") { Path::new(file.file_stem().unwrap_or_default()) } else { file };
    let is_json = ["json", "ndjson", "jsonl"].iter().any(|extension| has_extension(inner, extension));
    if is_json { ExportFormat::Json } else { ExportFormat::Csv }
}

fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{ExportFormat, format_of};

    #[test]
    fn the_name_tells_the_format() {
        for (name, format) in [
            ("a.csv", ExportFormat::Csv),
            ("a.csv.gz", ExportFormat::Csv),
            ("a", ExportFormat::Csv),
            ("-", ExportFormat::Csv),
            ("a.json", ExportFormat::Json),
            ("a.NDJSON.gz", ExportFormat::Json),
        ] {
            assert_eq!(format_of(Path::new(name)), format, "{name}");
        }
    }
}
