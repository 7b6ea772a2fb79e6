//! Clones that the control center has nodes make: what is asked for, ordered, reported and shown.

use std::net::SocketAddr;

use planaria_replication::control::Priority;
use planaria_types::{DatabaseId, InstanceId};
use serde::{Deserialize, Serialize};

use super::clones::{CloneRole, Shape};
use super::control::NAME_BYTES_MAX;
use super::limits::{LIST_MAX, bounded};

/// Clones that one node makes at a time, at most.
pub const CLONES_MAX: usize = 256;

/// A clone that the control center is to have made.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CloneWish {
    /// The node that is to get it, by name.
    pub to: String,
    /// The database by name or id; none where there is one.
    pub database: Option<String>,
    /// What it is to be called; none has the control center make a name.
    pub name: Option<String>,
    /// What it is for.
    pub role: CloneRole,
    /// By how much a copy may be older than the freshest and be taken because it is nearer, in milliseconds.
    pub period_ms: u64,
    /// How urgent it is.
    pub priority: Priority,
    /// At most so many bytes a second; none leaves it to the limits.
    pub bytes_per_s: Option<u64>,
    /// How long a detached clone lives once it is whole, in seconds.
    pub ttl_s: Option<u64>,
    /// What its source makes of its rows before it gives them away.
    pub shape: Shape,
}

/// A clone that a node is to make.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CloneOrder {
    /// The job.
    pub job: u64,
    /// The database that it is of.
    pub database: DatabaseId,
    /// What it is called: a name, never a path.
    pub name: String,
    /// What it is for.
    pub role: CloneRole,
    /// The copy that it is taken from.
    pub source: InstanceId,
    /// Where that copy's node listens.
    pub from: SocketAddr,
    /// How fast it may be at present, in bytes a second. It may change while the clone is made.
    pub bytes_per_s: u64,
    /// How long it lives once it is whole, in seconds.
    pub ttl_s: Option<u64>,
    /// What its source makes of its rows before it gives them away.
    pub shape: Shape,
}

impl CloneOrder {
    /// Whether the name is one that a node makes a directory of: not a path, nothing hidden, nothing that cannot be shown.
    pub fn has_safe_name(&self) -> bool {
        is_clone_name(&self.name)
    }
}

/// Whether a clone may be called so: 1 to 200 bytes, letters, digits, `-`, `_` and `.`, not in front.
pub fn is_clone_name(name: &str) -> bool {
    let is_plain = |character: char| character.is_alphanumeric() || matches!(character, '-' | '_' | '.');
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX - 55
        && !name.starts_with(['.', '-'])
        && name.chars().all(is_plain)
}

/// How far a clone has come, from the node that makes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CloneReport {
    /// The job.
    pub job: u64,
    /// Bytes that are there.
    pub done_bytes: u64,
    /// Bytes in all, once known.
    pub total_bytes: Option<u64>,
}

/// A clone that the control center has made, or will have.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CloneJobInfo {
    /// The job's number.
    pub job: u64,
    /// What the clone is called.
    pub name: String,
    /// The database, by name.
    pub database: String,
    /// The node that gets it.
    pub to: String,
    /// What it is for.
    pub role: CloneRole,
    /// How urgent it is.
    pub priority: Priority,
    /// `queued`, `running`, `complete`, `failed` or `cancelled`.
    pub state: String,
    /// The node that it is taken from, once chosen.
    pub source: String,
    /// Bytes that are there.
    pub done_bytes: u64,
    /// Bytes in all, once known.
    pub total_bytes: Option<u64>,
    /// How fast it may be at present, in bytes a second; zero while it does not run.
    pub bytes_per_s: u64,
    /// Who asked for it: an operator, or what the control center looks after.
    pub origin: String,
    /// When it was asked for, in milliseconds since 1970.
    pub submitted_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// A stable name of why it is as it is; may be empty.
    pub code: String,
    /// Why it is as it is.
    pub reason: String,
    /// What its source makes of its rows before it gives them away.
    pub shape: Shape,
    /// What was found of each copy when its source was chosen, a line for each.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub reasons: Vec<String>,
}

/// What may go through a place.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LimitInfo {
    /// The place, as in `node-out`, `node-in:NAME`, `link:FROM/TO`.
    pub gate: String,
    /// Clones at a time.
    pub clones_max: u32,
    /// Bytes a second of all of them.
    pub bytes_per_s_max: u64,
    /// Clones that go through it now; of a kind of places, through all of them.
    pub clones: u32,
    /// Bytes a second that they may take now.
    pub bytes_per_s: u64,
    /// Whether it was set; else it is what holds unless something is.
    pub is_set: bool,
}

/// The least time between two clones of a schedule, in milliseconds.
pub const SCHEDULE_EVERY_MIN_MS: u64 = 1_000;

/// When a schedule asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum When {
    /// Again after so many milliseconds.
    Every(u64),
    /// By the calendar, as cron writes it, in UTC.
    Calendar(String),
}

impl Default for When {
    fn default() -> Self {
        Self::Every(SCHEDULE_EVERY_MIN_MS)
    }
}

/// A clone that is asked for again and again.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScheduleInfo {
    /// What the schedule is called.
    pub name: String,
    /// When it asks.
    pub when: When,
    /// What is asked for.
    pub wish: CloneWish,
    /// When it is asked for next, in milliseconds since 1970.
    pub due_ms: u64,
}

/// How many copies of a database there are to be, beside its primary.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WantInfo {
    /// The database, by name.
    pub database: String,
    /// Standbys that are wanted.
    pub standbys: u32,
    /// Backups that are wanted.
    pub backups: u32,
    /// Standbys that are heard, or on their way.
    pub standbys_there: u32,
    /// Backups that are.
    pub backups_there: u32,
    /// Why there are fewer; empty if there are not.
    pub note: String,
}
