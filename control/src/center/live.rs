use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use planaria_net::wire::control::CopyReport;
use planaria_net::wire::stores::StoreReport;
use planaria_replication::Millis;
use planaria_replication::control::InstanceRole;
use planaria_types::InstanceId;

/// A node that has joined since the control center started.
pub(super) struct LiveNode {
    pub(super) session: u64,
    pub(super) address: SocketAddr,
    pub(super) heard: Millis,
    /// When its disk and its copies were last written down; none if they have not been yet.
    pub(super) written: Option<Millis>,
    pub(super) is_lost: bool,
    pub(super) capacity_bytes: u64,
    pub(super) free_bytes: u64,
    pub(super) copies: BTreeMap<InstanceId, LiveCopy>,
    /// What its copy would be for, if it hosts none and waits for one.
    pub(super) spare: Option<InstanceRole>,
    /// Clones that it makes and should not.
    pub(super) stray_clones: Vec<u64>,
    /// The nodes that it was told to measure the round trip to, and when.
    pub(super) told_to_measure: BTreeMap<String, Millis>,
    /// The stores of backups that it may speak to, as it sees them, by place.
    pub(super) stores: BTreeMap<String, StoreReport>,
}

impl LiveNode {
    pub(super) fn new(session: u64, address: SocketAddr, heard: Millis) -> Self {
        Self {
            session,
            address,
            heard,
            written: None,
            is_lost: false,
            capacity_bytes: 0,
            free_bytes: 0,
            copies: BTreeMap::new(),
            spare: None,
            stray_clones: Vec::new(),
            told_to_measure: BTreeMap::new(),
            stores: BTreeMap::new(),
        }
    }
}

/// A copy, as its node last reported it.
pub(super) struct LiveCopy {
    pub(super) report: CopyReport,
    /// When its update time rose last: it had news of its primary then.
    pub(super) news: Option<Millis>,
}

/// What is watched of a database: whether it is led, and what is done where it is not.
#[derive(Default)]
pub(super) struct Watched {
    /// When its leader was last heard to lead.
    pub(super) led: Option<Millis>,
    /// Its primary is lost, and that has been written down.
    pub(super) is_lost: bool,
    /// Copies that were asked to lead since then, and do not.
    pub(super) refused: BTreeSet<InstanceId>,
    /// When the promotion that is under way was last known to be: asked for, or found in the catalog.
    pub(super) asked: Option<Millis>,
    /// Nobody is asked before.
    pub(super) pause_until: Millis,
    /// Why nobody is asked, as it was last written down.
    pub(super) note: Vec<String>,
    /// Copies that were told to follow, and when.
    pub(super) told_to_follow: BTreeMap<InstanceId, Millis>,
}
