use bytes::Bytes;
use planaria_types::{InstanceId, KeyRange, TableId, Uid};
use serde::{Deserialize, Serialize};

use super::CloneRole;
use crate::commit::Batch;
use crate::database::{Database, Durability};
use crate::error::{Error, Result};
use crate::store::CLONE_PREFIX;

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
    /// Notes a clone that was taken, durable some milliseconds later.
    pub fn record_clone(&self, record: &CloneRecord) -> Result<Uid> {
        let row = postcard::to_stdvec(record)
            .map_err(|error| Error::Invalid(format!("a clone's record cannot be written: {error}")))?;
        // In the order in which they were taken.
        let key = [CLONE_PREFIX, &record.created_ms.to_be_bytes(), record.target.as_bytes()].concat();
        let mut batch = Batch::new();
        batch.put(TableId::SYSTEM, key, row);
        self.commit(batch, Durability::Background)
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
