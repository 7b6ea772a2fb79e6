//! Comparing two databases by the fingerprints of their ranges.

use bytes::Bytes;
use planaria_engine::{Database, Snapshot};
use planaria_net::replica::tilings;
use planaria_net::wire::message::RemoteError;
use planaria_replication::{Span, Tiling};
use planaria_types::{KeyRange, Uid};

use crate::handler::remote;

/// Parts that one question may ask for.
const PARTS_MAX: usize = 65_536;
/// Keys and rows that are read for one answer, in bytes.
const KEYS_BYTES_MAX: usize = 8 << 20;
/// Keys in one answer.
const KEYS_MAX: usize = 4_096;

/// A record by its key, the commit that wrote it, and eight bytes of a hash of it.
pub(crate) type KeySum = (Bytes, Uid, [u8; 8]);

fn snapshot(database: &Database, at: Option<Uid>) -> Result<Snapshot, RemoteError> {
    match at {
        Some(at) => database.snapshot_at(at).map_err(remote),
        None => Ok(database.snapshot()),
    }
}

/// The parts of spans with their fingerprints, and the cut that was read.
pub(crate) fn parts(
    database: &Database,
    at: Option<Uid>,
    spans: &[Span],
    parts: u32,
) -> Result<(Uid, Vec<Tiling>), RemoteError> {
    if spans.len().saturating_mul(parts as usize) > PARTS_MAX || parts as usize > PARTS_MAX {
        return Err(RemoteError::new("usage", format!("at most {PARTS_MAX} parts are told at once")));
    }
    let snapshot = snapshot(database, at)?;
    let tilings = tilings(&snapshot, spans, parts).map_err(|error| {
        let code = if error.code() == "damaged" { "damaged" } else { "compare" };
        RemoteError::new(code, format!("ranges cannot be compared: {error}"))
    })?;
    Ok((snapshot.uid(), tilings))
}

/// The records of a span, and whether there are more than are told.
pub(crate) fn keys(database: &Database, at: Uid, span: &Span) -> Result<(Vec<KeySum>, bool), RemoteError> {
    let snapshot = snapshot(database, Some(at))?;
    let chunk = snapshot.range_records(span.table, &span.keys, KEYS_BYTES_MAX).map_err(remote)?;
    let more = chunk.next.is_some() || chunk.records.len() > KEYS_MAX;
    let sum = |record: planaria_engine::Change| {
        let own = KeyRange::inclusive(&record.key, &record.key);
        let sum = snapshot.fingerprint(span.table, own).map_err(remote)?;
        Ok((record.key, record.uid, sum.short()))
    };
    Ok((chunk.records.into_iter().take(KEYS_MAX).map(sum).collect::<Result<_, RemoteError>>()?, more))
}
