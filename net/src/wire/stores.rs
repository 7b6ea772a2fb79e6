//! Stores of backups: which ones a database has, what nodes see in them, and what they are told to bring there or take from there.

use planaria_types::{DatabaseId, InstanceId, Position, Uid};
use serde::{Deserialize, Serialize};

use super::clones::{AsOf, CloneRole};
use super::control::{LABELS_MAX, NAME_BYTES_MAX};
use super::jobs::is_clone_name;
use super::limits::{LIST_MAX, bounded};

/// Stores that one node may speak to.
pub const STORES_MAX: usize = 64;
/// Databases whose backups one node tells of in a store.
pub const STORED_MAX: usize = 256;
/// Backups of one database in a store that one node tells of: the newest.
pub const KEPT_MAX: usize = 64;
/// Backups in a store that one node tells of, of whatever database.
pub const KEPT_OF_STORE_MAX: usize = 256;
/// Backups that one node tells of in all its stores.
pub const KEPT_OF_NODE_MAX: usize = 1_024;
/// Bytes of the place of a store: a path, or a bucket and a prefix.
pub const PLACE_BYTES_MAX: usize = 2 * NAME_BYTES_MAX;

/// Whether a store may be called so: not empty, not too long, nothing that cannot be shown.
pub fn is_place(place: &str) -> bool {
    !place.is_empty() && place.len() <= PLACE_BYTES_MAX && !place.contains(char::is_control)
}

/// The newest backup of a database in a store.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StoredBackup {
    /// The database.
    pub database: DatabaseId,
    /// What the backup is called.
    pub name: String,
    /// The last commit that it has.
    pub position: Position,
    /// When it was taken, in milliseconds since 1970.
    pub taken_ms: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Backups of the database that there are.
    pub count: u64,
}

/// A backup in a store, and how far the log that is kept there leads from it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct KeptBackup {
    /// The database.
    pub database: DatabaseId,
    /// What the backup is called.
    pub name: String,
    /// The copy that it was taken of.
    pub instance: InstanceId,
    /// The last commit that it has.
    pub position: Position,
    /// Every state from there up to here can be restored.
    pub reach: Uid,
    /// When it was taken, in milliseconds since 1970.
    pub taken_ms: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

/// A store that a node was told it may speak to, as the node sees it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StoreReport {
    /// Where it is: a directory or a bucket, as the node was told.
    pub place: String,
    /// The code of what is in the way; empty if nothing is.
    pub code: String,
    /// What is in the way.
    pub what: String,
    /// The newest backup of each database.
    #[serde(deserialize_with = "bounded::<_, _, STORED_MAX>")]
    pub backups: Vec<StoredBackup>,
    /// The newest backups of each of these databases, those in `backups` included, as many as there is room for.
    #[serde(deserialize_with = "bounded::<_, _, KEPT_OF_STORE_MAX>")]
    pub kept: Vec<KeptBackup>,
    /// Databases that have backups there, too, and that there was no room for: those that were backed up the longest ago.
    pub left_out: u64,
}

/// A store of a database, as an operator declares it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StoreSpec {
    /// Where it is: a directory or a bucket.
    pub place: String,
    /// Where that is, as with nodes.
    #[serde(deserialize_with = "bounded::<_, _, LABELS_MAX>")]
    pub labels: Vec<(String, String)>,
    /// So many backups of the database are kept, the newest; none keeps all.
    pub keep: Option<u64>,
}

/// A store of a database.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct StoreInfo {
    /// The database, by name.
    pub database: String,
    /// What was declared.
    pub spec: StoreSpec,
    /// The id under which it is a source of clones.
    pub instance: InstanceId,
    /// `stored`, `empty`, `away` or `not_allowed`.
    pub state: String,
    /// The newest backup that was seen there.
    pub newest: Option<StoredBackup>,
    /// When that was told last, in milliseconds since 1970; zero if it never was.
    pub heard_ms: u64,
    /// The nodes that may speak to it and are heard.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub nodes: Vec<String>,
    /// What goes on, or is in the way.
    pub note: String,
}

/// A backup that a node is to make of its copy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupOrder {
    /// The job.
    pub job: u64,
    /// The copy.
    pub instance: InstanceId,
    /// The store: one of those that the node has reported.
    pub place: String,
    /// How fast it may be at present, in bytes a second.
    pub bytes_per_s: u64,
    /// So many backups of the database stay, if older ones are to go.
    pub keep: Option<u64>,
}

/// A clone that a node is to take from a store.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestoreOrder {
    /// The job.
    pub job: u64,
    /// The database.
    pub database: DatabaseId,
    /// The backup from which it is taken, or from whose copy; the newest, or whichever gives the state, if none is named.
    pub backup: String,
    /// The state that it is to have.
    pub as_of: AsOf,
    /// What it is called: a name, never a path.
    pub name: String,
    /// What it is for.
    pub role: CloneRole,
    /// The store: one of those that the node has reported.
    pub place: String,
    /// How fast it may be at present, in bytes a second.
    pub bytes_per_s: u64,
}

impl RestoreOrder {
    /// Whether the name is one that a node makes a directory of.
    pub fn has_safe_name(&self) -> bool {
        is_clone_name(&self.name)
    }
}
