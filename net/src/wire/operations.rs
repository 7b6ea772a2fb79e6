//! What operators ask of nodes, and nodes of one another: the lead, secondaries, extracts.

use std::net::SocketAddr;

use bytes::Bytes;
use planaria_types::{Epoch, InstanceId, Position, TableId, Uid};
use serde::{Deserialize, Serialize};

use super::limits::{LIST_MAX, bounded};

/// What a promotion may cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PromotionWish {
    /// Say what it would cost, and do nothing.
    pub looks_only: bool,
    /// The losses that it names are accepted.
    pub accepts_loss: bool,
    /// It is done whatever stands against it.
    pub force: bool,
}

/// What a promotion found, and did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Promotion {
    /// The copy.
    pub instance: InstanceId,
    /// The epoch that began; none if it was looked at only.
    pub epoch: Option<Epoch>,
    /// The last commit that it inherited.
    pub inherited: Uid,
    /// Whether the old primary handed its lead over: then nothing is lost.
    pub handed_over: bool,
    /// Copies that were heard.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub heard: Vec<String>,
    /// Copies that were not.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub unheard: Vec<String>,
    /// How many of the promotable set were heard, and must be so that no protected commit is lost.
    pub copies_heard: u32,
    /// See `copies_heard`.
    pub copies_needed: u32,
    /// What may be lost.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub losses: Vec<String>,
    /// Why another copy should lead instead.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub obstacles: Vec<String>,
}

/// The answer to a request to promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Promised {
    /// The copy.
    pub instance: InstanceId,
    /// What is durable there.
    pub position: Position,
    /// The newest epoch that it has promised: the one asked for, or a newer one.
    pub promised: Epoch,
    /// Where that one's primary is, as far as is known. For people; nobody dials it.
    pub leader: Option<SocketAddr>,
}

/// What is done with a registered secondary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ReplicaAction {
    /// It waits: it stays registered, and is not served.
    Pause,
    /// It is served again.
    Resume,
    /// It is forgotten: nothing is preserved for it, and it counts for nothing.
    Forget,
}

/// What was taken back and is kept.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ExtractInfo {
    /// Its name.
    pub name: String,
    /// The fork: everything at or below it was kept.
    pub above: Uid,
    /// The last commit that was taken back.
    pub through: Uid,
    /// The epoch under which that was written.
    pub epoch: Epoch,
    /// When, in milliseconds since 1970.
    pub created_ms: u64,
    /// How long ago that was, in milliseconds.
    pub age_ms: u64,
    /// When it will be removed, in milliseconds since 1970.
    pub expires_ms: u64,
    /// The number of its records.
    pub records: u64,
    /// Its bytes on disk.
    pub bytes: u64,
    /// Whether it holds all that was taken back.
    pub is_whole: bool,
    /// The definitions of its tables, in the engine's encoding.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub tables: Vec<Bytes>,
}

/// The state of a record that was taken back.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ExtractRecord {
    /// The table, as in the definitions of the extract.
    pub table: TableId,
    /// The key.
    pub key: Bytes,
    /// The row; none if it was deleted.
    pub row: Option<Bytes>,
}

/// A refresh: one that was, or what one would take.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RefreshInfo {
    /// `tail`, `delta`, `pinned delta`, `reconcile`, `pinned reconcile` or `bulk`.
    pub way: String,
    /// The stable code of the reason.
    pub reason: String,
    /// The reason, for people.
    pub why: String,
    /// Records, where known.
    pub records: Option<u64>,
    /// Bytes.
    pub bytes: u64,
    /// Its time in milliseconds, where known.
    pub ms: Option<u64>,
}
