//! All that an operator has declared of a cluster, in one piece.

use serde::{Deserialize, Serialize};

use super::control::{LABELS_MAX, Mode};
use super::jobs::{CloneWish, When};
use super::limits::{LIST_MAX, bounded};
use super::rules::Rule;
use super::stores::StoreSpec;

/// What is declared of a cluster. What it does not name is as it is where nothing was said.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Topology {
    /// The datacenters.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub datacenters: Vec<DatacenterSpec>,
    /// The nodes.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub nodes: Vec<NodeSpec>,
    /// The databases.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub databases: Vec<DatabaseSpec>,
    /// What clones may take.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub limits: Vec<LimitSpec>,
    /// Clones that are asked for again and again.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub schedules: Vec<ScheduleSpec>,
    /// What is done when something happens.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub rules: Vec<Rule>,
}

/// A datacenter.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DatacenterSpec {
    /// Its name: the label `datacenter` of its nodes.
    pub name: String,
    /// The region that it lies in, whatever its nodes say.
    pub region: String,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// Labels that hold in place of those of that name that the node gives itself.
    #[serde(deserialize_with = "bounded::<_, _, LABELS_MAX>")]
    pub labels: Vec<(String, String)>,
    /// How much of its disk may be full for a clone to be brought there, in bytes; none leaves it to the disk.
    pub capacity_bytes: Option<u64>,
}

/// A database.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DatabaseSpec {
    /// Its name or id.
    pub name: String,
    /// Who decides on a promotion.
    pub mode: Mode,
    /// Standbys that are wanted beside the primary.
    pub standbys: u32,
    /// Backups.
    pub backups: u32,
    /// Its stores of backups.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub stores: Vec<StoreSpec>,
}

/// What may go through a place.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LimitSpec {
    /// The place.
    pub gate: String,
    /// Clones at a time.
    pub clones_max: u32,
    /// Bytes a second of all of them.
    pub bytes_per_s_max: u64,
}

/// A clone that is asked for again and again.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScheduleSpec {
    /// What it is called.
    pub name: String,
    /// When it asks.
    pub when: When,
    /// What it asks for.
    pub wish: CloneWish,
}

/// One thing that changes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TopologyChange {
    /// What it is about: its kind and its name, as in `limits.node-out`.
    pub item: String,
    /// What changes.
    pub what: String,
}
