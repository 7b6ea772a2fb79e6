//! Round trips between nodes: who measures whom, and what was measured.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Nodes that one node is told to measure at a time.
pub const PEERS_MAX: usize = 16;

/// A node that another one is to measure the round trip to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LinkPeer {
    /// Its name.
    pub node: String,
    /// Where it is reached.
    pub address: SocketAddr,
}

/// What a node has measured.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LinkReport {
    /// The node at the other end, by name.
    pub to: String,
    /// The round trip in microseconds; none if that node could not be reached.
    pub round_trip_us: Option<u64>,
    /// Why there is none; empty if there is one.
    pub what: String,
}

/// A round trip that is known.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct LinkInfo {
    /// The node that measured.
    pub from: String,
    /// The node at the other end.
    pub to: String,
    /// How far they are from one another by their labels, in words.
    pub distance: String,
    /// The round trip in microseconds; none if the other node could not be reached.
    pub round_trip_us: Option<u64>,
    /// When it was measured, in milliseconds since 1970.
    pub measured_ms: u64,
    /// Why there is none; empty if there is one.
    pub what: String,
}
