use bytes::Bytes;
use planaria_types::{InstanceId, KeyRange, TableId, Uid};
use serde::{Deserialize, Serialize};

use super::CloneRole;
use crate::commit::Batch;
use crate::database::{Database, Durability};
use crate::error::{Error, Result};
use crate::store::CLONE_PREFIX;

/// Clones of which it is remembered that they were taken: the youngest.
const RECORDS_MAX: usize = 1_024;

/// A clone that was taken of a database. A record of the source's system fragment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CloneRecord {
    /// What it is called: the last part of its path, or whoever asked for it.
    pub name: String,
    /// Where it lies, or where it went.
    pub target: String,
    /// What it is for, where the source knows it.
    pub role: Option<CloneRole>,
    /// The instance that it was taken from.
    pub source: InstanceId,
    /// The state that was cloned.
    pub cut: Uid,
    /// Bytes of its files.
    pub bytes: u64,
    /// When, in milliseconds since 1970.
    pub created_ms: u64,
}

impl Database {
    /// Notes a clone that was taken, durably: a secondary that took run files has this commit to show next, and waits for nothing else. Of
    /// those before it the youngest stay noted.
    pub fn record_clone(&self, record: &CloneRecord) -> Result<Uid> {
        let row = postcard::to_stdvec(record)
            .map_err(|error| Error::Invalid(format!("a clone's record cannot be written: {error}")))?;
        // In the order in which they were taken.
        let key = [CLONE_PREFIX, &record.created_ms.to_be_bytes(), record.target.as_bytes()].concat();
        let mut batch = Batch::new();
        let snapshot = self.snapshot();
        let noted = || snapshot.scan(TableId::SYSTEM, KeyRange::prefix(CLONE_PREFIX));
        let surplus = (noted().count() + 1).saturating_sub(RECORDS_MAX);
        for oldest in noted().take(surplus) {
            batch.delete(TableId::SYSTEM, oldest?.0);
        }
        batch.put(TableId::SYSTEM, key, row);
        self.commit(batch, Durability::Synced)
    }

    /// The clones that were taken, oldest first.
    pub fn clones(&self) -> Result<Vec<CloneRecord>> {
        let decode = |record: Result<(Bytes, Bytes)>| {
            postcard::from_bytes(&record?.1)
                .map_err(|error| Error::Invalid(format!("a clone's record cannot be read: {error}")))
        };
        self.snapshot().scan(TableId::SYSTEM, KeyRange::prefix(CLONE_PREFIX)).map(decode).collect()
    }

    /// The wall clock of the database's operating system, in milliseconds since 1970.
    pub fn now_millis(&self) -> u64 {
        self.store().options.os.now_millis()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::os::MemOs;
    use crate::sync::Arc;

    #[test]
    fn of_the_clones_that_were_taken_the_youngest_are_remembered() {
        let options = Options { background: false, os: Arc::new(MemOs::new(1)), ..Options::default() };
        let db = Database::open_with("/db", options).unwrap();
        let record = |created_ms: u64| CloneRecord {
            name: "copy".into(),
            target: "/copy".into(),
            role: None,
            source: db.instance(),
            cut: Uid::ZERO,
            bytes: 0,
            created_ms,
        };
        let taken = RECORDS_MAX as u64 + 5;
        for created_ms in 1..=taken {
            db.record_clone(&record(created_ms)).unwrap();
        }
        let clones = db.clones().unwrap();
        assert_eq!((clones.len(), clones[0].created_ms), (RECORDS_MAX, 6));
        assert_eq!(clones.last().unwrap().created_ms, taken);
    }
}
