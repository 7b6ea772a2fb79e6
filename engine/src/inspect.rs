//! Looking at a database: its state, its digests, the soundness of its files.

use planaria_types::{DatabaseId, Epoch, Fingerprint, InstanceId, KeyRange, TableId, Uid};

use crate::database::{Database, Snapshot};
use crate::error::Result;
use crate::hash;
use crate::read::Part;
use crate::table::{self, TableDef};
use crate::version::Role;

/// The contents of a table, summed up: equal contents have equal digests, on every copy, whatever their UIDs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableDigest {
    /// The table's name.
    pub table: String,
    /// The number of records and the sum of their hashes.
    pub digest: Fingerprint,
}

/// The state of one table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableStatus {
    /// The definition.
    pub definition: TableDef,
    /// The number of fragments.
    pub fragments: usize,
    /// Record versions in its runs and memtables; an upper bound of its records.
    pub versions: u64,
    /// Bytes of its run files on disk.
    pub run_bytes: u64,
}

/// The state of a database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// The database's name.
    pub database: DatabaseId,
    /// This copy's name.
    pub instance: InstanceId,
    /// Primary or secondary.
    pub role: Role,
    /// The epoch that runs now.
    pub epoch: Epoch,
    /// The last commit in the log.
    pub appended: Uid,
    /// The last durable commit.
    pub durable: Uid,
    /// The cut at which readers read.
    pub visible: Uid,
    /// No delete mark above it has been dropped.
    pub mark_floor: Uid,
    /// Reads as of a UID work at or above it.
    pub version_floor: Uid,
    /// The tables, by name.
    pub tables: Vec<TableStatus>,
    /// The number of run files.
    pub run_files: usize,
    /// Their bytes.
    pub run_bytes: u64,
    /// Bytes of the log.
    pub log_bytes: u64,
    /// Memory of all memtables, in bytes.
    pub memtable_bytes: u64,
    /// Memory of cached blocks, in bytes.
    pub cache_bytes: u64,
    /// As [`Database::damage`] tells.
    pub damage: Option<String>,
}

/// What a verification has read and found sound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// Run files.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Records that are live now.
    pub records: u64,
}

impl Database {
    /// The first damage that anybody has met since the database was opened, in a file that it still uses: a reader, a merge,
    /// whoever sends a clone. Such a copy is to be replaced by a clone of another one; meanwhile what is not damaged is served.
    pub fn damage(&self) -> Option<String> {
        self.store().damage()
    }

    /// The state of the database.
    pub fn status(&self) -> Result<Status> {
        let store = self.store();
        let snapshot = self.snapshot();
        let manifest = store.manifest();
        let fragments = snapshot.version().fragments();
        let tables = snapshot
            .tables()?
            .into_iter()
            .map(|definition| {
                let own = || fragments.iter().filter(|fragment| fragment.table == definition.id);
                TableStatus {
                    fragments: own().count(),
                    versions: own().map(|fragment| fragment.versions()).sum(),
                    run_bytes: own().map(|fragment| fragment.run_bytes()).sum(),
                    definition,
                }
            })
            .collect();
        Ok(Status {
            database: manifest.database,
            instance: manifest.instance,
            role: store.role(),
            epoch: manifest.group.history.current(),
            appended: store.appended(),
            durable: store.durable(),
            visible: snapshot.uid(),
            mark_floor: manifest.group.mark_floor,
            version_floor: manifest.group.version_floor,
            tables,
            run_files: manifest.runs.len(),
            run_bytes: manifest.runs.iter().map(|run| run.meta.len).sum(),
            log_bytes: store.log.bytes_retained(),
            memtable_bytes: fragments.iter().map(|fragment| fragment.memtable_bytes() as u64).sum(),
            cache_bytes: store.cache.used_bytes(),
            damage: store.damage(),
        })
    }

    /// Reads every file and checks every checksum, the order of records, filters and fingerprints, the rectangles of
    /// all references, and that every table can be read from end to end.
    pub fn verify(&self) -> Result<Verified> {
        let snapshot = self.snapshot().of_all_there_is();
        let mut verified = Verified::default();
        let mut seen = std::collections::HashSet::new();
        for fragment in snapshot.version().fragments() {
            fragment.check()?;
            for reference in fragment.references() {
                if seen.insert(reference.file) {
                    verified.files += 1;
                    verified.bytes += reference.run.verify()?;
                }
            }
        }
        for definition in snapshot.tables()? {
            verified.records += snapshot.digest_of(&definition)?.count;
        }
        Ok(verified)
    }
}

impl Snapshot {
    /// The digest of each table, by name; on a partial copy of those that it holds wholly.
    pub fn digests(&self) -> Result<Vec<TableDigest>> {
        let digest = |definition: TableDef| {
            Ok(TableDigest { digest: self.digest_of(&definition)?, table: definition.name })
        };
        let whole = |table: &TableDef| self.holds(table.id, &KeyRange::ALL);
        self.tables()?.into_iter().filter(whole).map(digest).collect()
    }

    /// The digest of one table.
    pub fn digest_of(&self, definition: &TableDef) -> Result<Fingerprint> {
        let mut digest = Fingerprint::EMPTY;
        let current = if definition.is_typed() { Some(definition.schema()?) } else { None };
        let mut failed = None;
        self.scan(definition.id, KeyRange::ALL).visit(|key, row| {
            let rewritten = match current {
                // A row of an older schema is hashed as it would be written today.
                Some((id, schema)) => match table::decode(definition, key, row) {
                    Ok(values) => match table::encode(schema, id, &values) {
                        Ok((_, row)) => Some(row),
                        Err(error) => return stop(&mut failed, error),
                    },
                    Err(error) => return stop(&mut failed, error),
                },
                None => None,
            };
            digest.add_hash(hash::content_hash(key, rewritten.as_deref().unwrap_or(row)));
            true
        })?;
        failed.map_or(Ok(digest), Err)
    }

    /// The fingerprint of a key range: its live records with their UIDs.
    #[expect(clippy::needless_pass_by_value, reason = "as in a scan, whoever asks gives the range away")]
    pub fn fingerprint(&self, table: TableId, range: KeyRange) -> Result<Fingerprint> {
        self.check_held(table, &range)?;
        let mut sum = Fingerprint::EMPTY;
        for fragment in self.version().overlapping(table, &range) {
            sum += crate::read::fingerprint(fragment, &range, self.uid())?;
        }
        Ok(sum)
    }

    /// At most `count` parts of a key range, of about the same number of records each, with their fingerprints: one
    /// level of a tree, which is walked from the top down to find where two copies differ.
    pub fn parts(&self, table: TableId, range: &KeyRange, count: usize) -> Result<Vec<Part>> {
        self.check_held(table, range)?;
        let fragments: Vec<_> = self.version().overlapping(table, range).collect();
        crate::read::parts(&fragments, range, self.uid(), count)
    }

    /// All tables that have fragments, those of the system and of secondary indexes included; held or not.
    pub fn table_ids(&self) -> Vec<TableId> {
        let mut ids: Vec<_> = self.version().fragments().iter().map(|fragment| fragment.table).collect();
        ids.dedup();
        ids
    }
}

fn stop(failed: &mut Option<crate::Error>, error: crate::Error) -> bool {
    *failed = Some(error);
    false
}
