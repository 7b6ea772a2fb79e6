use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::encode::{EncodedRow, RowEncoder};
use crate::import::{Record, RecordError, RecordReader};
use crate::output::CliError;

/// Portions that wait between the threads. With the size of a portion it bounds the memory.
const PORTIONS_QUEUED: usize = 4;
/// A portion ends early when its keys and rows pass so many bytes.
const PORTION_BYTES_MAX: usize = 8 << 20;
/// So many bad records are shown one by one; all are counted.
pub(super) const SHOWN_MAX: u64 = 20;

/// How an input is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ParseOptions {
    /// Rows in a portion.
    pub(crate) batch_rows: usize,
    /// Whether bad records are left out rather than being the end.
    pub(crate) skips_errors: bool,
}

/// Records that are committed together, in the order of the input.
#[derive(Default)]
pub(super) struct Portion {
    /// The records.
    pub(super) rows: Vec<EncodedRow>,
    /// What was wrong with the records left out; the first [`SHOWN_MAX`] of the input.
    pub(super) shown: Vec<CliError>,
    /// The number of records left out.
    pub(super) skipped: u64,
    /// Bytes taken from the input up to here, as it is compressed.
    pub(super) consumed_bytes: u64,
    /// Set on the last portion: how the input ended.
    pub(super) end: Option<Result<(), RecordError>>,
}

/// Reads and encodes on a thread of its own.
///
/// The thread is not waited for: it ends when the receiver is dropped, or with the process where it waits for input.
pub(super) fn parse(
    reader: RecordReader,
    encoder: RowEncoder,
    options: ParseOptions,
) -> Result<Receiver<Portion>, CliError> {
    let (portions, received) = sync_channel(PORTIONS_QUEUED);
    thread::Builder::new()
        .name("import".to_owned())
        .spawn(move || Parser { reader, encoder, options, skipped: 0 }.run(&portions))
        .map_err(|error| CliError::new("io", format!("cannot start a thread to read the input: {error}")))?;
    Ok(received)
}

struct Parser {
    reader: RecordReader,
    encoder: RowEncoder,
    options: ParseOptions,
    /// Records left out so far.
    skipped: u64,
}

impl Parser {
    fn run(mut self, portions: &SyncSender<Portion>) {
        let mut record = Record::default();
        loop {
            let portion = self.next_portion(&mut record);
            let is_last = portion.end.is_some();
            if portions.send(portion).is_err() || is_last {
                return;
            }
        }
    }

    fn next_portion(&mut self, record: &mut Record) -> Portion {
        let mut portion = Portion::default();
        let mut bytes = 0;
        while portion.rows.len() < self.options.batch_rows && bytes < PORTION_BYTES_MAX {
            match self.next_row(record) {
                Ok(Some(row)) => {
                    bytes += row.key.len() + row.row.len();
                    portion.rows.push(row);
                }
                Ok(None) => {
                    portion.end = Some(Ok(()));
                    break;
                }
                Err(error) if self.options.skips_errors && !error.ends_input => {
                    self.skipped += 1;
                    portion.skipped += 1;
                    if self.skipped <= SHOWN_MAX {
                        portion.shown.push(error.error);
                    }
                    if portion.skipped >= self.options.batch_rows as u64 {
                        break;
                    }
                }
                Err(error) => {
                    portion.end = Some(Err(error));
                    break;
                }
            }
        }
        portion.consumed_bytes = self.reader.consumed_bytes();
        portion
    }

    fn next_row(&mut self, record: &mut Record) -> Result<Option<EncodedRow>, RecordError> {
        if self.reader.read(record)? { self.encoder.encode(record).map(Some) } else { Ok(None) }
    }
}
