//! The records that are measured with.

use planaria_engine::{Batch, Database, Durability, Table};

use crate::output::CliError;

/// Records in a batch while data is made.
const BATCH_RECORDS: u64 = 1_000;

/// The key of the record with this number: numbers are spread over all keys, each once.
pub(super) fn key(number: u64) -> [u8; 8] {
    mixed(number).to_be_bytes()
}

/// A row, half of it compressible; other rounds have other bytes.
fn row(number: u64, round: u64, bytes: usize) -> Vec<u8> {
    let mut row = Vec::with_capacity(bytes + 8);
    let mut state = mixed(number ^ round.rotate_left(40));
    while row.len() < bytes / 2 {
        state = mixed(state);
        row.extend_from_slice(&state.to_le_bytes());
    }
    row.resize(bytes, b'.');
    row
}

/// A permutation of all 64-bit numbers (the finaliser of `SplitMix64`, by Steele, Lea and Flood).
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Writes the records with these numbers, durably in the end.
pub(super) fn write(
    db: &Database,
    table: &Table,
    numbers: impl Iterator<Item = u64>,
    round: u64,
    row_bytes: usize,
) -> Result<(), CliError> {
    let mut batch = Batch::new();
    let mut waiting = 0;
    for number in numbers {
        batch.put(table.id(), key(number), row(number, round, row_bytes));
        waiting += 1;
        if waiting == BATCH_RECORDS {
            db.write(std::mem::take(&mut batch), Durability::Background)?;
            waiting = 0;
        }
    }
    if waiting > 0 {
        db.write(batch, Durability::Background)?;
    }
    db.sync()?;
    Ok(())
}
