//! Where the control center sends clients.

use std::net::SocketAddr;

use planaria_replication::control::InstanceRole;
use planaria_types::{DatabaseId, InstanceId};
use serde::{Deserialize, Serialize};

use super::limits::{LIST_MAX, bounded};

/// The copies of a database that a client might speak to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RouteInfo {
    /// The database.
    pub database: DatabaseId,
    /// Its name.
    pub name: String,
    /// The copies in the order in which they are to be tried, those that do not serve last.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub targets: Vec<TargetInfo>,
    /// What goes on where nobody leads, or why nothing does; empty otherwise.
    pub note: String,
}

/// A copy that a client might speak to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TargetInfo {
    /// The copy.
    pub instance: InstanceId,
    /// Its node.
    pub node: String,
    /// Where that node listens.
    pub address: SocketAddr,
    /// What it is for now.
    pub role: InstanceRole,
    /// How old what it shows was when it reported, in milliseconds.
    pub age_ms: u64,
    /// Whether it serves.
    pub serves: bool,
    /// The stable name of the reason.
    pub code: String,
    /// Why it serves, or does not.
    pub reason: String,
}
