//! Partial copies: what such a copy holds, and that it answers for nothing else.

use std::collections::BTreeMap;

use planaria_types::{DatabaseId, KeyRange, Portion, TableId, Uid};

use crate::cursor::RecordKind;
use crate::database::{Database, Snapshot};
use crate::error::{Error, Result};
use crate::hash;
use crate::read::{Changes, Scan};
use crate::refresh::{ChangeChunk, RefreshEnd};
use crate::store::{Store, table_key};
use crate::sync::{Arc, AtomicBool, Ordering, RwLock};
use crate::table::TableDef;
use crate::version::StoreVersion;

/// The keys of some tables, by table.
pub type Spans = BTreeMap<TableId, KeyRange>;

/// What a partial copy holds, and by which tables it is asked for it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Held {
    portion: Portion,
    spans: Spans,
}

/// What a store holds, where that is not everything.
#[derive(Debug)]
pub(crate) struct Holding {
    /// False for a whole copy, which stays one: its readers look no further.
    is_partial: AtomicBool,
    held: RwLock<Arc<Held>>,
}

impl Holding {
    pub(crate) fn new(is_partial: bool) -> Self {
        Self { is_partial: AtomicBool::new(is_partial), held: RwLock::new(Arc::default()) }
    }

    fn get(&self) -> Option<Arc<Held>> {
        self.is_partial.load(Ordering::Acquire).then(|| Arc::clone(&self.held.read()))
    }

    pub(crate) fn set(&self, held: Held) {
        *self.held.write() = Arc::new(held);
        self.is_partial.store(true, Ordering::Release);
    }
}

/// The spans of a portion in a version, at a cut: those of its tables that exist, and all that the database says of itself.
fn spans_of(version: &StoreVersion, at: Uid, portion: &Portion) -> Result<Spans> {
    let mut spans = Spans::from([(TableId::SYSTEM, KeyRange::ALL)]);
    for (name, keys) in portion.tables() {
        let key = table_key(name);
        let Some(fragment) = version.find(TableId::SYSTEM, &key) else { continue };
        let found = fragment.get(&key, hash::key_hash(&key), at)?;
        if let Some(definition) = found.filter(|version| version.kind == RecordKind::Put) {
            spans.insert(TableDef::decode(&definition.row)?.id, keys.clone());
        }
    }
    Ok(spans)
}

impl Store {
    /// What readers see, the cut to read it at, and what of it they may ask for.
    pub(crate) fn pin_held(&self) -> (Arc<StoreVersion>, Uid, Option<Arc<Held>>) {
        let mut held = self.holding.get();
        loop {
            let (version, at) = self.pin();
            let Some(before) = held else { return (version, at, None) };
            let after = self.holding.get();
            // While another portion is put in place only what both hold may be asked for, so whatever was the same before
            // and after belongs to the version.
            match after {
                Some(after) if !Arc::ptr_eq(&before, &after) => held = Some(after),
                _ => return (version, at, Some(before)),
            }
        }
    }

    /// Has readers ask for no more than what is held now and at the end of a refresh, until [`Store::update_holding`].
    pub(crate) fn narrow_holding_to(&self, end: &RefreshEnd) {
        let (Some(held), Some(next)) = (self.holding.get(), &end.portion) else { return };
        let portion = held.portion.intersect(next);
        let (version, at) = self.pin();
        // Of what cannot be read nothing is held.
        let spans = spans_of(&version, at, &portion).unwrap_or_default();
        self.holding.set(Held { portion, spans });
    }

    /// What will be held of a version at a cut, to be told with the cut: whoever waits for it asks at once.
    pub(crate) fn holding_at(
        &self,
        version: &StoreVersion,
        at: Uid,
        portion: Option<&Portion>,
    ) -> Option<Held> {
        self.holding.get()?;
        let portion = portion?.clone();
        // What cannot be read now is told by the update behind the installation.
        let spans = spans_of(version, at, &portion).ok()?;
        Some(Held { portion, spans })
    }

    /// Has readers ask for what the manifest says to be held.
    pub(crate) fn update_holding(&self) -> Result<()> {
        let Some(portion) = self.group(|group| group.portion.clone()) else { return Ok(()) };
        let (version, at) = self.pin();
        let spans = spans_of(&version, at, &portion)?;
        self.holding.set(Held { portion, spans });
        Ok(())
    }

    /// Fails on a partial copy, which must not do `what`.
    pub(crate) fn check_whole(&self, what: &'static str) -> Result<()> {
        match self.group(|group| group.portion.clone()) {
            Some(portion) => Err(Error::Partial { what, holds: portion.to_string() }),
            None => Ok(()),
        }
    }
}

impl Database {
    /// What a partial copy holds; none of a copy that holds everything.
    pub fn portion(&self) -> Option<Portion> {
        self.store().group(|group| group.portion.clone())
    }

    /// Fails with `Partial` on a partial copy, which must not do `what`: it "cannot lead", say.
    pub fn check_whole(&self, what: &'static str) -> Result<()> {
        self.store().check_whole(what)
    }

    /// Makes an empty copy a partial secondary of the given database, durably. It holds nothing until its first round.
    ///
    /// # Errors
    ///
    /// `Invalid` if the copy holds commits and is not a partial copy of that database already.
    pub fn become_partial(&self, database: DatabaseId) -> Result<()> {
        self.store().become_partial(database)?;
        self.store().update_holding()
    }
}

impl Snapshot {
    /// Whether the keys can be asked for: always, unless the copy is partial.
    pub fn holds(&self, table: TableId, keys: &KeyRange) -> bool {
        self.held().is_none_or(|held| held.spans.get(&table).is_some_and(|span| span.covers(keys)))
    }

    /// Fails with `NotHeld` unless all keys of the range can be asked for.
    pub(crate) fn check_held(&self, table: TableId, keys: &KeyRange) -> Result<()> {
        if self.holds(table, keys) { Ok(()) } else { Err(self.not_held(table, keys.to_string())) }
    }

    /// Fails with `NotHeld` unless the key can be asked for.
    #[inline]
    pub(crate) fn check_key_held(&self, table: TableId, key: &[u8]) -> Result<()> {
        match self.held() {
            None => Ok(()),
            Some(held) if held.spans.get(&table).is_some_and(|span| span.contains(key)) => Ok(()),
            Some(_) => Err(self.not_held(table, format!("{:?}", key.escape_ascii().to_string()))),
        }
    }

    #[cold]
    fn not_held(&self, table: TableId, keys: String) -> Error {
        let known = self.tables().ok().and_then(|all| all.into_iter().find(|known| known.id == table));
        let holds = self.held().map(|held| held.portion.to_string()).unwrap_or_default();
        Error::NotHeld { table: known.map_or_else(|| format!("#{table}"), |known| known.name), keys, holds }
    }

    /// The records of a key range, or the refusal to answer for it.
    pub(crate) fn scan_held(&self, table: TableId, range: KeyRange) -> Scan {
        if let Err(error) = self.check_held(table, &range) {
            return Scan::refused(range, error);
        }
        let fragments = self.version().overlapping(table, &range).cloned().collect();
        Scan::new(fragments, range, self.uid())
    }

    /// The spans of a portion: what of it exists at this cut, and all that the database says of itself.
    pub fn spans_of(&self, portion: &Portion) -> Result<Spans> {
        spans_of(self.version(), self.uid(), portion)
    }

    /// As [`Snapshot::changes`], within spans alone.
    pub fn changes_within(
        &self,
        spans: &Spans,
        since: Uid,
        from: (TableId, &[u8]),
        bytes_max: usize,
    ) -> Result<ChangeChunk> {
        let mut chunk = ChangeChunk { at: self.uid(), changes: Vec::new(), next: None };
        let mut bytes = 0;
        for (&table, keys) in spans.range(from.0..) {
            let behind = if table == from.0 { from.1 } else { &[] };
            let Some(keys) = keys.intersect(&KeyRange::new(behind, None)) else { continue };
            let mut changes = Changes::within(Arc::clone(self.version()), since, self.uid(), table, keys);
            while let Some(change) = changes.next()? {
                if bytes >= bytes_max {
                    chunk.next = Some((change.table, change.key));
                    return Ok(chunk);
                }
                bytes += change.key.len() + change.row.len();
                chunk.changes.push(change);
            }
        }
        Ok(chunk)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "portion_tests.rs"]
mod tests;
