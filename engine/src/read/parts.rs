use planaria_types::{Fingerprint, KeyRange, Uid};

use super::fingerprint::{fingerprint, keys_of_block, visit_live};
use crate::error::Result;
use crate::sync::Arc;
use crate::version::Fragment;

/// Up to so many records, as the indexes count them, boundaries are looked for among the records themselves.
const SCANNED_RECORDS_MAX: u64 = 4_096;
/// Blocks that are looked at for each part asked for; of more, only every so manieth is.
const BLOCKS_PER_PART: usize = 32;

/// A part of a key range, and what it holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    /// The first key behind the part; `None` if it has no upper limit. It begins where the part before it ends.
    pub end: Option<Vec<u8>>,
    /// The fingerprint of its records.
    pub fingerprint: Fingerprint,
}

/// Cuts `range` into at most `count` parts of about the same number of records, at the cut `at`. The fragments are those
/// of one table that overlap the range, in key order.
///
/// The boundaries follow the indexes of the runs, so that most of the records are not read; where few are left, the
/// records themselves.
pub(crate) fn parts(
    fragments: &[&Arc<Fragment>],
    range: &KeyRange,
    at: Uid,
    count: usize,
) -> Result<Vec<Part>> {
    let mut boundaries = block_boundaries(fragments, range, count.max(1))?;
    if boundaries.is_empty() {
        boundaries = record_boundaries(fragments, range, at, count.max(1))?;
    }
    let mut parts = Vec::with_capacity(boundaries.len() + 1);
    let mut start = range.start.clone();
    for end in boundaries.into_iter().map(Some).chain([range.end.clone()]) {
        let keys = KeyRange::new(std::mem::take(&mut start), end);
        let mut sum = Fingerprint::EMPTY;
        for fragment in fragments {
            sum += fingerprint(fragment, &keys, at)?;
        }
        start = keys.end.clone().unwrap_or_default();
        parts.push(Part { end: keys.end, fingerprint: sum });
    }
    Ok(parts)
}

/// Boundaries between blocks; none where the range holds too few records for that.
fn block_boundaries(fragments: &[&Arc<Fragment>], range: &KeyRange, count: usize) -> Result<Vec<Vec<u8>>> {
    let mut spans = Vec::new();
    for reference in fragments.iter().flat_map(|fragment| fragment.references()) {
        let Some(keys) = reference.keys.intersect(range) else { continue };
        let index = reference.run.index()?;
        let Some(first) = index.find(&keys.start, Uid::MAX) else { continue };
        let last = keys.end.as_ref().and_then(|end| index.find(end, Uid::MAX)).unwrap_or(index.len() - 1);
        spans.push((reference, index, first, last + 1));
    }
    let total: usize = spans.iter().map(|(_, _, first, end)| end - first).sum();
    let step = total / count.saturating_mul(BLOCKS_PER_PART) + 1;
    let mut blocks = Vec::new();
    for (reference, index, first, end) in spans {
        let sampled = (first..end).skip(step / 2).step_by(step);
        blocks.extend(sampled.filter_map(|at| {
            let records = u64::from(index.entry(at)?.records).saturating_mul(step as u64);
            Some((reference, index, at, records))
        }));
    }
    let records: u64 = blocks.iter().map(|(_, _, _, records)| records).sum();
    if records <= SCANNED_RECORDS_MAX {
        return Ok(Vec::new());
    }
    blocks.sort_by(|(_, a, at_a, _), (_, b, at_b, _)| a.separator(*at_a).0.cmp(b.separator(*at_b).0));
    let share = records.div_ceil(count as u64);
    let mut boundaries: Vec<Vec<u8>> = Vec::new();
    let mut gathered = 0;
    for (reference, index, at, records) in blocks {
        gathered += records;
        if gathered < share {
            continue;
        }
        let end = keys_of_block(&reference.run, index, at).end.unwrap_or_default();
        let last = boundaries.last().unwrap_or(&range.start);
        if end > *last && range.is_below_end(&end) && boundaries.len() + 1 < count {
            boundaries.push(end);
            gathered = 0;
        }
    }
    Ok(boundaries)
}

/// Boundaries between records that are live.
fn record_boundaries(
    fragments: &[&Arc<Fragment>],
    range: &KeyRange,
    at: Uid,
    count: usize,
) -> Result<Vec<Vec<u8>>> {
    let mut keys = Vec::new();
    for fragment in fragments {
        visit_live(fragment, range, at, |key, _, _| {
            keys.push(key.to_vec());
            true
        })?;
    }
    let share = keys.len().div_ceil(count).max(1);
    let firsts = keys.into_iter().step_by(share).skip(1);
    Ok(firsts.filter(|key| *key > range.start).collect())
}
