use std::sync::Arc;

use planaria_types::{Fingerprint, KeyRange, Uid};

use super::merge::{Direction, Merge};
use super::source::Source;
use crate::cursor::RecordKind;
use crate::error::Result;
use crate::hash;
use crate::run::{Index, Run};
use crate::version::{Fragment, RunRef};

/// The fingerprint of the live records of a fragment within `range` at the cut `at`: keys, UIDs and rows of the newest
/// puts, no marks, no shadowed versions.
///
/// The fingerprints that bottom blocks store are used wholly where nothing newer, no clip and no end of the range
/// touches the keys of the block; everything else is merged and summed. The work follows what was touched, and the
/// number of blocks, not the number of records.
pub(crate) fn fingerprint(fragment: &Arc<Fragment>, range: &KeyRange, at: Uid) -> Result<Fingerprint> {
    let mut sum = Fingerprint::EMPTY;
    let Some(range) = fragment.range.intersect(range) else { return Ok(sum) };
    let mut newer = Merge::new(Source::above_bottom(fragment), range.clone(), Direction::Forward)?;
    // Everything below is in the sum.
    let mut summed = range.start.clone();
    for reference in fragment.bottom.iter().filter(|reference| reference.keys.overlaps(&range)) {
        let index = reference.run.index()?;
        let first = index.find(&range.start, Uid::MAX).unwrap_or(index.len());
        for block in first..index.len() {
            let keys = keys_of_block(&reference.run, index, block);
            if !range.is_below_end(&keys.start) {
                break;
            }
            let Some(stored) =
                stored(reference, index, block, at).filter(|_| is_whole(&keys, reference, &range))
            else {
                continue;
            };
            if newer.key().is_some_and(|key| key < keys.start.as_slice()) {
                newer.seek(&keys.start)?;
            }
            if newer.key().is_some_and(|key| keys.is_below_end(key)) {
                continue;
            }
            sum += merged(fragment, &KeyRange::new(summed, Some(keys.start)), at)?;
            sum += stored;
            summed = keys.end.unwrap_or_default();
        }
    }
    sum += merged(fragment, &KeyRange::new(summed, range.end), at)?;
    Ok(sum)
}

/// What a block stores, if the whole of it is to be seen at `at`.
fn stored(reference: &RunRef, index: &Index, block: usize, at: Uid) -> Option<Fingerprint> {
    let seen = index.entry(block)?.highest_uid <= at.min(reference.upto);
    index.fingerprint(block).filter(|_| seen)
}

fn is_whole(keys: &KeyRange, reference: &RunRef, range: &KeyRange) -> bool {
    !keys.is_empty() && reference.keys.covers(keys) && range.covers(keys)
}

/// The keys that block `at` accounts for: those behind the block before, up to its own last one. A key that begins in
/// the block before is accounted for there.
pub(super) fn keys_of_block(run: &Run, index: &Index, at: usize) -> KeyRange {
    let behind = |key: &[u8]| {
        let mut behind = Vec::with_capacity(key.len() + 1);
        behind.extend_from_slice(key);
        behind.push(0);
        behind
    };
    let start = match at.checked_sub(1) {
        Some(before) => behind(index.separator(before).0),
        None => run.meta().smallest_key.clone(),
    };
    KeyRange::new(start, Some(behind(index.separator(at).0)))
}

/// The fingerprint by its definition: all records are read.
pub(crate) fn merged(fragment: &Arc<Fragment>, range: &KeyRange, at: Uid) -> Result<Fingerprint> {
    let mut sum = Fingerprint::EMPTY;
    visit_live(fragment, range, at, |key, uid, row| {
        sum.add_hash(hash::record_hash(key, uid, row));
        true
    })?;
    Ok(sum)
}

/// Shows each live record of a fragment within `range` at the cut `at`, in key order, until `visit` says false.
pub(crate) fn visit_live(
    fragment: &Arc<Fragment>,
    range: &KeyRange,
    at: Uid,
    mut visit: impl FnMut(&[u8], Uid, &[u8]) -> bool,
) -> Result<()> {
    let Some(range) = fragment.range.intersect(range) else { return Ok(()) };
    let mut merge = Merge::new(Source::of_fragment(fragment), range, Direction::Forward)?;
    let mut done = Vec::new();
    let mut any_done = false;
    while let Some(key) = merge.key() {
        if merge.uid() <= at && !(any_done && key == done.as_slice()) {
            if merge.kind() == RecordKind::Put && !visit(key, merge.uid(), merge.row_ref()) {
                return Ok(());
            }
            done.clear();
            done.extend_from_slice(key);
            any_done = true;
        }
        merge.advance()?;
    }
    Ok(())
}
