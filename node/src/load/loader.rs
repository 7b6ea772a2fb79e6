use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use bytes::Bytes;
use planaria_net::wire::message::ScanSpec;
use planaria_types::KeyRange;

use super::encode::{EncodedRow, RowEncoder};
use super::parse::{ParseOptions, Portion, SHOWN_MAX, parse};
use super::seen::{SeenKeys, Sighting};
use crate::cli::OnDuplicate;
use crate::import::RecordReader;
use crate::key_text::format_key;
use crate::output::{CliError, count};
use crate::session::{Appender, Session, StoredRow, TableSummary};

/// How often a wait for input looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(100);

/// What an import has done, in records.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    /// New rows.
    pub(crate) rows: u64,
    /// Rows that took the place of others with the same key.
    pub(crate) replaced: u64,
    /// Rows that were there already, with the same contents.
    pub(crate) unchanged: u64,
    /// Records left out because another row with the same key was there.
    pub(crate) duplicates: u64,
    /// Bad records left out.
    pub(crate) skipped: u64,
    /// Bytes taken from the input, as it is compressed.
    pub(crate) bytes: u64,
}

impl Tally {
    /// Rows of the input that are in the table now.
    fn present(&self) -> u64 {
        self.rows + self.replaced + self.unchanged
    }
}

/// One import: what is read, where it goes, and how.
pub(crate) struct Load<'a> {
    /// Where it goes.
    pub(crate) session: &'a dyn Session,
    /// The table there.
    pub(crate) table: &'a TableSummary,
    /// How the input is read.
    pub(crate) parse: ParseOptions,
    /// What happens at a key that is there with another row.
    pub(crate) on_duplicate: OnDuplicate,
    /// Set from outside when the import is to end.
    pub(crate) interrupted: &'a AtomicBool,
    /// Told of what was done after each portion, and of bad records that were left out.
    pub(crate) watch: &'a mut dyn FnMut(&Tally, &[CliError]),
}

impl Load<'_> {
    /// Imports all records, or those before the first that stops it. Says what was done in either case; whatever was
    /// imported is durable then.
    pub(crate) fn run(self, reader: RecordReader, encoder: RowEncoder) -> (Tally, Result<(), CliError>) {
        let mut tally = Tally::default();
        let outcome = self.load(reader, encoder, &mut tally);
        (tally, outcome)
    }

    fn load(self, reader: RecordReader, encoder: RowEncoder, tally: &mut Tally) -> Result<(), CliError> {
        let mut is_empty = true;
        let any = ScanSpec {
            table: self.table.definition.name.clone(),
            range: KeyRange::ALL,
            limit: Some(1),
            ..ScanSpec::default()
        };
        self.session.scan(any, &mut |_, _| {
            is_empty = false;
            Ok(false)
        })?;
        let portions = parse(reader, encoder, self.parse)?;
        let mut merger = Merger {
            session: self.session,
            table: self.table,
            appender: self.session.append(self.table)?,
            was_empty: is_empty,
            seen: SeenKeys::default(),
            on_duplicate: self.on_duplicate,
        };
        let outcome = loop {
            if self.interrupted.load(Ordering::Relaxed) {
                break Err(CliError::new("interrupted", "the import was interrupted"));
            }
            let portion = match portions.recv_timeout(PATIENCE) {
                Ok(portion) => portion,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => {
                    break Err(CliError::new("internal", "the thread that reads the input ended badly"));
                }
            };
            let (shown, end) = match merger.take(portion, tally) {
                Ok(taken) => taken,
                Err(error) => break Err(error),
            };
            (self.watch)(tally, &shown);
            match end {
                Some(Ok(())) => break Ok(()),
                Some(Err(error)) => break Err(error.into()),
                None => {}
            }
        };
        // What was pushed is made durable however the import ended.
        let finished = merger.appender.finish();
        if finished.is_err() {
            // Of what was pushed, only that is known to be there which was acknowledged.
            tally.rows = tally.rows.min(merger.appender.taken());
        }
        outcome.and(finished).map_err(|error| say_what_is_there(error, tally))
    }
}

/// Adds to an error what was imported before it, and how to go on.
fn say_what_is_there(error: CliError, tally: &Tally) -> CliError {
    let there = match tally.present() {
        0 => "no row was imported".to_owned(),
        rows => format!("{} rows before it are imported and stay", count(rows)),
    };
    let why = error.why.as_ref().map_or(there.clone(), |why| format!("{why}; {there}"));
    let again = "run the same import again to go on: rows that are there are passed over";
    let hint = error.hint.as_ref().map_or(again.to_owned(), |hint| format!("{hint}; then {again}"));
    error.because(why).hint(hint)
}

/// Brings portions into the table, by what is there.
struct Merger<'a> {
    session: &'a dyn Session,
    table: &'a TableSummary,
    appender: Box<dyn Appender + 'a>,
    /// Whether the table had no row when the import began: only keys of the import itself can be there then.
    was_empty: bool,
    seen: SeenKeys,
    on_duplicate: OnDuplicate,
}

type Ending = Option<Result<(), crate::import::RecordError>>;

/// What becomes of a portion's rows.
#[derive(Default)]
struct Merged {
    out: Vec<StoredRow>,
    tally: Tally,
    /// The row at which the import stops.
    stop: Option<CliError>,
}

impl Merger<'_> {
    /// Commits a portion. Returns what is to be shown of it, and the end if it is the last.
    fn take(&mut self, portion: Portion, tally: &mut Tally) -> Result<(Vec<CliError>, Ending), CliError> {
        let Portion { rows, mut shown, skipped, consumed_bytes, end } = portion;
        let merged = self.merge(rows)?;
        if !merged.out.is_empty() {
            self.appender.push(merged.out).inspect_err(|_| {
                // What of the portions before is known to be there is all that can be said.
                tally.rows = tally.rows.min(self.appender.taken());
            })?;
        }
        let before = tally.skipped;
        tally.rows += merged.tally.rows;
        tally.replaced += merged.tally.replaced;
        tally.unchanged += merged.tally.unchanged;
        tally.duplicates += merged.tally.duplicates;
        tally.skipped += skipped;
        tally.bytes = consumed_bytes;
        if before < SHOWN_MAX && tally.skipped > SHOWN_MAX {
            shown.push(CliError::new("skipped", "more records are left out; the report counts them all"));
        }
        merged.stop.map_or(Ok((shown, end)), Err)
    }

    fn merge(&mut self, rows: Vec<EncodedRow>) -> Result<Merged, CliError> {
        let sightings: Vec<_> = rows.iter().map(|row| self.seen.note(&row.key, row.line)).collect();
        let has_sighting = sightings.iter().any(|sighting| *sighting != Sighting::New);
        let mut merged = Merged::default();
        if self.was_empty && !has_sighting {
            merged.tally.rows = rows.len() as u64;
            merged.out = rows.into_iter().map(|EncodedRow { key, row, .. }| StoredRow { key, row }).collect();
            return Ok(merged);
        }
        if has_sighting {
            self.appender.settle()?;
        }
        let is_asked = |sighting: &Sighting| !self.was_empty || *sighting != Sighting::New;
        let asked = rows.iter().zip(&sightings).filter(|(_, sighting)| is_asked(sighting));
        let keys: Vec<&[u8]> = asked.map(|(row, _)| &row.key[..]).collect();
        let mut existing = self.session.get_many(self.table, &keys)?.into_iter();
        // Where rows of this portion lie in `out`, by key.
        let mut places: HashMap<Bytes, usize> = HashMap::with_capacity(rows.len());
        for (row, sighting) in rows.into_iter().zip(sightings) {
            let stored = if is_asked(&sighting) { existing.next().flatten() } else { None };
            let place = places.get(&row.key).copied();
            let pending = place.and_then(|place| merged.out.get_mut(place));
            let is_same = match (&pending, &stored) {
                (Some(pending), _) => Some(pending.row == row.row),
                (None, Some(stored)) => Some(*stored == row.row),
                (None, None) => None,
            };
            match (is_same, self.on_duplicate) {
                (None, _) => merged.tally.rows += 1,
                (Some(true), _) => {
                    merged.tally.unchanged += 1;
                    continue;
                }
                (Some(false), OnDuplicate::Replace) => merged.tally.replaced += 1,
                (Some(false), OnDuplicate::Skip) => {
                    merged.tally.duplicates += 1;
                    continue;
                }
                (Some(false), OnDuplicate::Stop) => {
                    merged.stop = Some(self.duplicate(&row, sighting)?);
                    break;
                }
            }
            if let Some(pending) = pending {
                pending.row = row.row;
            } else {
                places.insert(row.key.clone(), merged.out.len());
                merged.out.push(StoredRow { key: row.key, row: row.row });
            }
        }
        Ok(merged)
    }

    fn duplicate(&self, row: &EncodedRow, sighting: Sighting) -> Result<CliError, CliError> {
        let definition = &self.table.definition;
        let parts = format_key(definition, &row.key)?;
        let key = if definition.is_typed() {
            let columns = definition.schema()?.1.key_columns();
            columns
                .zip(&parts)
                .map(|(column, part)| format!("{}={part}", column.name))
                .collect::<Vec<_>>()
                .join(", ")
        } else {
            parts.join(", ")
        };
        let (what, why) = match sighting {
            Sighting::Maybe(Some(first)) => (
                format!("line {}: the key {key} is that of line {first}, with other contents", row.line),
                format!("line {first} was imported first"),
            ),
            Sighting::Maybe(None) => (
                format!("line {}: the key {key} is there already, with other contents", row.line),
                "an earlier line has it, or the table had it before".to_owned(),
            ),
            Sighting::New => (
                format!("line {}: the key {key} is in the table already, with other contents", row.line),
                "the table had it before this import".to_owned(),
            ),
        };
        Ok(CliError::new("duplicate_key", what).because(why).hint(
            "correct the line, or use --on-duplicate replace to take the later row, or --on-duplicate skip to keep the first",
        ))
    }
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
