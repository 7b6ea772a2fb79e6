//! The system fragment: what the store says about itself, in records like any others.
//!
//! ```text
//! "t/" name                       -> table definition
//! "f/" table id (u32 be) start    -> fragment id (u64 le): a fragment begins at `start`
//! "r/" instance id (u128 be)      -> registration of a secondary
//! "c/" time (u64 be) target       -> record of a clone that was taken
//! "k/" token (u128 be)            -> fingerprint (u64 le) of the commit that was made under the token
//! "l"                             -> who leads, and which copies may
//! ```

use planaria_types::{FragmentId, KeyRange, TableId, Uid};

use super::Store;
use crate::commit::CommitOp;
use crate::cursor::RecordKind;
use crate::sync::{Arc, Ordering};
use crate::version::{Fragment, StoreVersion};

pub(crate) const TABLE_PREFIX: &[u8] = b"t/";
pub(crate) const FRAGMENT_PREFIX: &[u8] = b"f/";
pub(crate) const REGISTRATION_PREFIX: &[u8] = b"r/";
pub(crate) const CLONE_PREFIX: &[u8] = b"c/";
pub(crate) const TOKEN_PREFIX: &[u8] = b"k/";
pub(crate) const LEAD_KEY: &[u8] = b"l";

pub(crate) fn table_key(name: &str) -> Vec<u8> {
    [TABLE_PREFIX, name.as_bytes()].concat()
}

pub(crate) fn fragment_key(table: TableId, start: &[u8]) -> Vec<u8> {
    [FRAGMENT_PREFIX, &table.0.to_be_bytes(), start].concat()
}

/// A system record's statement that a fragment of `table` begins at `start`.
pub(crate) struct Boundary<'a> {
    pub(crate) table: TableId,
    pub(crate) start: &'a [u8],
    pub(crate) id: FragmentId,
}

/// The fragment boundary that an operation states, if it states one.
pub(crate) fn boundary_of<'a>(op: &CommitOp<'a>) -> Option<Boundary<'a>> {
    if op.table != TableId::SYSTEM || op.kind != RecordKind::Put {
        return None;
    }
    boundary_in(op.key, op.row)
}

/// The fragment boundary that a live system record states, if it states one.
pub(crate) fn boundary_in<'a>(key: &'a [u8], row: &[u8]) -> Option<Boundary<'a>> {
    let (table, start) = key.strip_prefix(FRAGMENT_PREFIX)?.split_first_chunk::<4>()?;
    let id = FragmentId(u64::from_le_bytes(row.try_into().ok()?));
    Some(Boundary { table: TableId(u32::from_be_bytes(*table)), start, id })
}

/// `version` with a fragment that begins at the boundary: the table's first one, or half of the one that held the key.
/// `None` if there is one already. Fragments below `upto` are complete; `flushed` is where a new table starts.
///
/// The name that the boundary states may be borne by a fragment that this copy made on its own, beyond a fork: then the
/// new one gets another. Two of one name would be taken for one.
pub(crate) fn with_boundary(
    version: &StoreVersion,
    boundary: &Boundary<'_>,
    upto: Uid,
) -> Option<StoreVersion> {
    let names = || version.fragments().iter().map(|fragment| fragment.id.0);
    let id = if names().any(|name| name == boundary.id.0) {
        FragmentId(names().max().unwrap_or(0).saturating_add(1))
    } else {
        boundary.id
    };
    match version.find(boundary.table, boundary.start) {
        Some(fragment) if fragment.range.start == boundary.start => None,
        Some(fragment) => {
            let halves = split(fragment, boundary.start, id, upto);
            Some(version.replace(&[fragment.id], halves.into_iter().map(Arc::new).collect()))
        }
        None => {
            let range = KeyRange::new(boundary.start, None);
            let fragment = Fragment::new(id, boundary.table, range, Uid::ZERO);
            Some(version.replace(&[], vec![Arc::new(fragment)]))
        }
    }
}

impl Store {
    /// Sees to it that a fragment begins at the boundary. Doing it twice changes nothing. The caller is the writer.
    pub(super) fn ensure_boundary(&self, boundary: &Boundary<'_>, upto: Uid) {
        // Whoever changes the structure has fragments in a manifest that is not in place yet.
        let _structure = self.lock_structure();
        if self.published.replace(|version| with_boundary(version, boundary, upto)).is_some() {
            self.next_fragment.fetch_max(boundary.id.0.saturating_add(1), Ordering::AcqRel);
            self.name_above(&self.published.version());
            // A split freezes what the fragment had in memory.
            self.work.signal_flush();
        }
    }

    /// Sees to it that the names of all fragments of a version are taken.
    pub(super) fn name_above(&self, version: &StoreVersion) {
        let highest = version.fragments().iter().map(|fragment| fragment.id.0).max().unwrap_or(0);
        self.next_fragment.fetch_max(highest.saturating_add(1), Ordering::AcqRel);
    }

    /// The next fragment's name.
    pub(crate) fn new_fragment_id(&self) -> FragmentId {
        FragmentId(self.next_fragment.fetch_add(1, Ordering::AcqRel))
    }
}

/// Two fragments in place of one: the same runs with smaller rectangles, the same memtables, frozen.
fn split(fragment: &Fragment, at: &[u8], right_id: FragmentId, upto: Uid) -> [Fragment; 2] {
    let mut frozen = fragment.frozen.clone();
    if fragment.active.records() > 0 {
        frozen.push(crate::version::Frozen { memtable: Arc::clone(&fragment.active), upto });
    }
    let half = |id, range: KeyRange| Fragment {
        id,
        table: fragment.table,
        flushed: fragment.flushed,
        active: Arc::new(crate::memtable::Memtable::new()),
        frozen: frozen.clone(),
        upper: fragment.upper.iter().filter_map(|reference| reference.clip(&range)).collect(),
        bottom: fragment.bottom.iter().filter_map(|reference| reference.clip(&range)).collect(),
        range,
    };
    [
        half(fragment.id, KeyRange::new(fragment.range.start.clone(), Some(at.to_vec()))),
        half(right_id, KeyRange::new(at, fragment.range.end.clone())),
    ]
}
