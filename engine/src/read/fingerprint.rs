use std::sync::Arc;

use planaria_types::{Fingerprint, KeyRange, Uid};

use super::merge::{Direction, Merge};
use super::source::Source;
use crate::cursor::RecordKind;
use crate::error::Result;
use crate::hash;
use crate::version::Fragment;

/// The fingerprint of the live records of a fragment within `range` at the cut `at`: keys, UIDs and rows of the newest
/// puts, no marks, no shadowed versions.
pub(crate) fn fingerprint(fragment: &Arc<Fragment>, range: &KeyRange, at: Uid) -> Result<Fingerprint> {
    let mut sum = Fingerprint::EMPTY;
    let Some(range) = fragment.range.intersect(range) else { return Ok(sum) };
    let mut merge = Merge::new(Source::of_fragment(fragment, None), range, Direction::Forward)?;
    let mut done = Vec::new();
    let mut any_done = false;
    while let Some(key) = merge.key() {
        if merge.uid() <= at && !(any_done && key == done.as_slice()) {
            if merge.kind() == RecordKind::Put {
                sum.add_hash(hash::record_hash(key, merge.uid(), merge.row_ref()));
            }
            done.clear();
            done.extend_from_slice(key);
            any_done = true;
        }
        merge.advance()?;
    }
    Ok(sum)
}
