//! What a primary remembers of its secondaries, and what a handshake depends on.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;

use planaria_types::{Epoch, InstanceId, KeyRange, Portion, TableId, Uid};
use serde::{Deserialize, Serialize};

use crate::commit::Batch;
use crate::database::{Database, Durability, Snapshot};
use crate::error::{Error, Result};
use crate::planted::planted;
use crate::portion::Spans;
use crate::run::Run;
use crate::store::REGISTRATION_PREFIX;
use crate::version::StoreVersion;

/// A secondary that a primary keeps delete marks for. A record of the system fragment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Registration {
    /// The copy.
    pub instance: InstanceId,
    /// Its name, for people.
    pub name: String,
    /// Everything up to this UID is durable there, at least.
    pub durable: Uid,
    /// Where it listens, if it told.
    pub address: Option<SocketAddr>,
    /// Whether an operator has it wait: it stays registered, and is not served.
    pub paused: bool,
    /// Why nothing is preserved for it any more, if so. Being brought up to date ends that.
    pub given_up: Option<GivenUp>,
    /// What it holds, if it is partial. It stands behind the rest of the record.
    #[serde(skip)]
    pub portion: Option<Portion>,
}

impl Registration {
    /// A registration as it begins.
    pub fn new(instance: InstanceId, name: impl Into<String>, durable: Uid) -> Self {
        Self {
            instance,
            name: name.into(),
            durable,
            address: None,
            paused: false,
            given_up: None,
            portion: None,
        }
    }

    fn encode(&self) -> postcard::Result<Vec<u8>> {
        let row = postcard::to_stdvec(self)?;
        match &self.portion {
            Some(portion) => postcard::to_extend(portion, row),
            None => Ok(row),
        }
    }

    fn decode(row: &[u8]) -> postcard::Result<Self> {
        let (known, rest): (Self, _) = postcard::take_from_bytes(row)?;
        let portion = if rest.is_empty() { None } else { Some(postcard::from_bytes(rest)?) };
        Ok(Self { portion, ..known })
    }
}

/// What a snapshot keeps on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldBack {
    /// Bytes of run files that the database itself no longer consists of.
    pub bytes: u64,
    /// What they can become: all run files that the snapshot was taken of.
    pub bytes_at_most: u64,
    /// `Options::preserved_bytes_max`.
    pub cap: u64,
}

/// That delete marks are not preserved for a secondary any more: it was away for too long, or they became too many.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct GivenUp {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Bytes of delete marks that were preserved until then, about.
    pub bytes: u64,
    /// The age of its position at that time, in milliseconds.
    pub age_ms: u64,
    /// Which cap was exceeded.
    pub cap: Cap,
}

/// A cap on what is preserved for secondaries that are away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Cap {
    /// `Options::preserved_bytes_max`.
    Bytes,
    /// `Options::preserved_age_max_ms`.
    Age,
}

impl std::fmt::Display for GivenUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.cap {
            Cap::Bytes => write!(f, "{} bytes of delete marks exceed preserved_bytes_max", self.bytes),
            Cap::Age => write!(f, "away for {} s, longer than preserved_age_max_ms", self.age_ms / 1_000),
        }
    }
}

/// What is preserved for a secondary that is away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Preserved {
    /// Bytes of the delete marks above its position, as they lie in run files: an estimate from a sample of blocks. It
    /// contains what is preserved for those that are further ahead.
    pub bytes: u64,
    /// How long ago its position was current, in milliseconds; 0 if it has everything.
    pub age_ms: u64,
}

/// How far a position lies behind the last commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lag {
    /// Commits, where memory still holds all of them.
    pub commits: Option<u64>,
    /// Bytes that bringing a copy up to date would move, about.
    pub bytes: u64,
    /// Milliseconds between the two commits.
    pub ms: u64,
}

/// What bringing a copy up to date would take, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefreshEstimate {
    /// Whether memory or the log holds every commit since the position.
    pub retained: bool,
    /// Commits since the position: about what the log holds of them.
    pub tail_bytes: u64,
    /// Records that changed since the position, as they lie in run files: an estimate from a sample of their blocks.
    pub delta_bytes: u64,
    /// All run files.
    pub total_bytes: u64,
}

/// Blocks of a run that are looked into for an estimate, at most.
const SAMPLED_BLOCKS: usize = 32;

fn registration_key(instance: InstanceId) -> Vec<u8> {
    [REGISTRATION_PREFIX, &instance.0.to_be_bytes()].concat()
}

impl Database {
    /// The registered secondaries.
    pub fn registrations(&self) -> Result<Vec<Registration>> {
        let range = KeyRange::prefix(REGISTRATION_PREFIX);
        let decode = |record: Result<(bytes::Bytes, bytes::Bytes)>| {
            Registration::decode(&record?.1)
                .map_err(|error| Error::Invalid(format!("a registration cannot be read: {error}")))
        };
        self.snapshot().scan(TableId::SYSTEM, range).map(decode).collect()
    }

    /// Remembers a secondary; durable some milliseconds later unless asked for at once. Returns the commit.
    pub fn register(&self, registration: &Registration, durability: Durability) -> Result<Uid> {
        let row = registration
            .encode()
            .map_err(|error| Error::Invalid(format!("a registration cannot be written: {error}")))?;
        let mut batch = Batch::new();
        batch.put(TableId::SYSTEM, registration_key(registration.instance), row);
        self.commit(batch, durability)
    }

    /// Forgets a secondary: nothing is preserved for it any more.
    pub fn forget(&self, instance: InstanceId) -> Result<Uid> {
        let mut batch = Batch::new();
        batch.delete(TableId::SYSTEM, registration_key(instance));
        self.commit(batch, Durability::Synced)
    }

    /// What is preserved for a copy at `position`.
    pub fn preserved(&self, position: Uid) -> Preserved {
        let store = self.store();
        if position >= store.appended() {
            return Preserved::default();
        }
        let version = store.pin().0;
        let references = version.fragments().iter().flat_map(|fragment| fragment.references());
        let bytes = references
            .filter(|reference| reference.upto > position)
            .map(|reference| {
                let meta = reference.run.meta();
                let marks = u128::from(meta.records.saturating_sub(meta.puts));
                let changed = u128::from(changed_bytes(&reference.run, position, &KeyRange::ALL));
                (changed * marks / u128::from(meta.records.max(1))) as u64
            })
            .sum();
        Preserved { bytes, age_ms: self.now_millis().saturating_sub(position.millis()) }
    }

    /// Whether a cap ends what is preserved for a copy at `position`.
    pub fn exceeds_cap(&self, position: Uid) -> Option<GivenUp> {
        let options = &self.store().options;
        let Preserved { bytes, age_ms } = self.preserved(position);
        let cap = if age_ms > options.preserved_age_max_ms {
            Cap::Age
        } else if bytes > options.preserved_bytes_max {
            Cap::Bytes
        } else {
            return None;
        };
        Some(GivenUp { at_ms: self.now_millis(), bytes, age_ms, cap })
    }

    /// How far `position` lies behind the last commit.
    pub fn lag(&self, position: Uid) -> Lag {
        let last = self.store().appended();
        if position >= last {
            return Lag { commits: Some(0), ..Lag::default() };
        }
        let ms = last.millis().saturating_sub(position.millis());
        if let Some((commits, bytes)) = self.store().feed.measure_after(position) {
            return Lag { commits: Some(commits), bytes, ms };
        }
        let estimate = self.estimate_refresh(position);
        let bytes = if estimate.retained { estimate.tail_bytes } else { estimate.delta_bytes };
        Lag { commits: None, bytes, ms }
    }

    /// Promises, durably, to follow no epoch older than this. A primary of an older epoch is deposed by it: it takes no
    /// more commits, also after a restart.
    ///
    /// # Errors
    ///
    /// `Deposed` if a newer epoch was promised before.
    pub fn promise(&self, epoch: Epoch) -> Result<()> {
        if self.promised() == epoch {
            return Ok(());
        }
        if planted!(self.store().options, LosePromise) {
            return Ok(());
        }
        self.store().promise(epoch)
    }

    /// The newest epoch that the copy has promised to follow.
    pub fn promised(&self) -> Epoch {
        self.store().group(|group| group.promised)
    }

    /// Intervals within which no cut is readable, both ends exclusive.
    pub fn sparse(&self) -> Vec<(Uid, Uid)> {
        self.store().group(|group| group.sparse.clone())
    }

    /// A view of everything in the log, shown or not.
    pub fn snapshot_of_all(&self) -> Snapshot {
        self.snapshot().at(Uid::MAX)
    }

    /// What a snapshot keeps on the disk of run files that have been merged away since it was taken, whoever else keeps them.
    pub fn held_back(&self, snapshot: &Snapshot) -> HeldBack {
        fn files(version: &StoreVersion) -> HashMap<&Path, u64> {
            let references = version.fragments().iter().flat_map(|fragment| fragment.references());
            references.map(|own| (own.run.path(), own.run.meta().len)).collect()
        }
        let now = self.store().pin().0;
        let (own, current) = (files(snapshot.version()), files(&now));
        let merged = own.iter().filter(|(file, _)| !current.contains_key(*file));
        HeldBack {
            bytes: merged.map(|(_, len)| len).sum(),
            bytes_at_most: own.values().sum(),
            cap: self.store().options.preserved_bytes_max,
        }
    }

    /// What bringing a copy at `since` up to date would take.
    pub fn estimate_refresh(&self, since: Uid) -> RefreshEstimate {
        let store = self.store();
        let version = store.pin().0;
        let (mut delta_bytes, mut total_bytes) = (0, 0);
        for fragment in version.fragments() {
            delta_bytes += fragment.memtable_changed_bytes(since);
            for reference in fragment.references() {
                total_bytes += reference.bytes();
                if reference.upto > since {
                    delta_bytes += changed_bytes(&reference.run, since, &KeyRange::ALL);
                }
            }
        }
        let retained = since >= store.appended()
            || store.feed.after(since, 1).is_some()
            || store.segment_before(since).is_some_and(|from| from.number >= store.log.retained_from());
        RefreshEstimate { retained, tail_bytes: self.tail_bytes(since), delta_bytes, total_bytes }
    }

    /// About the bytes of the log above `since`: counted where the commits are in memory, else whole segments, and of the one
    /// that `since` lies in the part that its UIDs suggest.
    fn tail_bytes(&self, since: Uid) -> u64 {
        let store = self.store();
        let appended = store.appended();
        if since >= appended {
            return 0;
        }
        if let Some((_, bytes)) = store.feed.measure_after(since) {
            return bytes;
        }
        let Some(from) = store.segment_before(since) else { return 0 };
        let segments = store.log.segments();
        let behind =
            segments.iter().filter(|own| own.number > from.number).map(|own| own.end_offset).sum::<u64>();
        let begun = segments.iter().find(|own| own.number == from.number).map_or(0, |own| own.end_offset);
        let until = store.segment_after(from.number).map_or(appended, |next| next.uid);
        let all_ms = until.millis().saturating_sub(from.uid.millis()).max(1);
        let rest_ms = until.millis().saturating_sub(since.millis()).min(all_ms);
        behind + (u128::from(begun) * u128::from(rest_ms) / u128::from(all_ms)) as u64
    }
}

impl Snapshot {
    /// What bringing a copy at `since` up to date would take that holds these spans alone. The log is no way for it.
    pub fn estimate_within(&self, spans: &Spans, since: Uid) -> RefreshEstimate {
        let (mut delta_bytes, mut total_bytes) = (0, 0);
        for (table, span) in spans {
            for fragment in self.version().overlapping(*table, span) {
                delta_bytes += fragment.memtable_changed_bytes(since);
                for reference in fragment.references() {
                    let Some(keys) = reference.keys.intersect(span) else { continue };
                    total_bytes += reference.bytes();
                    if reference.upto > since {
                        delta_bytes += changed_bytes(&reference.run, since, &keys);
                    }
                }
            }
        }
        RefreshEstimate { retained: false, tail_bytes: 0, delta_bytes, total_bytes }
    }
}

/// About the bytes of a run's records within `keys` above `since`, keys and rows as they are.
///
/// The index tells the blocks that hold any; the share of such records in them is taken from a sample. Whole blocks
/// would mislead where changes are scattered: with a hundred records a block, one change in a hundred touches most.
fn changed_bytes(run: &Run, since: Uid, keys: &KeyRange) -> u64 {
    // Where the file is not here yet, all of it may have changed.
    let Ok(index) = run.index() else { return run.meta().len };
    let is_within = |at: usize| {
        let begins_below_end = at.checked_sub(1).is_none_or(|at| keys.is_below_end(index.separator(at).0));
        begins_below_end && index.separator(at).0 >= keys.start.as_slice()
    };
    let is_touched = |at: &usize| {
        index.entry(*at).is_some_and(|entry| entry.highest_uid > since)
            && (*keys == KeyRange::ALL || is_within(*at))
    };
    let touched: Vec<usize> = (0..index.len()).filter(is_touched).collect();
    let bytes: u64 = touched.iter().filter_map(|at| index.entry(*at)).map(|entry| u64::from(entry.len)).sum();
    let (mut records, mut changed) = (0_u64, 0_u64);
    for at in touched.iter().step_by(touched.len().div_ceil(SAMPLED_BLOCKS).max(1)) {
        // A block that cannot be read is somebody else's error; here it only makes the estimate coarser.
        let Ok(block) = run.block(*at) else { continue };
        let Ok(keys) = block.keys_above(since) else { continue };
        records += block.count() as u64;
        changed += keys;
    }
    let share = if records == 0 { 1.0 } else { changed as f64 / records as f64 };
    // Records move as they are, and lie compressed.
    let meta = run.meta();
    let expands = meta.raw_bytes as f64 / meta.len.max(1) as f64;
    (bytes as f64 * share * expands).ceil() as u64
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use crate::os::{MemOs, Os};
    use crate::{Batch, Database, Durability, Options};

    #[test]
    fn a_record_that_changed_again_and_again_moves_once() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { background: false, ..Options::default() };
        let db = Database::open_with(dir.path().join("db"), options).unwrap();
        let table = db.create_raw_table("t").unwrap();
        let put = |keys: &mut dyn Iterator<Item = u64>, turn: u8| {
            let mut batch = Batch::new();
            for key in keys {
                batch.put(table.id(), key.to_be_bytes(), vec![turn; 100]);
            }
            db.write(batch, Durability::Background).unwrap()
        };
        let since = put(&mut (0..20_000), 0);
        db.compact().unwrap();
        put(&mut (0..20_000).step_by(100), 1);
        db.compact().unwrap();
        let moves_once = db.estimate_refresh(since).delta_bytes;
        // The copy that is away may lead, so every version is kept that it might have to go back to.
        db.set_floors(Some(since), Some(since));
        for turn in 2..52 {
            put(&mut (0..20_000).step_by(100), turn);
        }
        db.compact().unwrap();
        let versions: u64 = db.status().unwrap().tables.iter().map(|table| table.versions).sum();
        assert!(versions > 29_000, "old versions are there: {versions}");
        let estimate = db.estimate_refresh(since);
        assert!(estimate.delta_bytes < 4 * moves_once, "{estimate:?}, after {moves_once} bytes");
        // In memory as well, where they are not compressed.
        for turn in 52..102 {
            put(&mut (0..20_000).step_by(100), turn);
        }
        let estimate = db.estimate_refresh(since);
        assert!(
            estimate.delta_bytes < 4 * moves_once + 2 * 200 * 108,
            "{estimate:?}, after {moves_once} bytes"
        );
        let last = put(&mut (0..100), 1);
        assert_eq!(db.estimate_refresh(last).delta_bytes, 0);
    }

    #[test]
    fn a_snapshot_that_keeps_merged_files_is_told_once_they_outgrow_the_cap() {
        for (cap, is_past) in [(50_000, true), (1 << 30, false)] {
            let dir = tempfile::tempdir().unwrap();
            let options = Options { background: false, preserved_bytes_max: cap, ..Options::default() };
            let db = Database::open_with(dir.path().join("db"), options).unwrap();
            let table = db.create_raw_table("t").unwrap();
            let put = |turn: u8| {
                let mut batch = Batch::new();
                for key in 0..10_000_u64 {
                    batch.put(table.id(), key.to_be_bytes(), [turn; 100]);
                }
                db.write(batch, Durability::Background).unwrap();
                db.compact().unwrap();
            };
            put(0);
            let snapshot = db.snapshot();
            assert!(db.estimate_refresh(planaria_types::Uid::ZERO).total_bytes > 50_000);
            assert_eq!(db.held_back(&snapshot).bytes, 0, "the store consists of them");
            put(1);
            let held = db.held_back(&snapshot);
            // What was written of the table itself lies in a file that stays.
            assert!(held.bytes <= held.bytes_at_most && held.bytes * 10 > held.bytes_at_most * 9, "{held:?}");
            assert_eq!(held.bytes > held.cap, is_past);
            assert_eq!(db.held_back(&db.snapshot()).bytes, 0);
        }
    }

    #[test]
    fn the_length_of_the_log_since_a_position_is_told_by_its_time() {
        let disk = MemOs::new(1);
        let os: std::sync::Arc<dyn Os> = std::sync::Arc::new(disk.clone());
        let options = Options { background: false, log_segment_bytes: 256 << 10, os, ..Options::default() };
        let db = Database::open_with("/db", options.clone()).unwrap();
        let table = db.create_raw_table("t").unwrap();
        let put = |key: u64| {
            disk.set_now_millis(disk.now_millis() + 10);
            table.put(key.to_be_bytes(), vec![7; 2_000]).unwrap()
        };
        let commits: Vec<_> = (0..1_700).map(put).collect();
        let tail = |db: &Database, since| db.estimate_refresh(since).tail_bytes;
        assert_eq!(tail(&db, *commits.last().unwrap()), 0);
        drop((table, db));
        // The commits are no longer in memory.
        let db = Database::open_with("/db", options).unwrap();
        // The first UIDs were ahead of the clock.
        for (at, since) in commits.iter().enumerate().skip(700).step_by(11) {
            let rest = 2_000 * (1_699 - at) as u64;
            let told = tail(&db, *since);
            assert!(told >= rest && told <= rest + rest / 5 + 8_000, "{told} of {rest}");
        }
    }

    #[test]
    fn changes_scattered_over_all_blocks_are_not_taken_for_all_records() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { background: false, ..Options::default() };
        let db = Database::open_with(dir.path().join("db"), options).unwrap();
        let table = db.create_raw_table("t").unwrap();
        let put = |keys: &mut dyn Iterator<Item = u64>| {
            let mut batch = Batch::new();
            for key in keys {
                batch.put(table.id(), key.to_be_bytes(), vec![7; 100]);
            }
            db.write(batch, Durability::Background).unwrap()
        };
        let since = put(&mut (0..20_000));
        put(&mut (0..20_000).step_by(100));
        db.compact().unwrap();
        let changed = db.estimate_refresh(since).delta_bytes;
        let whole = db.estimate_refresh(planaria_types::Uid::ZERO).delta_bytes;
        // As they move, keys and rows, though they are compressed to a tenth of it.
        for (told, records) in [(changed, 200), (whole, 20_000)] {
            let moves = records * 108;
            assert!(told > moves * 3 / 4 && told < moves * 5 / 4, "{told} bytes of {moves}");
        }
    }
}
