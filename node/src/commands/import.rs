use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use planaria_engine::Schema;

use super::{stdout, target};
use crate::cli::{Global, ImportArgs, OnError};
use crate::import::{ReaderOptions, RecordReader, schema_from, sniff};
use crate::interrupt::on_interrupt;
use crate::load::{Load, ParseOptions, RowEncoder, Tally};
use crate::output::{Cell, CliError, Format, Report, count, count_rate};
use crate::session::{IfAbsent, Place, Session, TableSummary};
use crate::stopwatch::Stopwatch;

/// What stands for stdin.
const STDIN: &str = "-";

/// `planaria import`.
pub(super) fn run(global: &Global, arguments: &ImportArgs) -> Result<(), CliError> {
    let place = arguments.place.place(global)?;
    let interrupted = on_interrupt()?;
    let (first, rest) = arguments.files.split_first().ok_or_else(|| CliError::usage("no file is named"))?;
    // A file that cannot be read must not leave an empty database behind.
    let first = Input::open(first, arguments)?;
    let mut session = open_session(&place, &first)?;
    session.set_write_choice(arguments.level.choice())?;
    let rest = rest.iter().map(|file| Input::open(file, arguments));
    let mut reports = Vec::new();
    let mut outcome = Ok(());
    for input in std::iter::once(Ok(first)).chain(rest) {
        let imported = input.and_then(|input| import_file(global, arguments, &*session, input, &interrupted));
        let stop = match imported {
            Ok((report, stop)) => {
                reports.push(report);
                stop
            }
            Err(error) => Err(error),
        };
        if stop.is_err() {
            outcome = stop;
            break;
        }
    }
    Report::write_all(&reports, stdout(), target(global))?;
    outcome
}

/// A file to import, with what is known of it before there is a table.
struct Input {
    file: String,
    table: String,
    reader: RecordReader,
    /// The schema of a new table; why there can be none otherwise.
    schema: Result<Schema, CliError>,
}

impl Input {
    fn open(file: &str, arguments: &ImportArgs) -> Result<Self, CliError> {
        let table = match &arguments.table {
            Some(table) => table.clone(),
            None => table_name(file)?,
        };
        let options = ReaderOptions {
            format: arguments.format,
            delimiter: arguments.delimiter,
            null_text: arguments.null.clone(),
        };
        let mut reader = RecordReader::open(file, &options).map_err(|error| in_file(error, file))?;
        let schema = {
            let sample: Vec<_> = reader.sample(arguments.sample).cloned().collect();
            let columns = reader.columns();
            let guesses = sniff(columns.len(), &sample);
            schema_from(columns, &guesses, &arguments.key, &arguments.types)
        };
        Ok(Self { file: file.to_owned(), table, reader, schema })
    }
}

/// Opens the place, and makes a database if a table can be made in it.
fn open_session(place: &Place, first: &Input) -> Result<Box<dyn Session>, CliError> {
    match &first.schema {
        Ok(_) => place.open(IfAbsent::Create),
        Err(why) => place
            .open(IfAbsent::Fail)
            .map_err(|error| if error.code == "not_found" { why.clone() } else { error }),
    }
}

/// The name of a file up to its first dot.
fn table_name(file: &str) -> Result<String, CliError> {
    if file == STDIN {
        return Err(CliError::usage("stdin has no name for the table").hint("use --table NAME"));
    }
    let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
    match name.split('.').next() {
        Some(stem) if !stem.is_empty() => Ok(stem.to_owned()),
        _ => {
            Err(CliError::usage(format!("{file:?} does not tell the name of the table"))
                .hint("use --table NAME"))
        }
    }
}

/// Names the file where there may be several.
fn in_file(error: CliError, file: &str) -> CliError {
    let what = if error.what.contains(file) { error.what } else { format!("{file}: {}", error.what) };
    CliError { what, ..error }
}

/// Imports one file. The report is there whether the import came to its end or was stopped.
fn import_file(
    global: &Global,
    arguments: &ImportArgs,
    session: &dyn Session,
    input: Input,
    interrupted: &AtomicBool,
) -> Result<(Report, Result<(), CliError>), CliError> {
    let stopwatch = Stopwatch::start();
    let Input { file, table, mut reader, schema } = input;
    let (table, is_new) = table_for(session, &table, schema, arguments)?;
    if !is_new && table.definition.is_typed() {
        reader
            .expect_columns(table.definition.schema()?.1.columns().iter().map(|column| column.name.as_str()));
    }
    let encoder =
        RowEncoder::new(&table.definition, reader.columns()).map_err(|error| in_file(error, &file))?;
    let progress = Progress::new(global, &file, reader.total_bytes());
    let load = Load {
        session,
        table: &table,
        parse: ParseOptions {
            batch_rows: arguments.batch as usize,
            skips_errors: arguments.on_error == OnError::Skip,
        },
        on_duplicate: arguments.on_duplicate,
        interrupted,
        watch: &mut |tally, skipped| progress.show(tally, skipped, global),
    };
    let (tally, outcome) = load.run(reader, encoder);
    progress.clear();
    let outcome = outcome.map_err(|error| {
        let error = in_file(error, &file);
        if is_new && error.code == "schema" { types_are_settled(error, &table) } else { error }
    });
    Ok((report(&file, &table, is_new, &tally, stopwatch.elapsed(), outcome.is_ok()), outcome))
}

/// A hint to `--type` would lead nowhere once the table is there.
fn types_are_settled(error: CliError, table: &TableSummary) -> CliError {
    let name = &table.definition.name;
    let hint = error.hint.clone().unwrap_or_default();
    error.hint(format!(
        "{hint}; the types of the new table {name:?} are settled, so that other types need another table (--table NAME)"
    ))
}

/// The table that is there, or a new one.
fn table_for(
    session: &dyn Session,
    name: &str,
    schema: Result<Schema, CliError>,
    arguments: &ImportArgs,
) -> Result<(TableSummary, bool), CliError> {
    match session.table(name) {
        Ok(table) => {
            check_agreement(&table, arguments)?;
            Ok((table, false))
        }
        Err(error) if error.code == "unknown_table" => Ok((session.create_table(name, Some(schema?))?, true)),
        Err(error) => Err(error),
    }
}

/// What is said of a table that exists must be so: nothing is silently ignored.
fn check_agreement(table: &TableSummary, arguments: &ImportArgs) -> Result<(), CliError> {
    let name = &table.definition.name;
    let differs = |what: String| {
        Err(CliError::usage(format!("table {name:?} exists already, {what}"))
            .hint("leave the option out, or import into another table with --table NAME"))
    };
    if !table.definition.is_typed() {
        return if arguments.key.is_empty() && arguments.types.is_empty() {
            Ok(())
        } else {
            differs("and its keys and rows are bytes".to_owned())
        };
    }
    let schema = table.definition.schema()?.1;
    let key: Vec<_> = schema.key_columns().map(|column| column.name.as_str()).collect();
    if !arguments.key.is_empty() && arguments.key != key {
        return differs(format!("and its key is {}", key.join(",")));
    }
    for choice in &arguments.types {
        let column = schema.position(&choice.column).and_then(|position| schema.columns().get(position));
        match column {
            Some(column) if column.ty == choice.ty => {}
            Some(column) => {
                return differs(format!("and its column {:?} is of type {}", column.name, column.ty));
            }
            None => return differs(format!("and has no column {:?}", choice.column)),
        }
    }
    Ok(())
}

fn report(
    file: &str,
    table: &TableSummary,
    is_new: bool,
    tally: &Tally,
    seconds: Duration,
    is_complete: bool,
) -> Report {
    let taken = tally.rows + tally.replaced + tally.unchanged;
    Report::new()
        .with("file", file)
        .with("table", table.definition.name.clone())
        .with("created", Cell::Bool(is_new))
        .with("complete", Cell::Bool(is_complete))
        .with("rows", Cell::Count(tally.rows))
        .with("replaced", Cell::Count(tally.replaced))
        .with("unchanged", Cell::Count(tally.unchanged))
        .with("duplicates", Cell::Count(tally.duplicates))
        .with("skipped", Cell::Count(tally.skipped))
        .with("bytes", Cell::Bytes(tally.bytes))
        .with("seconds", Cell::Duration(seconds))
        .with("rate", count_rate(taken, seconds))
}

/// A bar on a terminal; elsewhere nothing but what is left out.
struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(global: &Global, file: &str, total_bytes: Option<u64>) -> Self {
        if !io::stderr().is_terminal() || global.output != Format::Table {
            return Self { bar: None };
        }
        let (bar, template) = match total_bytes {
            Some(total) => (ProgressBar::new(total), "{prefix}  {bar:30}  {percent:>3} %  {msg}  {eta} left"),
            None => (ProgressBar::new_spinner(), "{prefix}  {spinner}  {bytes}  {msg}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(crate::output::escape_control(file).into_owned());
        Self { bar: Some(bar) }
    }

    fn show(&self, tally: &Tally, skipped: &[CliError], global: &Global) {
        for error in skipped {
            // A warning that cannot be written is no reason to stop; the report counts it.
            let say = || {
                let _ = match global.output {
                    Format::Json => error.write_json(&mut io::stderr()),
                    Format::Table | Format::Csv => {
                        let hintless = CliError { hint: None, why: None, ..error.clone() };
                        hintless.write_text(&mut io::stderr())
                    }
                };
            };
            match &self.bar {
                Some(bar) => bar.suspend(say),
                None => say(),
            }
        }
        if let Some(bar) = &self.bar {
            bar.set_position(tally.bytes);
            bar.set_message(format!("{} rows", count(tally.rows + tally.replaced + tally.unchanged)));
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::table_name;

    #[test]
    fn a_file_tells_its_table() {
        assert_eq!(table_name("/data/flights.csv.gz").unwrap(), "flights");
        assert_eq!(table_name("flights").unwrap(), "flights");
        for none in ["-", ".csv", "/"] {
            assert_eq!(table_name(none).unwrap_err().exit_status(), 2, "{none}");
        }
    }
}
