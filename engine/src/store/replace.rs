//! Ranges that take the place of whatever a copy has there: what a reconcile collects, and how it is installed.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use planaria_types::{KeyRange, TableId, Uid};

use super::Store;
use super::catalog::{boundary_in, boundary_of, with_boundary};
use super::flush::{NewRun, RunRefParts};
use super::rebase::{Layer, clipped_version, layered_version};
use super::write::follow;
use crate::error::{Error, Result};
use crate::refresh::RefreshEnd;
use crate::sync::Arc;
use crate::version::{Fragment, RunRef, StoreVersion};

/// Key ranges that are replaced. They do not overlap: of two that do, the later one counts.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// By table and first key.
    pieces: BTreeMap<(TableId, Vec<u8>), Piece>,
}

/// What is in the place of the keys of one range.
#[derive(Clone, Debug)]
struct Piece {
    end: Option<Vec<u8>>,
    /// The run with the records, among those of the reconcile; `None` if there are none.
    run: Option<usize>,
}

impl Pieces {
    /// Has `keys` replaced by what run number `run` holds of it, or by nothing.
    pub(crate) fn insert(&mut self, table: TableId, keys: &KeyRange, run: Option<usize>) {
        self.cut_out(table, keys);
        let piece = Piece { end: keys.end.clone(), run };
        self.pieces.insert((table, keys.start.clone()), piece);
    }

    fn cut_out(&mut self, table: TableId, keys: &KeyRange) {
        let first = (table, keys.start.clone());
        let before =
            self.pieces.range(..first.clone()).next_back().map(|((of, start), piece)| {
                (*of, KeyRange::new(start.clone(), piece.end.clone()), piece.run)
            });
        if let Some((of, own, run)) = before.filter(|(of, own, _)| *of == table && own.overlaps(keys)) {
            self.shorten(of, &own, run, keys);
        }
        while let Some(((of, start), piece)) = self.pieces.range(first.clone()..).next() {
            let own = KeyRange::new(start.clone(), piece.end.clone());
            if *of != table || !own.overlaps(keys) {
                break;
            }
            let run = piece.run;
            self.shorten(table, &own, run, keys);
        }
    }

    /// Leaves of a piece what lies outside of `keys`.
    fn shorten(&mut self, table: TableId, own: &KeyRange, run: Option<usize>, keys: &KeyRange) {
        self.pieces.remove(&(table, own.start.clone()));
        if own.start < keys.start {
            let piece = Piece { end: Some(keys.start.clone()), run };
            self.pieces.insert((table, own.start.clone()), piece);
        }
        if let Some(end) = keys.end.as_ref().filter(|end| own.is_below_end(end)) {
            self.pieces.insert((table, end.clone()), Piece { end: own.end.clone(), run });
        }
    }

    /// The pieces of a table that overlap `keys`, in key order.
    fn overlapping<'a>(
        &'a self,
        table: TableId,
        keys: &'a KeyRange,
    ) -> impl Iterator<Item = (KeyRange, Option<usize>)> + use<'a> {
        let first = (table, keys.start.clone());
        let before = self.pieces.range(..first.clone()).next_back();
        let rest = self.pieces.range((Bound::Included(first), Bound::Unbounded));
        before
            .into_iter()
            .chain(rest)
            .skip_while(move |((of, _), _)| *of != table)
            .take_while(move |((of, start), _)| *of == table && keys.is_below_end(start))
            .map(|((_, start), piece)| (KeyRange::new(start.clone(), piece.end.clone()), piece.run))
            .filter(move |(own, _)| own.overlaps(keys))
    }

    /// All of them, with the number of the run of each.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (TableId, KeyRange, Option<usize>)> {
        self.pieces.iter().map(|((table, start), piece)| {
            (*table, KeyRange::new(start.clone(), piece.end.clone()), piece.run)
        })
    }

    /// Whether a run still shows something.
    fn shows(&self, run: usize) -> bool {
        self.pieces.values().any(|piece| piece.run == Some(run))
    }
}

/// What a reconcile has collected.
#[derive(Debug, Default)]
pub(crate) struct Replacement {
    pub(crate) pieces: Pieces,
    pub(crate) runs: Vec<(NewRun, RunRefParts)>,
    /// System records among what was collected, as (key, row).
    pub(crate) boundaries: Vec<(Bytes, Bytes)>,
}

impl Store {
    /// Has merges leave every version that a cut at `base` shows, until another is named, or none: what is found equal
    /// to the primary's must still be there when what lies above is clipped.
    pub(crate) fn hold_versions(&self, base: Option<Uid>) {
        self.floors.lock().fork = base;
        // One that runs goes by the floors that it began with.
        drop(base.map(|_| self.work().compacting()));
    }

    /// `version` as it will be once the replacement is installed at `base`: nothing above, and in the place of the
    /// pieces what their runs hold.
    pub(crate) fn replaced_version(
        version: &StoreVersion,
        replacement: &Replacement,
        base: Uid,
    ) -> Result<StoreVersion> {
        let mut version = clipped_version(version, base)?;
        for (key, row) in &replacement.boundaries {
            if let Some(boundary) = boundary_in(key, row) {
                version = with_boundary(&version, &boundary, base).unwrap_or(version);
            }
        }
        let replaced = version.fragments().iter().map(|fragment| {
            let mut next = Fragment::clone(fragment);
            next.set_references(replaced_references(fragment, replacement, base))?;
            next.flushed = base;
            Ok(Arc::new(next))
        });
        Ok(StoreVersion::new(replaced.collect::<Result<_>>()?))
    }

    /// Installs a replacement and the live commits behind it; see [`crate::reconcile::Reconcile::install`].
    pub(crate) fn install_replacement(&self, replacement: &Replacement, end: &RefreshEnd) -> Result<()> {
        self.flush_all()?;
        let mut files = Vec::new();
        let installed = self.replace(replacement, end, &mut files);
        if installed.is_err() {
            self.discard(&files);
        } else {
            for (number, (run, _)) in replacement.runs.iter().enumerate() {
                if !replacement.pieces.shows(number) {
                    self.discard(std::slice::from_ref(run));
                }
            }
        }
        installed
    }

    fn replace(&self, replacement: &Replacement, end: &RefreshEnd, files: &mut Vec<NewRun>) -> Result<()> {
        let mut writer = self.lock_writer();
        self.check_flushed()?;
        let mut state =
            super::Writer { last: end.base, hash: end.base_hash, rebases: writer.rebases + 1, ..*writer };
        for logged in &end.live {
            state = follow(&state, &logged.commit, logged.hash)?;
        }
        if end.cut < end.sparse_to || end.cut > state.last || end.cut < end.base {
            return Err(Error::Invalid(format!(
                "ranges replaced at {} to {} cannot show the cut {}: the log ends at {}",
                end.base, end.sparse_to, end.cut, state.last
            )));
        }
        let mut layers = Vec::new();
        for (table, run) in self.write_live(&end.live, (&[], Uid::ZERO), files)? {
            layers.push(Layer { table, parts: self.adopt(&run)?, above: end.base, upto: state.last });
        }
        self.sync_run_dir()?;
        let (flushed, base) = (state.last, end.base);
        let change = |version: &StoreVersion| {
            let mut version = Self::replaced_version(version, replacement, base)?;
            for op in end.live.iter().flat_map(|logged| logged.commit.ops()) {
                if let Some(boundary) = boundary_of(&op) {
                    version = with_boundary(&version, &boundary, base).unwrap_or(version);
                }
            }
            layered_version(&version, &layers, flushed)
        };
        self.check_portion(end)?;
        self.rebase(&mut writer, state, change, end.cut, |group| {
            group.history = end.history.clone();
            group.portion.clone_from(&end.portion);
            // What was replaced has neither older versions nor marks.
            group.sparse.clear();
            group.version_floor = group.version_floor.max(end.cut);
            group.mark_floor = group.mark_floor.max(end.cut);
        })
    }
}

/// The references of a fragment without the keys of the pieces, and those of the pieces, which own their keys from UID 0.
fn replaced_references(fragment: &Fragment, replacement: &Replacement, base: Uid) -> Vec<RunRef> {
    let mut references = Vec::new();
    for reference in fragment.references() {
        let mut rest = Some(reference.keys.clone());
        for (keys, _) in replacement.pieces.overlapping(fragment.table, &reference.keys) {
            let Some(own) = rest.take() else { break };
            if own.start < keys.start {
                let before = KeyRange::new(own.start, Some(keys.start));
                references.extend(reference.clip(&before));
            }
            rest = keys.end.map(|end| KeyRange::new(end, own.end)).filter(|rest| !rest.is_empty());
        }
        references.extend(rest.and_then(|rest| reference.clip(&rest)));
    }
    for (keys, run) in replacement.pieces.overlapping(fragment.table, &fragment.range) {
        let parts = run.and_then(|run| replacement.runs.get(run)).map(|(_, parts)| parts);
        let Some(parts) = parts else { continue };
        let shown = keys.intersect(&fragment.range).and_then(|keys| keys.intersect(&parts.keys));
        references.extend(shown.map(|keys| parts.reference(keys, Uid::ZERO, base)));
    }
    references
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use planaria_types::{KeyRange, TableId};

    use super::Pieces;

    fn range(start: u8, end: Option<u8>) -> KeyRange {
        KeyRange::new(vec![start], end.map(|end| vec![end]))
    }

    #[test]
    fn of_pieces_that_overlap_the_later_counts() {
        let table = TableId(1);
        let mut pieces = Pieces::default();
        let mut model = [None; 40];
        let mut state = 7_u64;
        let mut below = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        for run in 0..300 {
            let (start, end) = (below(40) as u8, below(45) as u8);
            let keys = range(start, (end < 40).then_some(end));
            if keys.is_empty() {
                continue;
            }
            pieces.insert(TableId(2), &KeyRange::ALL, None);
            pieces.insert(table, &keys, Some(run));
            for key in 0..40_u8 {
                if keys.contains(&[key]) {
                    model[usize::from(key)] = Some(run);
                }
            }
            let asked = range(below(20) as u8, Some(20 + below(20) as u8));
            for key in 0..40_u8 {
                let found: Vec<_> =
                    pieces.overlapping(table, &asked).filter(|(own, _)| own.contains(&[key])).collect();
                assert!(found.len() <= 1, "key {key} is in two pieces");
                let found = found.first().and_then(|(_, run)| *run);
                if asked.contains(&[key]) {
                    assert_eq!(found, model[usize::from(key)], "key {key} after {run}");
                }
            }
        }
    }
}
