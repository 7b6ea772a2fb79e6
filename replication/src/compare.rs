//! What a comparison of range fingerprints says: spans of keys, their parts, and the records that take their place.

use bytes::Bytes;
use planaria_types::{KeyRange, TableId, Uid};
use serde::{Deserialize, Serialize};

use crate::{InvalidMessage, Record, RecordKind};

/// Spans in one message, at most.
pub(crate) const SPANS_MAX: usize = 4_096;
/// Parts that one message tells of, at most.
pub(crate) const PARTS_MAX: usize = 65_536;
const RECORDS_MAX: usize = 1 << 20;
/// Bytes of all bounds of one message, written out.
const BOUNDS_BYTES_MAX: usize = 64 << 20;
/// The longest key of a record, in bytes; the end of a range may be one longer.
const KEY_BYTES_MAX: usize = 65_536;

/// A key range of one table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Span {
    /// The table or index.
    pub table: TableId,
    /// The keys.
    pub keys: KeyRange,
}

impl Span {
    /// All keys of a table.
    pub fn all(table: TableId) -> Self {
        Self { table, keys: KeyRange::ALL }
    }

    /// Whether a record lies within.
    pub fn holds(&self, record: &Record) -> bool {
        record.table == self.table && self.keys.contains(&record.key)
    }

    /// What is left of the span from `key` on; `None` if nothing is.
    pub(crate) fn from(&self, key: &[u8]) -> Option<Self> {
        let rest = self.keys.intersect(&KeyRange::new(key, None))?;
        Some(Self { table: self.table, keys: rest })
    }

    /// What of the span lies below `key`; `None` if nothing does.
    pub(crate) fn below(&self, key: &[u8]) -> Option<Self> {
        let part = self.keys.intersect(&KeyRange::new(Vec::new(), Some(key.to_vec())))?;
        Some(Self { table: self.table, keys: part })
    }
}

/// A question of a comparison: the parts of these spans, each with its fingerprint. One at a time is open.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Compare {
    /// The round.
    pub round: u64,
    /// The spans; none to ask for all tables from their first key to their last.
    pub spans: Vec<Span>,
}

/// The answer of a comparison: a tiling of each span that was asked for, in the same order; of each table, if all
/// tables were.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Parts {
    /// The round.
    pub round: u64,
    /// The snapshot that was read.
    pub snapshot: Uid,
    /// The tilings.
    pub tilings: Vec<Tiling>,
}

/// A span in parts: n parts have n - 1 bounds between them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tiling {
    /// The table.
    pub table: TableId,
    /// The first key of each part but the first, ascending.
    pub bounds: Vec<Bound>,
    /// What each part holds.
    pub sums: Vec<PartSum>,
}

/// A key, less what it has in common with the one before it in the list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Bound {
    /// Bytes in common with the bound before.
    pub shared: u16,
    /// The rest.
    pub rest: Bytes,
}

/// What a part holds, in short.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PartSum {
    /// The number of its live records.
    pub count: u64,
    /// Eight bytes of their fingerprint: [`planaria_types::Fingerprint::short`].
    pub short: [u8; 8],
}

impl Tiling {
    /// A tiling of a span of `table`: the first key of each part but the first, and what each part holds.
    pub fn new(table: TableId, firsts: &[Vec<u8>], sums: Vec<PartSum>) -> Self {
        let mut before: &[u8] = &[];
        let mut bounds = Vec::with_capacity(firsts.len());
        for first in firsts {
            let common = before.iter().zip(first).take_while(|(a, b)| a == b).count();
            let shared = u16::try_from(common).unwrap_or(u16::MAX);
            let rest = first.get(usize::from(shared)..).unwrap_or_default();
            bounds.push(Bound { shared, rest: Bytes::copy_from_slice(rest) });
            before = first;
        }
        Self { table, bounds, sums }
    }

    /// The first keys of all parts but the first; `None` if they do not ascend.
    fn firsts(&self) -> Option<Vec<Vec<u8>>> {
        let mut firsts: Vec<Vec<u8>> = Vec::with_capacity(self.bounds.len());
        for bound in &self.bounds {
            let before = firsts.last().map_or(&[][..], Vec::as_slice);
            let shared = before.get(..usize::from(bound.shared))?;
            let first = [shared, &bound.rest[..]].concat();
            if first.as_slice() <= before || first.len() > KEY_BYTES_MAX {
                return None;
            }
            firsts.push(first);
        }
        Some(firsts)
    }

    /// The parts of `keys` and what they hold; `None` if they are not a tiling of it.
    pub fn of(&self, keys: &KeyRange) -> Option<Vec<(Span, PartSum)>> {
        let firsts = self.firsts()?;
        let inside = firsts.iter().all(|first| *first > keys.start && keys.is_below_end(first));
        if !inside || self.sums.len() != firsts.len() + 1 {
            return None;
        }
        let starts = std::iter::once(keys.start.clone()).chain(firsts.iter().cloned());
        let ends = firsts.iter().cloned().map(Some).chain([keys.end.clone()]);
        let spans =
            starts.zip(ends).map(|(start, end)| Span { table: self.table, keys: KeyRange::new(start, end) });
        Some(spans.zip(self.sums.iter().copied()).collect())
    }
}

/// A question for the records of ranges that differ. Several may be open; they are answered in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RangesRequest {
    /// The round.
    pub round: u64,
    /// The spans, at least one.
    pub spans: Vec<Span>,
}

/// All live records of some spans: they take the place of whatever the copy has there.
///
/// The answer holds all of the first `done` spans that were asked for, and of the one behind them all below `next`. What
/// did not fit is asked for again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RangesReply {
    /// The round.
    pub round: u64,
    /// The snapshot that was read.
    pub snapshot: Uid,
    /// How many spans are answered wholly.
    pub done: u32,
    /// The first key of the span behind them that was not looked at; `None` if nothing of it was.
    pub next: Option<Bytes>,
    /// The records, puts all of them, in the order of the spans and of their keys.
    pub records: Vec<Record>,
}

fn validate_spans(spans: &[Span]) -> Result<(), InvalidMessage> {
    if spans.len() > SPANS_MAX {
        return Err(InvalidMessage("too many spans in a message"));
    }
    let too_long = |key: &[u8]| key.len() > KEY_BYTES_MAX;
    for span in spans {
        if span.keys.is_empty() {
            return Err(InvalidMessage("a span without keys"));
        }
        if too_long(&span.keys.start) || span.keys.end.as_deref().is_some_and(too_long) {
            return Err(InvalidMessage("a span with too long a key"));
        }
    }
    Ok(())
}

impl Compare {
    pub(crate) fn validate(&self) -> Result<(), InvalidMessage> {
        validate_spans(&self.spans)
    }
}

impl Parts {
    pub(crate) fn validate(&self) -> Result<(), InvalidMessage> {
        let parts: usize = self.tilings.iter().map(|tiling| tiling.sums.len()).sum();
        if parts > PARTS_MAX || self.tilings.len() > PARTS_MAX {
            return Err(InvalidMessage("too many parts in a message"));
        }
        let bounds = self.tilings.iter().flat_map(|tiling| &tiling.bounds);
        let bytes: usize = bounds.map(|bound| usize::from(bound.shared) + bound.rest.len()).sum();
        if bytes > BOUNDS_BYTES_MAX {
            return Err(InvalidMessage("the bounds of a message are too long"));
        }
        for tiling in &self.tilings {
            if tiling.sums.len() != tiling.bounds.len() + 1 {
                return Err(InvalidMessage("the parts of a span do not fit its bounds"));
            }
            if tiling.firsts().is_none() {
                return Err(InvalidMessage("the bounds of a span do not ascend"));
            }
        }
        Ok(())
    }
}

impl RangesRequest {
    pub(crate) fn validate(&self) -> Result<(), InvalidMessage> {
        if self.spans.is_empty() {
            return Err(InvalidMessage("a request for the records of nothing"));
        }
        validate_spans(&self.spans)
    }
}

impl RangesReply {
    pub(crate) fn validate(&self) -> Result<(), InvalidMessage> {
        if self.records.len() > RECORDS_MAX {
            return Err(InvalidMessage("too many records of ranges"));
        }
        if self.records.iter().any(|record| record.uid > self.snapshot) {
            return Err(InvalidMessage("a record is newer than its snapshot"));
        }
        if self.records.iter().any(|record| record.kind != RecordKind::Put) {
            return Err(InvalidMessage("a range is told by its live records alone"));
        }
        if self.done as usize > SPANS_MAX || (self.done == 0 && self.next.is_none()) {
            return Err(InvalidMessage("an answer that answers nothing"));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
