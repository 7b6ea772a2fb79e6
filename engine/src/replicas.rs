//! What a primary remembers of its secondaries, and what a handshake depends on.

use planaria_types::{Epoch, InstanceId, KeyRange, TableId, Uid};
use serde::{Deserialize, Serialize};

use crate::commit::Batch;
use crate::database::{Database, Durability, Snapshot};
use crate::error::{Error, Result};
use crate::run::Run;
use crate::store::REGISTRATION_PREFIX;

/// A secondary that a primary keeps delete marks for. A record of the system fragment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Registration {
    /// The copy.
    pub instance: InstanceId,
    /// Its name, for people.
    pub name: String,
    /// Everything up to this UID is durable there, at least.
    pub durable: Uid,
    /// Whether it is in the promotable set.
    pub promotable: bool,
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
/// Keys and rows in one commit of an extract, in bytes.
const EXTRACT_BATCH_BYTES: usize = 4 << 20;
/// The largest extract, in bytes; what exceeds it is not kept.
const EXTRACT_BYTES_MAX: usize = 256 << 20;

fn registration_key(instance: InstanceId) -> Vec<u8> {
    [REGISTRATION_PREFIX, &instance.0.to_be_bytes()].concat()
}

impl Database {
    /// The registered secondaries.
    pub fn registrations(&self) -> Result<Vec<Registration>> {
        let range = KeyRange::prefix(REGISTRATION_PREFIX);
        let decode = |record: Result<(bytes::Bytes, bytes::Bytes)>| {
            postcard::from_bytes(&record?.1)
                .map_err(|error| Error::Invalid(format!("a registration cannot be read: {error}")))
        };
        self.snapshot().scan(TableId::SYSTEM, range).map(decode).collect()
    }

    /// Remembers a secondary; durable some milliseconds later unless asked for at once. Returns the commit.
    pub fn register(&self, registration: &Registration, durability: Durability) -> Result<Uid> {
        let row = postcard::to_stdvec(registration)
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

    /// Promises, durably, to follow no epoch older than this.
    pub fn promise(&self, epoch: Epoch) -> Result<()> {
        if self.promised() == epoch {
            return Ok(());
        }
        self.store().edit_group(|group| {
            group.promised = epoch;
            Ok(())
        })
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

    /// What bringing a copy at `since` up to date would take.
    pub fn estimate_refresh(&self, since: Uid) -> RefreshEstimate {
        let store = self.store();
        let version = store.pin().0;
        let (mut delta_bytes, mut total_bytes) = (0, 0);
        for fragment in version.fragments() {
            delta_bytes += fragment.memtable_payload_bytes();
            for reference in fragment.references() {
                total_bytes += reference.bytes();
                if reference.upto > since {
                    delta_bytes += changed_bytes(&reference.run, since);
                }
            }
        }
        let from = store.segment_before(since);
        let segments = store.log.segments();
        let tail_bytes = from.map_or(0, |from| {
            segments.iter().filter(|own| own.number >= from.number).map(|own| own.end_offset).sum()
        });
        let retained = since >= store.appended()
            || store.feed.after(since, 1).is_some()
            || from.is_some_and(|from| from.number >= store.log.retained_from());
        RefreshEstimate { retained, tail_bytes, delta_bytes, total_bytes }
    }

    /// Keeps what the copy shows above `above`, up to `through`, as an extract in `quarantine/` of its directory,
    /// durably: commits that are about to be taken back. Doing it twice changes nothing.
    ///
    /// An extract is a file of encoded commits, each with its length (u32, little-endian) in front.
    pub fn quarantine(&self, above: Uid, through: Uid) -> Result<()> {
        let store = self.store();
        let (os, dir) = (&store.options.os, store.dir.join("quarantine"));
        os.create_dir_all(&dir).map_err(|error| Error::io("create", &dir, error))?;
        let snapshot = self.snapshot().at(through);
        let mut from = (TableId::SYSTEM, Vec::new());
        let mut extract = Vec::new();
        loop {
            let chunk = snapshot.changes(above, (from.0, &from.1), EXTRACT_BATCH_BYTES)?;
            let mut batch = Batch::new();
            for change in chunk.changes {
                match change.kind {
                    crate::RecordKind::Put => batch.put(change.table, change.key, change.row),
                    _ => batch.delete(change.table, change.key),
                };
            }
            let encoded = batch.encode()?;
            extract.extend_from_slice(&(encoded.len() as u32).to_le_bytes());
            extract.extend_from_slice(&encoded);
            match chunk.next.filter(|_| extract.len() < EXTRACT_BYTES_MAX) {
                Some((table, key)) => from = (table, key.to_vec()),
                None => break,
            }
        }
        let path = dir.join(format!("{:016x}-{:016x}.extract", above.get(), through.get()));
        crate::version::write_file(os, &path, &extract)?;
        os.sync_dir(&dir).map_err(|error| Error::io("sync", &dir, error))?;
        os.sync_dir(&store.dir).map_err(|error| Error::io("sync", &store.dir, error))
    }

    /// The cap on what is preserved for secondaries that are away: bytes, and milliseconds.
    pub fn preserved_max(&self) -> (u64, u64) {
        let options = &self.store().options;
        (options.preserved_bytes_max, options.preserved_age_max_ms)
    }
}

/// About the bytes of a run's records above `since`.
///
/// The index tells the blocks that hold any; the share of such records in them is taken from a sample. Whole blocks
/// would mislead where changes are scattered: with a hundred records a block, one change in a hundred touches most.
fn changed_bytes(run: &Run, since: Uid) -> u64 {
    let index = run.index();
    let is_touched = |at: &usize| index.entry(*at).is_some_and(|entry| entry.highest_uid > since);
    let touched: Vec<usize> = (0..index.len()).filter(is_touched).collect();
    let bytes: u64 = touched.iter().filter_map(|at| index.entry(*at)).map(|entry| u64::from(entry.len)).sum();
    let (mut records, mut changed) = (0_u64, 0_u64);
    for at in touched.iter().step_by(touched.len().div_ceil(SAMPLED_BLOCKS).max(1)) {
        // A block that cannot be read is somebody else's error; here it only makes the estimate coarser.
        let Ok(block) = run.block(*at) else { continue };
        records += block.count() as u64;
        changed += (0..block.count()).filter(|position| block.uid(*position) > since).count() as u64;
    }
    match records {
        0 => bytes,
        records => (u128::from(bytes) * u128::from(changed)).div_ceil(u128::from(records)) as u64,
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use crate::{Batch, Database, Durability, Options};

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
        let estimate = db.estimate_refresh(since);
        assert!(estimate.delta_bytes > 0);
        assert!(estimate.delta_bytes * 40 < estimate.total_bytes, "{estimate:?}");
        let whole = db.estimate_refresh(planaria_types::Uid::ZERO);
        // All blocks of records; what is left of the files are filters and indexes.
        assert!(whole.delta_bytes * 4 > whole.total_bytes * 3, "{whole:?}");
    }
}
