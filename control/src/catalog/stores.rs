//! Stores of backups, as the catalog keeps them.

use planaria_engine::{ColumnType, Value};
use planaria_net::wire::stores::StoredBackup;
use planaria_replication::control::Labels;
use planaria_types::{DatabaseId, Epoch, InstanceId, Position, Uid};

use super::row::{Row, bits, text, time};
use super::tables::Stored;
use crate::Result;

/// A store of a database: a directory or a bucket that its backups go to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreRecord {
    /// The database.
    pub database: DatabaseId,
    /// Where it is.
    pub place: String,
    /// Its number, among those of all jobs.
    pub number: u64,
    /// Where that is, as with nodes.
    pub labels: Labels,
    /// So many backups stay, the newest; none keeps all.
    pub keep: Option<u64>,
    /// The newest backup that was seen there.
    pub newest: Option<StoredBackup>,
    /// The node that told of it, by name.
    pub told_by: String,
    /// When it did, in milliseconds since 1970.
    pub heard_ms: u64,
}

impl StoreRecord {
    /// What it is called where copies are called by their ids. Nodes draw theirs at random: none has one like that.
    pub fn instance(&self) -> InstanceId {
        InstanceId(u128::from(u64::MAX) << 64 | u128::from(self.number))
    }

    /// Whether it is a store that is called so.
    pub fn is_instance(instance: InstanceId) -> bool {
        instance.0 >> 64 == u128::from(u64::MAX)
    }
}

const TEXT: ColumnType = ColumnType::Text;
const NUMBER: ColumnType = ColumnType::Int64;
const TIME: ColumnType = ColumnType::Timestamp;

impl Stored for StoreRecord {
    const TABLE: &'static str = "stores";
    const COLUMNS: &'static [(&'static str, ColumnType)] = &[
        ("database", TEXT),
        ("place", TEXT),
        ("number", NUMBER),
        ("labels", TEXT),
        ("keep", NUMBER),
        ("newest", TEXT),
        ("update_time", NUMBER),
        ("term", NUMBER),
        ("incarnation", NUMBER),
        ("nonce", NUMBER),
        ("taken", TIME),
        ("bytes", NUMBER),
        ("backups", NUMBER),
        ("told_by", TEXT),
        ("heard", TIME),
    ];
    const KEY: usize = 2;
    const NULLABLE: &'static [&'static str] = &["keep"];

    fn values(&self) -> Vec<Value> {
        // Backups have names: where there is no name, there is no backup.
        let newest = self.newest.clone().unwrap_or_default();
        let Epoch { term, incarnation, nonce } = newest.position.epoch;
        vec![
            text(self.database),
            text(&self.place),
            bits(self.number),
            text(&self.labels),
            self.keep.map_or(Value::Null, bits),
            text(&newest.name),
            bits(newest.position.uid.get()),
            bits(term),
            bits(incarnation),
            bits(nonce),
            time(newest.taken_ms),
            bits(newest.bytes),
            bits(newest.count),
            text(&self.told_by),
            time(self.heard_ms),
        ]
    }

    fn read(row: &mut Row) -> Result<Self> {
        let (database, place, number, labels) = (row.parsed()?, row.text()?, row.bits()?, row.labels()?);
        let (keep, name, uid) = (row.optional_bits()?, row.text()?, Uid::new(row.bits()?));
        let epoch = Epoch { term: row.bits()?, incarnation: row.bits()?, nonce: row.bits()? };
        let newest = StoredBackup {
            database,
            position: Position { epoch, uid },
            taken_ms: row.millis()?,
            bytes: row.bits()?,
            count: row.bits()?,
            name,
        };
        Ok(Self {
            database,
            place,
            number,
            labels,
            keep,
            newest: Some(newest).filter(|newest| !newest.name.is_empty()),
            told_by: row.text()?,
            heard_ms: row.millis()?,
        })
    }
}
