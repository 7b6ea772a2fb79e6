//! What nodes tell the control center and are told by it, and what operators ask of it.
//!
//! Requests of the client protocol to a process that hosts no database but the catalog. Nodes speak first: the control center
//! dials nobody.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use planaria_replication::control::{CopyState, InstanceRole};
use planaria_types::{DatabaseId, Epoch, History, InstanceId, Position, Uid};
use serde::{Deserialize, Serialize};

use super::clones::AsOf;
use super::jobs::{
    CLONES_MAX, CloneJobInfo, CloneOrder, CloneReport, CloneWish, LimitInfo, ScheduleInfo, WantInfo, When,
};
use super::limits::{LIST_MAX, bounded};
use super::links::{LinkInfo, LinkPeer, LinkReport, PEERS_MAX};
use super::routes::RouteInfo;
use super::rules::{Rule, RuleInfo};
use super::stores::{BackupOrder, RestoreOrder, STORES_MAX, StoreInfo, StoreReport, StoreSpec};
use super::topology::{Topology, TopologyChange};

/// Labels of one node.
pub const LABELS_MAX: usize = 32;
/// Copies that one node hosts.
pub const COPIES_MAX: usize = 1_024;
/// Copies of one promotable set.
pub const SET_MAX: usize = 1_024;
/// Bytes of a name, an address or the value of a label; longer ones are refused.
pub const NAME_BYTES_MAX: usize = 255;
/// The youngest entries of a history that a report carries.
pub const HISTORY_ENTRIES_MAX: usize = 64;

/// What is asked of the control center. The answer is named in brackets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ControlRequest {
    /// A node joins \[`Joined`\].
    Join(Join),
    /// How a node and its copies are \[`Orders`\].
    Report(NodeReport),
    /// Who leads the groups that are known \[`Leads`\].
    Leads,
    /// The databases and who leads them \[`Databases`\].
    Databases,
    /// The nodes \[`Nodes`\].
    Nodes,
    /// The copies of databases \[`Instances`\].
    Instances,
    /// What happened, youngest first \[`History`\].
    History {
        /// At most so many events.
        limit: u32,
    },
    /// Where a clone to a node would be taken from \[`Source`\].
    ChooseSource {
        /// The node.
        to: String,
        /// The database by name or id; none where there is one.
        database: Option<String>,
        /// By how much a copy may be older than the freshest and be taken because it is nearer, in milliseconds.
        period_ms: u64,
        /// The state that the clone is to have.
        as_of: AsOf,
    },
    /// Sets who decides on a promotion when the primary of a database is lost \[`Databases`: what there is afterwards\].
    SetMode {
        /// The database by name or id.
        database: String,
        /// Who decides.
        mode: Mode,
    },
    /// Has a clone made when its turn comes \[`Clones`: that one\].
    CloneCreate(CloneWish),
    /// The clones that wait, run or have ended, youngest first \[`Clones`\].
    Clones {
        /// At most so many.
        limit: u32,
    },
    /// One clone, with what its source was chosen by \[`Clones`: that one\].
    CloneShow {
        /// The job.
        job: u64,
    },
    /// Gives a clone up that has not come to an end \[`Clones`: that one\].
    CloneCancel {
        /// The job.
        job: u64,
    },
    /// Changes what a clone may take at most \[`Clones`: that one\].
    CloneRate {
        /// The job.
        job: u64,
        /// Bytes a second; none leaves it to the limits.
        bytes_per_s: Option<u64>,
    },
    /// What clones may take \[`Limits`\].
    Limits,
    /// Sets what clones may take of a place, or of all places of a kind \[`Limits`\].
    SetLimit {
        /// The place, as in `node-out` or `link:a/b`.
        gate: String,
        /// Clones at a time.
        clones_max: u32,
        /// Bytes a second of all of them.
        bytes_per_s_max: u64,
    },
    /// How many copies of each database are wanted \[`Wants`\].
    Wants,
    /// Sets how many copies of a database are wanted beside its primary \[`Wants`\].
    SetWant {
        /// The database by name or id.
        database: String,
        /// Standbys; as many as before if nothing is said.
        standbys: Option<u32>,
        /// Backups; the same.
        backups: Option<u32>,
    },
    /// The clones that are asked for again and again \[`Schedules`\].
    Schedules,
    /// Has a clone asked for again and again \[`Schedules`\].
    SetSchedule {
        /// What the schedule is called; one of that name is replaced.
        name: String,
        /// When it asks.
        when: When,
        /// What is asked for.
        wish: CloneWish,
    },
    /// Has a schedule end \[`Schedules`\].
    RemoveSchedule {
        /// What it is called.
        name: String,
    },
    /// The round trips that nodes have measured \[`Links`\].
    Links,
    /// What is done when something happens \[`Rules`\].
    Rules,
    /// Sets what is to be done when something happens \[`Rules`\].
    SetRule(Rule),
    /// Ends a rule \[`Rules`\].
    RemoveRule {
        /// What it is called.
        name: String,
    },
    /// All that is declared \[`Topology`\].
    Topology,
    /// Has all be as it is declared \[`TopologyChanges`\].
    ApplyTopology {
        /// What is declared.
        topology: Box<Topology>,
        /// Only tells what would change.
        dry_run: bool,
    },
    /// Where a client of a database is to turn \[`Route`\].
    Route {
        /// The database by name or id; none where there is one.
        database: Option<String>,
        /// How old what it reads may be, in milliseconds; none for the newest, and for updates.
        staleness_max_ms: Option<u64>,
    },
    /// The stores of databases \[`Stores`\].
    Stores,
    /// Declares a store of a database, in place of what was declared of it \[`Stores`\].
    SetStore {
        /// The database by name or id; none where there is one.
        database: Option<String>,
        /// The store.
        spec: StoreSpec,
    },
    /// Has a database have a store no more; what is there stays \[`Stores`\].
    RemoveStore {
        /// The database by name or id; none where there is one.
        database: Option<String>,
        /// Where the store is.
        place: String,
    },
    /// Has a node leave that is gone for good, and its copies with it \[`Nodes`: what there is afterwards\].
    RemoveNode {
        /// Its name.
        name: String,
        /// Why; may be empty.
        reason: String,
        /// Though it led last, has clones that wait or run, or is named by schedules and rules.
        force: bool,
    },
    /// What nodes join with \[`Token`\].
    Token,
    /// Has another token be drawn, in place of the one with which nodes join \[`Token`\].
    RenewToken,
}

impl ControlRequest {
    /// Whether it takes the role control rather than client.
    pub fn needs_control(&self) -> bool {
        match self {
            Self::Join(_)
            | Self::Report(_)
            | Self::SetMode { .. }
            | Self::CloneCreate(_)
            | Self::CloneCancel { .. }
            | Self::CloneRate { .. }
            | Self::SetLimit { .. }
            | Self::SetWant { .. }
            | Self::SetSchedule { .. }
            | Self::RemoveSchedule { .. }
            | Self::SetRule(_)
            | Self::RemoveRule { .. }
            | Self::SetStore { .. }
            | Self::RemoveStore { .. }
            | Self::RemoveNode { .. }
            | Self::Token
            | Self::RenewToken
            | Self::ApplyTopology { .. } => true,
            Self::Leads
            | Self::Databases
            | Self::Nodes
            | Self::Instances
            | Self::History { .. }
            | Self::ChooseSource { .. }
            | Self::Clones { .. }
            | Self::CloneShow { .. }
            | Self::Limits
            | Self::Wants
            | Self::Schedules
            | Self::Links
            | Self::Rules
            | Self::Topology
            | Self::Stores
            | Self::Route { .. } => false,
        }
    }
}

/// Who decides on a promotion when the primary of a database is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Mode {
    /// An operator.
    #[default]
    Operator,
    /// The control center, where nothing that a protected level acknowledged would be lost.
    Automatic,
}

impl Mode {
    /// Its name in commands and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Automatic => "automatic",
        }
    }
}

/// What a node must say to join a cluster. Its debug output does not show it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JoinToken(pub u128);

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(hidden)")
    }
}

impl FromStr for JoinToken {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let token = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32);
        token.map(Self).ok_or_else(|| "it is 32 hexadecimal digits".to_owned())
    }
}

/// A node that joins.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Join {
    /// The token of the cluster.
    pub token: JoinToken,
    /// The node's name, unique in the cluster.
    pub name: String,
    /// The port on which it listens. Its host is the one that it speaks from.
    pub port: u16,
    /// Where it is, and what else is said of it: names and values.
    #[serde(deserialize_with = "bounded::<_, _, LABELS_MAX>")]
    pub labels: Vec<(String, String)>,
    /// Its software and version, for people.
    pub software: String,
    /// Where others reach it, if not at the host that it speaks from and that port.
    pub advertised: Option<SocketAddr>,
}

/// How a node is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeReport {
    /// What the node was given when it joined.
    pub session: u64,
    /// Bytes of the disk that holds its databases.
    pub capacity_bytes: u64,
    /// Bytes of it that are free.
    pub free_bytes: u64,
    /// The copies that it hosts.
    #[serde(deserialize_with = "bounded::<_, _, COPIES_MAX>")]
    pub copies: Vec<CopyReport>,
    /// Orders that have come to an end since the last report that was answered.
    #[serde(deserialize_with = "bounded::<_, _, COPIES_MAX>")]
    pub outcomes: Vec<Outcome>,
    /// What its copy would be for, if the node hosts none and waits for one.
    pub spare: Option<InstanceRole>,
    /// Clones that it makes.
    #[serde(deserialize_with = "bounded::<_, _, CLONES_MAX>")]
    pub clones: Vec<CloneReport>,
    /// Round trips that it has measured since the last report that was answered.
    #[serde(deserialize_with = "bounded::<_, _, PEERS_MAX>")]
    pub links: Vec<LinkReport>,
    /// The stores of backups that it was told it may speak to.
    #[serde(deserialize_with = "bounded::<_, _, STORES_MAX>")]
    pub stores: Vec<StoreReport>,
}

/// How one copy of a database is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CopyReport {
    /// The database.
    pub database: DatabaseId,
    /// Its name there.
    pub name: String,
    /// The copy.
    pub instance: InstanceId,
    /// What it is for when it does not lead.
    pub role: InstanceRole,
    /// How it is.
    pub state: CopyState,
    /// Whether it shows something that its primary does not have.
    pub is_diverged: bool,
    /// What is known to be wrong with its files; empty if nothing is.
    pub damage: String,
    /// The epoch that it leads under, or follows.
    pub epoch: Epoch,
    /// The newest epoch that it has promised to follow.
    pub promised: Epoch,
    /// What is durable there.
    pub position: Position,
    /// Its update time: up to here nothing is missing.
    pub update: Uid,
    /// How far it is behind its primary, in milliseconds.
    pub lag_ms: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// The level that the database prescribes.
    pub level: String,
    /// The primary that it follows, or knows of.
    pub primary: Option<SocketAddr>,
    /// The promotable set, as far as it knows.
    #[serde(deserialize_with = "bounded::<_, _, SET_MAX>")]
    pub promotable: Vec<InstanceId>,
    /// The next promotable set, while it changes.
    pub next_promotable: Option<BoundedSet>,
    /// The youngest epochs of its history.
    pub history: History,
}

/// A set of copies.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BoundedSet(#[serde(deserialize_with = "bounded::<_, _, SET_MAX>")] pub Vec<InstanceId>);

/// How an order came to its end.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// The job that it belonged to.
    pub job: u64,
    /// The code of the error; empty if it was done.
    pub code: String,
    /// What was done, or why not.
    pub what: String,
}

/// What a node is to do. It may be told again until its outcome has arrived, and does it once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Order {
    /// Become the primary, if nothing is lost by it that a protected level acknowledged.
    Promote {
        /// The job.
        job: u64,
        /// The copy.
        instance: InstanceId,
    },
    /// Follow the node that leads now.
    Follow {
        /// The job.
        job: u64,
        /// The copy.
        instance: InstanceId,
        /// Where the primary listens.
        primary: SocketAddr,
        /// The epoch under which it leads.
        epoch: Epoch,
    },
    /// Make a clone, or go on with it, at the rate that is told.
    Clone(CloneOrder),
    /// Give a clone up, and leave nothing of it behind.
    CancelClone {
        /// The job.
        job: u64,
    },
    /// Take everything anew from the primary, in place of what is there.
    Reseed {
        /// The job.
        job: u64,
        /// The copy.
        instance: InstanceId,
    },
    /// Bring a backup into a store, or go on with it, at the rate that is told.
    Backup(BackupOrder),
    /// Take a clone from a store, or go on with it, at the rate that is told.
    Restore(RestoreOrder),
}

/// Who leads a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeadInfo {
    /// The database.
    pub database: DatabaseId,
    /// The copy that leads.
    pub instance: InstanceId,
    /// The epoch.
    pub epoch: Epoch,
    /// Where its node listens.
    pub address: SocketAddr,
}

/// A database of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DatabaseInfo {
    /// Its name.
    pub name: String,
    /// Its id.
    pub database: DatabaseId,
    /// Who decides on a promotion.
    pub mode: Mode,
    /// The level that it prescribes.
    pub level: String,
    /// The node that leads, or led last; empty if none is known.
    pub primary: String,
    /// Where that node listens.
    pub address: String,
    /// The epoch under which it leads.
    pub epoch: Epoch,
    /// Whether it was heard to lead lately.
    pub is_led: bool,
    /// How many copies are known, and how many of them were heard lately.
    pub copies: u32,
    /// See `copies`.
    pub copies_heard: u32,
    /// What goes on, or why nothing does.
    pub note: String,
    /// How many stores of backups it has.
    pub stores: u32,
}

/// A node of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Its labels: `region=eu,datacenter=a`.
    pub labels: String,
    /// Its software and version.
    pub software: String,
    /// Bytes of its disk.
    pub capacity_bytes: u64,
    /// Bytes of it that are free.
    pub free_bytes: u64,
    /// How many copies it hosts.
    pub copies: u32,
    /// Whether it was heard lately.
    pub is_heard: bool,
    /// How long ago, in milliseconds, if since the control center started.
    pub heard_ago_ms: Option<u64>,
    /// What its copy would be for, if it hosts none and waits for one.
    pub spare: Option<InstanceRole>,
    /// Whether it joined with a token that is not that of the cluster any more.
    pub has_older_token: bool,
}

/// A copy of a database.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct InstanceInfo {
    /// The copy.
    pub instance: InstanceId,
    /// The database, by name.
    pub database: String,
    /// The node that hosts it.
    pub node: String,
    /// What it is for now.
    pub role: InstanceRole,
    /// How it was when it was last heard.
    pub state: CopyState,
    /// Whether its node was heard lately.
    pub is_heard: bool,
    /// Whether it is in the promotable set that it knows.
    pub is_promotable: bool,
    /// What is durable there.
    pub position: Position,
    /// Its update time.
    pub update: Uid,
    /// How far it is behind its primary, in milliseconds.
    pub lag_ms: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Of backups in a store how that stands, in place of the state of a copy; empty for copies.
    pub stored: String,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct EventInfo {
    /// Its number: events are counted.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// A stable name of what kind it is.
    pub kind: String,
    /// The database that it is about, by name; may be empty.
    pub database: String,
    /// The node that it is about; may be empty.
    pub node: String,
    /// What happened.
    pub what: String,
    /// Why; a line for each thing that was looked at.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub reasons: Vec<String>,
}

/// Where a clone would be taken from.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SourceInfo {
    /// The source; none if no copy can be one.
    pub source: Option<InstanceId>,
    /// What was found of every copy.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub candidates: Vec<CandidateInfo>,
    /// Why it would have to wait; empty if it would begin at once.
    pub note: String,
}

/// What was found of a copy that a clone might be taken from.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CandidateInfo {
    /// The copy.
    pub instance: InstanceId,
    /// Its node.
    pub node: String,
    /// What it is for.
    pub role: InstanceRole,
    /// Its update time.
    pub update: Uid,
    /// How far its node is from the designated one, in words.
    pub distance: String,
    /// The round trip between both, in microseconds, if it was measured.
    pub round_trip_us: Option<u64>,
    /// Whether it was chosen.
    pub is_chosen: bool,
    /// The stable name of the reason.
    pub code: String,
    /// Why it was chosen, or not.
    pub reason: String,
}

/// What the control center answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ControlResponse {
    /// The node belongs to the cluster.
    Joined {
        /// To be named in its reports, until the control center starts anew.
        session: u64,
    },
    /// What the node is to do.
    Orders {
        /// The orders.
        #[serde(deserialize_with = "bounded::<_, _, COPIES_MAX>")]
        orders: Vec<Order>,
        /// When the next report is due, in milliseconds.
        report_every_ms: u32,
        /// Nodes to which it is to measure the round trip once.
        #[serde(deserialize_with = "bounded::<_, _, PEERS_MAX>")]
        measure: Vec<LinkPeer>,
    },
    /// Who leads.
    Leads(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<LeadInfo>),
    /// The databases, by name.
    Databases(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<DatabaseInfo>),
    /// The nodes, by name.
    Nodes(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<NodeInfo>),
    /// The copies, by database and node.
    Instances(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<InstanceInfo>),
    /// What happened.
    History(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<EventInfo>),
    /// Where a clone would be taken from.
    Source(SourceInfo),
    /// Clones.
    Clones(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<CloneJobInfo>),
    /// What clones may take.
    Limits(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<LimitInfo>),
    /// Clones that are asked for again and again, by name.
    Schedules(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<ScheduleInfo>),
    /// How many copies are wanted.
    Wants(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<WantInfo>),
    /// Round trips, by both nodes.
    Links(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<LinkInfo>),
    /// Rules, by name.
    Rules(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<RuleInfo>),
    /// All that is declared.
    Topology(Box<Topology>),
    /// What changes, or would.
    TopologyChanges(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<TopologyChange>),
    /// Where a client is to turn.
    Route(RouteInfo),
    /// Stores, by database and place.
    Stores(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<StoreInfo>),
    /// What nodes join with.
    Token {
        /// It.
        token: JoinToken,
        /// Nodes that joined with an older one.
        older_nodes: u32,
    },
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
