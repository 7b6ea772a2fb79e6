use std::net::SocketAddr;

use planaria_net::wire::control::{JoinToken, Mode};
use planaria_replication::control::{CopyState, Gate, InstanceRole, Labels};
use planaria_types::{DatabaseId, Epoch, InstanceId, Uid};

use super::clones::{CloneRecord, LimitRecord, ScheduleRecord, WantRecord};
use super::declarations::{DeclarationRecord, Declared};
use super::members::{AdmissionRecord, RemovedRecord};
use super::rules::RuleRecord;
use super::stores::StoreRecord;

/// A datacenter that a node said it is in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DatacenterRecord {
    /// The region; empty if the node did not say.
    pub region: String,
    /// Its name.
    pub datacenter: String,
}

/// A node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeRecord {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its labels.
    pub labels: Labels,
    /// Its software and version.
    pub software: String,
    /// Bytes of its disk, when that was last written down.
    pub capacity_bytes: u64,
    /// Bytes of it that were free.
    pub free_bytes: u64,
    /// When it joined first, in milliseconds since 1970.
    pub joined_ms: u64,
    /// When this was written down.
    pub heard_ms: u64,
}

/// The round trip from one node to another, as it was measured last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkRecord {
    /// The node that measured, by name.
    pub from: String,
    /// The node at the other end.
    pub to: String,
    /// The round trip in microseconds; none if the other node could not be reached.
    pub round_trip_us: Option<u64>,
    /// Why there is none.
    pub what: String,
    /// When it was measured, in milliseconds since 1970.
    pub measured_ms: u64,
}

/// A database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatabaseRecord {
    /// Its id.
    pub database: DatabaseId,
    /// Its name.
    pub name: String,
    /// Who decides on a promotion.
    pub mode: Mode,
    /// The level that it prescribes.
    pub level: String,
}

/// A copy of a database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InstanceRecord {
    /// The copy.
    pub instance: InstanceId,
    /// The database.
    pub database: DatabaseId,
    /// Its node, by name.
    pub node: String,
    /// What it is for when it does not lead.
    pub role: InstanceRole,
    /// How it was when this was written down.
    pub state: CopyState,
    /// Its last durable commit then.
    pub durable: Uid,
    /// Its update time then.
    pub update: Uid,
    /// Its bytes then.
    pub bytes: u64,
    /// When this was written down, in milliseconds since 1970.
    pub heard_ms: u64,
}

/// Who leads the group of a database, or led it last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeadRecord {
    /// The database.
    pub database: DatabaseId,
    /// The copy.
    pub instance: InstanceId,
    /// Its node, by name.
    pub node: String,
    /// Where its node listens.
    pub address: SocketAddr,
    /// The epoch.
    pub epoch: Epoch,
    /// When it was first heard to lead, in milliseconds since 1970.
    pub since_ms: u64,
}

/// What a node is told to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobKind {
    /// Become the primary.
    Promote,
    /// Follow the primary.
    Follow,
    /// Take everything anew from it.
    Reseed,
}

impl JobKind {
    /// Its name in the catalog.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Follow => "follow",
            Self::Reseed => "reseed",
        }
    }

    /// What has happened where it comes to nothing.
    pub const fn failure(self) -> EventKind {
        match self {
            Self::Promote => EventKind::PromotionFailed,
            Self::Follow => EventKind::FollowFailed,
            Self::Reseed => EventKind::ReseedFailed,
        }
    }
}

/// Whether a job has come to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobState {
    /// The node is told to do it.
    Open,
    /// It was done.
    Done,
    /// It was refused, or nothing was heard of it in time.
    Failed,
}

impl JobState {
    /// Its name in the catalog.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// Something that a node is told to do, or was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobRecord {
    /// Its number.
    pub number: u64,
    /// What is to be done.
    pub kind: JobKind,
    /// The database.
    pub database: DatabaseId,
    /// The copy.
    pub instance: InstanceId,
    /// Its node, by name.
    pub node: String,
    /// Whether it has come to its end.
    pub state: JobState,
    /// Why it was begun; how it ended.
    pub reason: String,
    /// When it was begun, in milliseconds since 1970.
    pub began_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
}

/// What kind of thing happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// A node joined, or joined with another address or other labels.
    NodeJoined,
    /// A node has not been heard for too long.
    NodeLost,
    /// A node that was lost is heard again.
    NodeReturned,
    /// A copy leads under a newer epoch.
    Leads,
    /// A copy leads under the number of an epoch under which another one does.
    Conflict,
    /// The primary of a database has not been heard for too long.
    PrimaryLost,
    /// A copy was asked to lead.
    PromotionAsked,
    /// No copy is asked to lead.
    NobodyPromoted,
    /// A copy that was asked leads.
    Promoted,
    /// A copy that was asked does not lead.
    PromotionFailed,
    /// A copy was told to follow the primary.
    FollowAsked,
    /// It follows.
    Follows,
    /// It does not.
    FollowFailed,
    /// An operator said who decides on promotions.
    ModeSet,
    /// A clone was asked for.
    CloneQueued,
    /// A clone began, from a source that was chosen.
    CloneBegun,
    /// A clone that ran goes back into the queue: its source failed, or its node is lost.
    CloneAgain,
    /// A clone is whole.
    CloneComplete,
    /// A clone cannot be made.
    CloneFailed,
    /// An operator gave a clone up.
    CloneCancelled,
    /// An operator said what clones may take.
    LimitSet,
    /// An operator said how many copies are wanted.
    WantSet,
    /// A copy that is wanted is missing.
    CopyWanted,
    /// An operator had a clone asked for again and again.
    ScheduleSet,
    /// An operator ended that.
    ScheduleEnded,
    /// An operator said what is to be done when something happens.
    RuleSet,
    /// An operator ended that.
    RuleEnded,
    /// What a rule waits for has happened, and it acts.
    RuleActed,
    /// It has happened, and the rule cannot act yet.
    RuleWaits,
    /// A copy was told to take everything anew.
    ReseedAsked,
    /// It does.
    Reseeds,
    /// It does not.
    ReseedFailed,
    /// An operator declared how the cluster is to be.
    TopologyApplied,
    /// An operator said that a database has a store of backups.
    StoreSet,
    /// An operator said that it has it no more.
    StoreRemoved,
    /// A newer backup was seen in a store.
    BackupSeen,
    /// An operator had a node leave the cluster.
    NodeRemoved,
    /// A copy has left, as its node has another one in its place.
    CopyReplaced,
    /// An operator had another token drawn.
    TokenRenewed,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 39] = [
        Self::NodeJoined,
        Self::NodeLost,
        Self::NodeReturned,
        Self::Leads,
        Self::Conflict,
        Self::PrimaryLost,
        Self::PromotionAsked,
        Self::NobodyPromoted,
        Self::Promoted,
        Self::PromotionFailed,
        Self::FollowAsked,
        Self::Follows,
        Self::FollowFailed,
        Self::ModeSet,
        Self::CloneQueued,
        Self::CloneBegun,
        Self::CloneAgain,
        Self::CloneComplete,
        Self::CloneFailed,
        Self::CloneCancelled,
        Self::LimitSet,
        Self::WantSet,
        Self::CopyWanted,
        Self::ScheduleSet,
        Self::ScheduleEnded,
        Self::RuleSet,
        Self::RuleEnded,
        Self::RuleActed,
        Self::RuleWaits,
        Self::ReseedAsked,
        Self::Reseeds,
        Self::ReseedFailed,
        Self::TopologyApplied,
        Self::StoreSet,
        Self::StoreRemoved,
        Self::BackupSeen,
        Self::NodeRemoved,
        Self::CopyReplaced,
        Self::TokenRenewed,
    ];

    /// A stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NodeJoined => "node_joined",
            Self::NodeLost => "node_lost",
            Self::NodeReturned => "node_returned",
            Self::Leads => "leads",
            Self::Conflict => "conflict",
            Self::PrimaryLost => "primary_lost",
            Self::PromotionAsked => "promotion_asked",
            Self::NobodyPromoted => "nobody_promoted",
            Self::Promoted => "promoted",
            Self::PromotionFailed => "promotion_failed",
            Self::FollowAsked => "follow_asked",
            Self::Follows => "follows",
            Self::FollowFailed => "follow_failed",
            Self::ModeSet => "mode_set",
            Self::CloneQueued => "clone_queued",
            Self::CloneBegun => "clone_begun",
            Self::CloneAgain => "clone_again",
            Self::CloneComplete => "clone_complete",
            Self::CloneFailed => "clone_failed",
            Self::CloneCancelled => "clone_cancelled",
            Self::LimitSet => "limit_set",
            Self::WantSet => "want_set",
            Self::CopyWanted => "copy_wanted",
            Self::ScheduleSet => "schedule_set",
            Self::ScheduleEnded => "schedule_ended",
            Self::RuleSet => "rule_set",
            Self::RuleEnded => "rule_ended",
            Self::RuleActed => "rule_acted",
            Self::RuleWaits => "rule_waits",
            Self::ReseedAsked => "reseed_asked",
            Self::Reseeds => "reseeds",
            Self::ReseedFailed => "reseed_failed",
            Self::TopologyApplied => "topology_applied",
            Self::StoreSet => "store_set",
            Self::StoreRemoved => "store_removed",
            Self::BackupSeen => "backup_seen",
            Self::NodeRemoved => "node_removed",
            Self::CopyReplaced => "copy_replaced",
            Self::TokenRenewed => "token_renewed",
        }
    }
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Its number: events are counted.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// What kind of thing it is.
    pub kind: EventKind,
    /// The database that it is about.
    pub database: Option<DatabaseId>,
    /// The node that it is about; may be empty.
    pub node: String,
    /// What happened.
    pub what: String,
    /// Why, a line for each thing that was looked at.
    pub reasons: Vec<String>,
}

/// A change of the catalog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A datacenter is known.
    Datacenter(DatacenterRecord),
    /// A node is new, or has changed.
    Node(NodeRecord),
    /// The node of that name has left.
    NodeRemoved(String),
    /// What a node must say to join is another one from now on.
    Token(JoinToken),
    /// A node that joined with a token before that is let in with it again.
    Admission(AdmissionRecord),
    /// The node of that name has left, or has joined with the token of now.
    AdmissionRemoved(String),
    /// That a node has left is remembered.
    Removed(RemovedRecord),
    /// The node of that name is back, or so many have left since that this one is forgotten.
    RemovedForgotten(String),
    /// Something was declared of a node or a datacenter.
    Declaration(DeclarationRecord),
    /// It is declared no more.
    DeclarationRemoved(Declared, String),
    /// A round trip was measured.
    Link(LinkRecord),
    /// One of these two nodes has left.
    LinkRemoved(String, String),
    /// A database is new, or has changed.
    Database(DatabaseRecord),
    /// A copy is new, or has changed.
    Instance(InstanceRecord),
    /// A copy has left.
    InstanceRemoved(InstanceId),
    /// Another copy leads, or under another epoch or at another address.
    Lead(LeadRecord),
    /// A job was begun or ended.
    Job(JobRecord),
    /// A clone was asked for, began or ended.
    Clone(Box<CloneRecord>),
    /// What clones may take was set.
    Limit(LimitRecord),
    /// What clones may take of a place is set no more.
    LimitRemoved(Gate),
    /// A schedule was set, or its clone was asked for.
    Schedule(Box<ScheduleRecord>),
    /// The schedule of that name was ended.
    ScheduleRemoved(String),
    /// A rule was set, or has acted.
    Rule(Box<RuleRecord>),
    /// The rule of that name was ended.
    RuleRemoved(String),
    /// A database has a store of backups, or something else was seen there.
    Store(Box<StoreRecord>),
    /// A database has the store at that place no more.
    StoreRemoved(DatabaseId, String),
    /// How many copies are wanted was said.
    Want(WantRecord),
    /// Something happened.
    Event(Event),
}
