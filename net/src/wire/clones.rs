//! What clients ask of clones.

use std::net::SocketAddr;

use planaria_types::{InstanceId, Uid};
use serde::{Deserialize, Serialize};

use super::limits::{LIST_MAX, bounded};

/// What a clone is made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum CloneRole {
    /// A database of its own.
    #[default]
    Detached,
    /// A secondary that follows the primary.
    Standby,
    /// A copy to take clones from.
    Backup,
    /// A backup in a store, in place of a node.
    Store,
}

/// What a clone is as of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum AsOf {
    /// The newest cut.
    #[default]
    Newest,
    /// The last commit at or before a time, in milliseconds since 1970.
    Time(u64),
    /// A position.
    Position(Uid),
}

/// What a source makes of its rows before it gives them away.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Shape {
    /// What the clone is as of.
    pub as_of: AsOf,
    /// Tables to leave out.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub leave_out: Vec<String>,
    /// Per table, an expression that rows must satisfy.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub filters: Vec<(String, String)>,
    /// Per table and column, how it is masked.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub masks: Vec<(String, String, String)>,
}

impl Shape {
    /// Whether everything is given away as it is now.
    pub fn is_whole(&self) -> bool {
        *self == Self::default()
    }
}

/// A clone to be made.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CloneSpec {
    /// The name of the clone.
    pub name: String,
    /// The address of the node that gets it; none for the same node.
    pub target: Option<String>,
    /// The instance to take it from; none leaves the choice to the control center.
    pub source: Option<InstanceId>,
    /// What it is for.
    pub role: CloneRole,
    /// What it is as of.
    pub as_of: AsOf,
    /// Tables to leave out.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub leave_out: Vec<String>,
    /// Tables of an existing target to preserve.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub preserve: Vec<String>,
    /// Per table, an expression that rows must satisfy.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub filters: Vec<(String, String)>,
    /// Per table and column, how it is masked at the source.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub masks: Vec<(String, String, String)>,
    /// The greatest rate in bytes a second.
    pub rate_bytes_per_s: Option<u64>,
    /// The time to live in seconds.
    pub ttl_s: Option<u64>,
    /// Whether it opens before all chunks are there.
    pub hydrating: bool,
}

/// A clone that a node is to take of the database of another node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CloneTake {
    /// What it is called, and what it is.
    pub spec: CloneSpec,
    /// Where it may be taken from, the best first; the next one when one fails.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub sources: Vec<SocketAddr>,
    /// The new directory on the node's disk, from its root on; beside the node's own directory, under its name, if none is named.
    pub dir: Option<String>,
    /// Whether a clone that is there is replaced once the new one is complete.
    pub replace: bool,
    /// After how many seconds in which nothing came in it has failed; as the node sees fit if none is given.
    pub patience_s: Option<u32>,
}

/// What is done with a clone that exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CloneAction {
    /// Answer when it is complete or has failed.
    Wait,
    /// Give it up.
    Cancel,
    /// Make it a database that takes updates of its own.
    Promote,
    /// End its life now.
    Expire,
    /// Delete it.
    Delete,
    /// Have it live so many seconds from now on, or for ever.
    Live(Option<u64>),
    /// Have it come in at so many bytes a second at most, or as fast as the wire.
    Rate(Option<u64>),
    /// Put back what it has replaced.
    Rollback,
    /// Delete what it has replaced.
    DeleteOld,
}

/// One clone.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CloneInfo {
    /// Its name.
    pub name: String,
    /// `queued`, `running`, `hydrating`, `complete`, `failed`, `cancelled` or `expired`; `sending` where it is taken from,
    /// `interrupted` where what came of it is left of a command that ended.
    pub state: String,
    /// What it is for.
    pub role: CloneRole,
    /// The instance that it was taken from, once chosen.
    pub source: Option<InstanceId>,
    /// The node that has it.
    pub target: String,
    /// Its cut, once taken.
    pub cut: Option<Uid>,
    /// Bytes that are there.
    pub done_bytes: u64,
    /// Bytes in all, once known.
    pub total_bytes: Option<u64>,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// Why it is as it is: the choice of the source, the queue, the failure.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub reasons: Vec<String>,
    /// What it is busy with while it runs: `listing`, `verifying`, `fetching`, `installing`.
    pub stage: String,
    /// Where its bytes come from now, or came from: an address.
    pub from: String,
    /// Bytes that an earlier attempt had brought.
    pub resumed_bytes: u64,
    /// Bytes that were here before, of the clone that it replaces.
    pub linked_bytes: u64,
    /// Bytes that came over the network, over all attempts.
    pub moved_bytes: u64,
    /// At which rate it comes in, in bytes a second, as of now.
    pub bytes_per_s: Option<u64>,
    /// The greatest rate, in bytes a second.
    pub rate_bytes_per_s: Option<u64>,
    /// How long it is expected to take still, in milliseconds.
    pub left_ms: Option<u64>,
    /// `whole` or `incremental`, and why, once it is known.
    pub way: String,
    /// Whether what it has replaced is kept.
    pub keeps_old: bool,
}
