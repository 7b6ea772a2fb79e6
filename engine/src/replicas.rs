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
    /// Bytes of the delete marks above its position: an estimate, by their share of the records of each run. It
    /// contains what is preserved for those that are further ahead.
    pub bytes: u64,
    /// About how long ago the first commit that it lacks was made, in milliseconds; 0 if it has everything.
    pub age_ms: u64,
}

/// How far a position lies behind the last commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lag {
    /// Commits, where memory still holds all of them.
    pub commits: Option<u64>,
    /// Bytes that bringing a copy up to date would move, about.
    pub bytes: u64,
    /// About how long ago the first commit that it lacks was made, in milliseconds.
    pub ms: u64,
}

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
        let bytes = self.mark_bytes(position);
        Preserved { bytes, age_ms: self.lacks_for_ms(position) }
    }

    /// How long ago the first commit above `position` was made. Where memory does not know it any more, it is not older than
    /// the oldest record of the runs that hold newer ones, nor than `position`: a copy that went away when nobody had written for
    /// a month has not been away for a month.
    fn lacks_for_ms(&self, position: Uid) -> u64 {
        let store = self.store();
        let remembered =
            store.feed.after(position, 1).and_then(|commits| Some(commits.first()?.commit.uid()));
        let oldest_of_runs = || {
            let version = store.pin().0;
            let references = version.fragments().iter().flat_map(|fragment| fragment.references());
            let newer = references.filter(|reference| !reference.is_as_old_as(position));
            newer.map(|reference| reference.run.meta().smallest_uid).min()
        };
        let first = remembered.or_else(oldest_of_runs).unwrap_or(position).max(position);
        // Of an empty copy nothing is known but that everything is newer.
        let first = if first == Uid::ZERO { store.appended() } else { first };
        self.now_millis().saturating_sub(first.millis())
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
        let ms = self.lacks_for_ms(position);
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
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use crate::os::{MemOs, Os};
    use crate::{Batch, Database, Durability, Options};

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
    fn a_copy_is_as_long_away_as_the_first_commit_that_it_lacks() {
        const MONTH_MS: u64 = 31 * 86_400_000;
        let disk = MemOs::new(1);
        let os: std::sync::Arc<dyn Os> = std::sync::Arc::new(disk.clone());
        let options = Options { background: false, os, ..Options::default() };
        let db = Database::open_with("/db", options.clone()).unwrap();
        let table = db.create_raw_table("t").unwrap();
        let had = table.put(b"a", b"1").unwrap();
        disk.set_now_millis(disk.now_millis() + MONTH_MS);
        table.put(b"b", b"2").unwrap();
        disk.set_now_millis(disk.now_millis() + 1_000);
        let check = |db: &Database| {
            let aways = [db.preserved(had).age_ms, db.lag(had).ms];
            assert!(aways.iter().all(|ms| *ms <= 2_000), "nobody had written for a month: {aways:?}");
            assert_eq!(db.exceeds_cap(had), None);
        };
        check(&db);
        db.compact().unwrap();
        drop((table, db));
        let db = Database::open_with("/db", options.clone()).unwrap();
        let empty = db.lag(planaria_types::Uid::ZERO).ms;
        assert!(empty <= 2 * MONTH_MS, "an empty copy does not lack what was before the database: {empty}");
        // It is known from the log or from the runs alone now, of which the last is the oldest that it lacks.
        disk.set_now_millis(disk.now_millis() + MONTH_MS);
        assert!(db.exceeds_cap(had).is_some(), "it has been away for as long now");
    }
}
