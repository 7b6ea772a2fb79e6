use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use crate::cli::OnDuplicate;
use crate::import::{ReaderOptions, RecordReader, SAMPLE_RECORDS_DEFAULT, schema_from, sniff};
use crate::load::{Load, ParseOptions, RowEncoder};
use crate::output::CliError;
use crate::session::Session;

/// Rows that are committed together.
const BATCH_ROWS: usize = 1_000;

/// A table to load.
pub(super) struct SampleTable {
    pub(super) name: &'static str,
    file: PathBuf,
    key: &'static [&'static str],
    replace: bool,
}

/// The tables that ship with the program: nycflights13, CC0; see `node/data`.
const SHIPPED: [(&str, &[&str], &[u8]); 4] = [
    ("weather", &["origin", "time_hour"], include_bytes!("../../data/weather.csv.gz")),
    ("planes", &["tailnum"], include_bytes!("../../data/planes.csv.gz")),
    ("airports", &["faa"], include_bytes!("../../data/airports.csv.gz")),
    ("airlines", &["carrier"], include_bytes!("../../data/airlines.csv.gz")),
];

/// The tables of the demo, as files in `dir`; with `flights`, that large one too.
pub(super) fn tables(dir: &Path, flights: Option<&Path>) -> Result<Vec<SampleTable>, CliError> {
    let mut tables = Vec::new();
    for (name, key, bytes) in SHIPPED {
        let file = dir.join(format!("{name}.csv.gz"));
        std::fs::write(&file, bytes)
            .map_err(|error| CliError::new("io", format!("cannot write {}: {error}", file.display())))?;
        tables.push(SampleTable { name, file, key, replace: false });
    }
    if let Some(file) = flights {
        let key = &["time_hour", "carrier", "flight", "origin"];
        tables.push(SampleTable { name: "flights", file: file.to_path_buf(), key, replace: true });
    }
    Ok(tables)
}

/// Creates a table with sniffed types and fills it; returns the number of rows.
pub(super) fn load(session: &dyn Session, table: &SampleTable) -> Result<u64, CliError> {
    let options = ReaderOptions { null_text: "NA".into(), ..ReaderOptions::default() };
    let path = table.file.display().to_string();
    let mut reader = RecordReader::open(&path, &options)?;
    let sample: Vec<_> = reader.sample(SAMPLE_RECORDS_DEFAULT).cloned().collect();
    let columns = reader.columns();
    let guesses = sniff(columns.len(), &sample);
    let key: Vec<String> = table.key.iter().map(|&column| column.to_owned()).collect();
    let schema = schema_from(columns, &guesses, &key, &[])?;
    let created = session.create_table(table.name, Some(schema))?;
    let encoder = RowEncoder::new(&created.definition, reader.columns())?;
    let load = Load {
        session,
        table: &created,
        parse: ParseOptions { batch_rows: BATCH_ROWS, skips_errors: false },
        on_duplicate: if table.replace { OnDuplicate::Replace } else { OnDuplicate::Stop },
        interrupted: &AtomicBool::new(false),
        watch: &mut |_, _| {},
    };
    let (tally, outcome) = load.run(reader, encoder);
    outcome.map(|()| tally.rows)
}
