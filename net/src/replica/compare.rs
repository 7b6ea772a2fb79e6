//! What a primary reads for a reconcile: parts of spans with their fingerprints, and the records of ranges.

use planaria_engine::{Snapshot, Spans};
use planaria_replication::primary::{PartsRead, RangesRead};
use planaria_replication::{PartSum, Span, Tiling};
use planaria_types::{Fingerprint, KeyRange};

use super::convert::{self, tiling_out};
use crate::Result;

/// All tables together are cut into so many times the parts asked for, at most.
const ALL_TABLES: usize = 32;

/// Cuts spans into at most so many parts each, and takes their fingerprints; with no span, all tables.
pub fn tilings(snapshot: &Snapshot, spans: &[Span], parts: u32) -> Result<Vec<Tiling>> {
    let parts = (parts as usize).max(1);
    if !spans.is_empty() {
        let cut = |span: &Span| Ok(tiling_out(span.table, snapshot.parts(span.table, &span.keys, parts)?));
        return spans.iter().map(cut).collect();
    }
    let tables = snapshot.table_ids();
    let each = (parts.saturating_mul(ALL_TABLES) / tables.len().max(1)).clamp(1, parts);
    let cut = |table| Ok(tiling_out(table, snapshot.parts(table, &KeyRange::ALL, each)?));
    tables.into_iter().map(cut).collect()
}

/// As [`tilings`], as if the database held nothing but `held`.
fn tilings_within(snapshot: &Snapshot, spans: &[Span], held: &Spans, parts: u32) -> Result<Vec<Tiling>> {
    let all: Vec<Span>;
    let (spans, parts) = if spans.is_empty() {
        all = held.keys().map(|table| Span::all(*table)).collect();
        let each = (parts.max(1) as usize).saturating_mul(ALL_TABLES) / all.len().max(1);
        (all.as_slice(), each.clamp(1, parts.max(1) as usize))
    } else {
        (spans, (parts as usize).max(1))
    };
    // What lies beside it is empty, so that the parts of what is held are parts of the whole span, too.
    let cut = |span: &Span| {
        if let Some(keys) = within(span, held) {
            return Ok(tiling_out(span.table, snapshot.parts(span.table, &keys, parts)?));
        }
        let nothing = PartSum { count: 0, short: Fingerprint::EMPTY.short() };
        Ok(Tiling::new(span.table, &[], vec![nothing]))
    };
    spans.iter().map(cut).collect()
}

/// What of a span is held.
fn within(span: &Span, held: &Spans) -> Option<KeyRange> {
    held.get(&span.table)?.intersect(&span.keys)
}

pub(super) fn read_parts(
    snapshot: &Snapshot,
    spans: &[Span],
    held: Option<&Spans>,
    parts: u32,
) -> Result<PartsRead> {
    let tilings = match held {
        Some(held) => tilings_within(snapshot, spans, held, parts)?,
        None => tilings(snapshot, spans, parts)?,
    };
    Ok(PartsRead::Parts { snapshot: snapshot.uid(), tilings })
}

/// Reads the records of spans, up to about `bytes_max`; those of what is held alone, if that is not everything.
pub(super) fn read_ranges(
    snapshot: &Snapshot,
    spans: &[Span],
    held: Option<&Spans>,
    bytes_max: u64,
) -> Result<RangesRead> {
    let mut records = Vec::new();
    let mut bytes = 0;
    let mut done = 0;
    let mut next = None;
    for span in spans {
        // The first span is read in any case, so that every answer says something.
        if done > 0 && bytes >= bytes_max {
            break;
        }
        let keys = match held {
            Some(held) => within(span, held),
            None => Some(span.keys.clone()),
        };
        let Some(keys) = keys else {
            done += 1;
            continue;
        };
        let room = usize::try_from(bytes_max.saturating_sub(bytes)).unwrap_or(usize::MAX);
        let chunk = snapshot.range_records(span.table, &keys, room)?;
        for change in chunk.records {
            let record = convert::record_out(change);
            bytes += record.weight();
            records.push(record);
        }
        next = chunk.next;
        if next.is_some() {
            break;
        }
        done += 1;
    }
    Ok(RangesRead::Ranges { snapshot: snapshot.uid(), done, next, records })
}
