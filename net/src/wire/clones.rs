//! What clients ask of clones.

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
}

/// One clone.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CloneInfo {
    /// Its name.
    pub name: String,
    /// `queued`, `running`, `hydrating`, `complete`, `failed`, `cancelled` or `expired`.
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
}
