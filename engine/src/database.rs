use std::path::Path;
use std::thread::JoinHandle;

use bytes::Bytes;
use planaria_types::{DatabaseId, InstanceId, KeyRange, Position, TableId, Uid};

use crate::commit::Batch;
use crate::cursor::RecordKind;
use crate::error::{Error, Result};
use crate::hash;
use crate::options::Options;
use crate::portion::Held;
use crate::read::Scan;
use crate::store::{
    Pending, ReadRuns, Store, TABLE_PREFIX, Token, Written, fragment_key, table_key, token_key,
};
use crate::sync::{Arc, Mutex};
use crate::table::{Schema, TableDef};
use crate::table_handle::Table;
use crate::version::{Lineage, Role, StoreVersion};

/// When a commit is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Once it is on the disk: it survives a power cut.
    #[default]
    Synced,
    /// At once; it survives the end of the process, and is on the disk some milliseconds later.
    Background,
}

/// An open database: a directory with a store in it.
///
/// Cheap to clone; all clones are one database. It is closed when the last of them is dropped. Calls come from any
/// thread; readers never wait for writers.
///
/// ```
/// # fn main() -> Result<(), planaria_engine::Error> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("db");
/// use planaria_engine::Database;
///
/// let db = Database::open(path)?;
/// let birds = db.create_raw_table("birds")?;
/// birds.put("heron", "grey")?;
/// assert_eq!(birds.get("heron")?.as_deref(), Some(&b"grey"[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Database {
    handle: Arc<Handle>,
}

/// Closes the store when the last clone goes.
struct Handle {
    store: Arc<Store>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held while the tables are changed.
    catalog: Mutex<()>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        self.store.stop(threads);
    }
}

impl Database {
    /// Opens the database in `path`, which is created if there is none.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Options::default())
    }

    /// Opens a database with options of one's own.
    ///
    /// # Errors
    ///
    /// `InUse` while another process has it, `NotFound` or `Exists` where the directory is not what the options
    /// expect, `Damaged` and `Foreign` where its files are not.
    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        Self::open_reading(path.as_ref(), options, ReadRuns::AtOnce)
    }

    /// As [`Database::open_with`], for a directory whose run files were checked just now, as those of a clone are when it is
    /// complete: their indexes and filters are read in the background, or when somebody needs them.
    ///
    /// # Errors
    ///
    /// Those of `open_with`; but damage in a run file, or one of a newer format, is told by whoever reads it.
    pub fn open_checked(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let database = Self::open_reading(path.as_ref(), options, ReadRuns::Later)?;
        database.store().read_indexes(&mut database.handle.threads.lock())?;
        Ok(database)
    }

    fn open_reading(path: &Path, options: Options, read: ReadRuns) -> Result<Self> {
        let store = Arc::new(Store::open(path, options, read)?);
        store.update_holding()?;
        let handle = Handle { store, threads: Mutex::new(Vec::new()), catalog: Mutex::new(()) };
        let database = Self { handle: Arc::new(handle) };
        database.preserve_for_registered();
        *database.handle.threads.lock() = database.store().start()?;
        Ok(database)
    }

    /// A database over a store that changes nothing.
    pub(crate) fn of_view(store: Store) -> Self {
        let (store, threads) = (Arc::new(store), Mutex::new(Vec::new()));
        Self { handle: Arc::new(Handle { store, threads, catalog: Mutex::new(()) }) }
    }

    /// Keeps the delete marks that registered secondaries need, before the first merge of this start can drop one.
    /// Whoever serves them sets the floors from then on.
    fn preserve_for_registered(&self) {
        let preserved = match self.registrations() {
            Ok(known) => {
                known.iter().filter(|known| known.given_up.is_none()).map(|known| known.durable).min()
            }
            // What cannot be read may need everything.
            Err(_) => Some(Uid::ZERO),
        };
        self.set_floors(None, preserved);
        self.set_fed_floor(self.fed_floor());
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.handle.store
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.store().dir
    }

    /// The database's name, the same on all copies that follow one primary.
    pub fn id(&self) -> DatabaseId {
        self.store().manifest().database
    }

    /// This copy's name.
    pub fn instance(&self) -> InstanceId {
        self.store().instance()
    }

    /// Whether this copy takes updates or follows another.
    pub fn role(&self) -> Role {
        self.store().role()
    }

    /// What this database was cloned from, if it was.
    pub fn lineage(&self) -> Option<Lineage> {
        self.store().manifest().lineage
    }

    /// The last durable state.
    pub fn position(&self) -> Position {
        self.store().position()
    }

    /// The last durable commit.
    pub fn durable(&self) -> Uid {
        self.store().durable()
    }

    /// The cut at which readers read.
    pub fn visible(&self) -> Uid {
        self.store().visible()
    }

    /// A consistent view of the whole database, as of now.
    pub fn snapshot(&self) -> Snapshot {
        let (version, at, held) = self.store().pin_held();
        Snapshot { version, at, held }
    }

    /// A consistent view as of an earlier commit, or of the newest.
    ///
    /// # Errors
    ///
    /// `SnapshotTooOld` if versions that it would show are gone, `Invalid` if it is not shown yet.
    pub fn snapshot_at(&self, uid: Uid) -> Result<Snapshot> {
        let snapshot = self.snapshot();
        if uid > snapshot.uid() {
            return Err(Error::Invalid(format!(
                "{uid} is not shown yet: the visible cut is {}",
                snapshot.uid()
            )));
        }
        // Asked after the files are held: what is dropped from now on is not dropped from them.
        if uid < snapshot.uid() {
            self.store().check_readable(uid)?;
        }
        Ok(snapshot.at(uid))
    }

    /// Commits a batch; see [`Durability`] for when it returns. The result names the commit.
    ///
    /// # Errors
    ///
    /// `UnknownTable` if the batch names a table that does not exist, `TooLarge` beyond the limits, `ReadOnly` on a
    /// secondary, `NoSpace` and `Poisoned` when the disk fails; nothing of the batch is visible then.
    pub fn write(&self, batch: Batch, durability: Durability) -> Result<Uid> {
        self.check_tables(&batch)?;
        self.commit(batch, durability)
    }

    /// As [`Database::write`], once: if a batch was committed under the same token before, here or by a primary that this
    /// copy followed, that commit is the answer. Tokens are kept for a day, and the last 100,000 of them.
    ///
    /// # Errors
    ///
    /// As [`Database::write`]; `TokenReused` if the batch of before was another one.
    pub fn write_once(&self, mut batch: Batch, token: u128, durability: Durability) -> Result<Written> {
        self.check_tables(&batch)?;
        let fingerprint = hash::commit_hash(&batch.clone().encode()?);
        let store = self.store();
        let old = store.take_old_tokens()?;
        for (_, old) in old.iter().filter(|(_, old)| *old != token) {
            batch.delete(TableId::SYSTEM, token_key(*old));
        }
        batch.put(TableId::SYSTEM, token_key(token), fingerprint.to_le_bytes());
        let sync = durability == Durability::Synced;
        let encoded = batch.encode();
        let token = Token { token, fingerprint };
        let written = encoded.and_then(|encoded| store.commit(Pending { encoded, sync, token: Some(token) }));
        match written {
            Ok(Written { uid, again: false }) => store.note_token(uid, token.token),
            Ok(Written { again: true, .. }) | Err(_) => store.keep_tokens(old),
        }
        written
    }

    fn check_tables(&self, batch: &Batch) -> Result<()> {
        let version = self.store().pin().0;
        for &table in batch.tables() {
            if table == TableId::SYSTEM {
                return Err(Error::Invalid("the system fragment is not written to directly".into()));
            }
            if version.find(table, &[]).is_none() {
                return Err(Error::UnknownTable { name: format!("#{table}") });
            }
        }
        Ok(())
    }

    /// Commits a batch, the system fragment included.
    pub(crate) fn commit(&self, batch: Batch, durability: Durability) -> Result<Uid> {
        if batch.is_empty() {
            return Ok(self.visible());
        }
        let sync = durability == Durability::Synced;
        Ok(self.store().commit(Pending { encoded: batch.encode()?, sync, token: None })?.uid)
    }

    /// Commits nothing, durably, and returns the UID of that commit: once a majority of the promotable copies have
    /// acknowledged it, nothing that was read here before is lost, and nobody else led when it was read.
    pub fn barrier(&self) -> Result<Uid> {
        let encoded = Batch::new().encode()?;
        Ok(self.store().commit(Pending { encoded, sync: true, token: None })?.uid)
    }

    /// Makes everything committed so far durable.
    pub fn sync(&self) -> Result<Uid> {
        self.store().sync_log()
    }

    /// Creates a table of keys and rows that are bytes.
    pub fn create_raw_table(&self, name: &str) -> Result<Table> {
        self.create(name, |id| TableDef::raw(id, name))
    }

    /// Creates a table of typed columns with a primary key.
    pub fn create_table(&self, name: &str, schema: Schema) -> Result<Table> {
        self.create(name, |id| TableDef::typed(id, name, schema))
    }

    fn create(&self, name: &str, define: impl FnOnce(TableId) -> Result<TableDef>) -> Result<Table> {
        let _one_at_a_time = self.handle.catalog.lock();
        let tables = self.tables()?;
        if tables.iter().any(|table| table.name == name) {
            return Err(Error::TableExists { name: name.into() });
        }
        let highest = tables.iter().map(|table| table.id.0).max().unwrap_or(0);
        // A fragment without a definition may be left from a creation that a crash undid; its number is taken.
        let used =
            self.store().pin().0.fragments().iter().map(|fragment| fragment.table.0).max().unwrap_or(0);
        let definition = define(TableId(highest.max(used) + 1))?;
        let fragment = self.store().new_fragment_id();
        let mut batch = Batch::new();
        batch.put(TableId::SYSTEM, table_key(name), definition.encode()?);
        batch.put(TableId::SYSTEM, fragment_key(definition.id, &[]), fragment.0.to_le_bytes());
        self.commit(batch, Durability::Synced)?;
        Ok(Table::new(self.clone(), definition))
    }

    /// The table of that name.
    pub fn table(&self, name: &str) -> Result<Table> {
        let row = self.snapshot().get(TableId::SYSTEM, &table_key(name))?;
        let row = row.ok_or_else(|| Error::UnknownTable { name: name.into() })?;
        Ok(Table::new(self.clone(), TableDef::decode(&row)?))
    }

    /// The definitions of all tables, by name.
    pub fn tables(&self) -> Result<Vec<TableDef>> {
        self.snapshot().tables()
    }

    /// Writes everything in memory out as runs.
    pub fn flush(&self) -> Result<()> {
        self.store().write_out()
    }

    /// Writes everything in memory out as runs and merges what the background would, after it has ended what it merges now: from
    /// then on it has nothing to do until somebody writes.
    pub fn settle(&self) -> Result<()> {
        self.store().write_out()?;
        self.store().compact_until_settled()
    }

    /// Writes everything out and merges it into the bottom, leaving out what nobody can read any more.
    pub fn compact(&self) -> Result<()> {
        self.store().compact_all()
    }

    /// Whether a fault is planted.
    #[cfg(feature = "planted")]
    #[doc(hidden)]
    pub fn is_planted(&self, fault: crate::Planted) -> bool {
        self.store().options.planted == Some(fault)
    }

    /// Does once what the background does when it is woken, for tests that draw their own schedule.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn work_once(&self, task: crate::Task) -> Result<()> {
        self.store().work_once(task)
    }

    /// Closes the database for all who hold it: background work ends, writes are refused, reads of snapshots go on.
    pub fn close(&self) {
        let threads = std::mem::take(&mut *self.handle.threads.lock());
        self.store().stop(threads);
    }

    /// Begins this start's epoch as a primary, durably, rather than at its first commit.
    pub fn begin_epoch(&self) -> Result<()> {
        self.store().begin_epoch()
    }

    /// Begins the next incarnation of a primary, durably and while it leads, unless its epoch is newer than `other` already.
    /// What is committed already belongs to the epoch before.
    ///
    /// # Errors
    ///
    /// `Deposed` if `other` is of a newer number, or a newer one was promised; nothing begins then.
    pub fn begin_epoch_above(&self, other: planaria_types::Epoch) -> Result<()> {
        self.store().begin_epoch_above(other)
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("path", &self.path()).finish_non_exhaustive()
    }
}

/// A consistent view of a database: every read through it sees the same commits.
///
/// It keeps the files that it reads from being removed; drop it when it is not needed any more.
#[derive(Clone)]
pub struct Snapshot {
    version: Arc<StoreVersion>,
    at: Uid,
    /// What may be asked for, of a partial copy.
    held: Option<Arc<Held>>,
}

impl Snapshot {
    /// The last commit that the view contains.
    pub fn uid(&self) -> Uid {
        self.at
    }

    /// The same files, read at another cut.
    pub(crate) fn at(self, at: Uid) -> Self {
        Self { at, ..self }
    }

    /// The same view without regard to what a partial copy holds, for those who look after its files.
    pub(crate) fn of_all_there_is(self) -> Self {
        Self { held: None, ..self }
    }

    pub(crate) fn held(&self) -> Option<&Held> {
        self.held.as_deref()
    }

    pub(crate) fn version(&self) -> &Arc<StoreVersion> {
        &self.version
    }

    /// A record's row, if the record exists.
    ///
    /// # Errors
    ///
    /// `NotHeld` on a partial copy that does not hold the key; so it is with every read.
    pub fn get(&self, table: TableId, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.find(table, key)?.map(|(_, row)| row))
    }

    /// A record's row and the commit that wrote it, if the record exists.
    pub fn find(&self, table: TableId, key: &[u8]) -> Result<Option<(Uid, Bytes)>> {
        self.check_key_held(table, key)?;
        let Some(fragment) = self.version.find(table, key) else { return Ok(None) };
        let found = fragment.get(key, hash::key_hash(key), self.at)?;
        Ok(found.filter(|version| version.kind == RecordKind::Put).map(|version| (version.uid, version.row)))
    }

    /// The newest version of a record, delete marks included.
    pub(crate) fn newest(&self, table: TableId, key: &[u8]) -> Result<Option<crate::Version>> {
        let Some(fragment) = self.version.find(table, key) else { return Ok(None) };
        fragment.get(key, hash::key_hash(key), self.at)
    }

    /// The records of a key range, in key order, from either end.
    pub fn scan(&self, table: TableId, range: KeyRange) -> Scan {
        self.scan_held(table, range)
    }

    /// The definitions of all tables, by name.
    pub fn tables(&self) -> Result<Vec<TableDef>> {
        self.scan(TableId::SYSTEM, KeyRange::prefix(TABLE_PREFIX))
            .map(|record| TableDef::decode(&record?.1))
            .collect()
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("at", &self.at).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "database_tests.rs"]
mod tests;
