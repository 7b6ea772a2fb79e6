//! What the control center knows for good.

mod clones;
mod declarations;
mod members;
mod record;
mod row;
mod rules;
mod shapes;
mod store;
mod stores;
mod tables;

use std::collections::{BTreeMap, BTreeSet};

use planaria_net::wire::control::JoinToken;
use planaria_replication::control::{Ceiling, Gate};
use planaria_types::{DatabaseId, InstanceId};

pub(crate) use clones::role_name;
pub use clones::{CloneRecord, CloneState, LimitRecord, ScheduleRecord, WantRecord};
pub use declarations::{DeclarationRecord, Declared};
pub use members::{AdmissionRecord, RemovedRecord};
pub use record::{
    Change, DatabaseRecord, DatacenterRecord, Event, EventKind, InstanceRecord, JobKind, JobRecord, JobState,
    LeadRecord, LinkRecord, NodeRecord,
};
pub use rules::RuleRecord;
pub use store::StoreCatalog;
pub use stores::StoreRecord;

use crate::Result;

/// What must outlive the control center's process.
///
/// Changes are a list, so that a catalog of several processes can agree on them one list after the other.
pub trait Catalog: Send {
    /// All that is there, but what has happened and is over.
    fn load(&self) -> Result<Contents>;

    /// Makes changes, all or none of them; durable when it returns.
    fn apply(&self, changes: &[Change]) -> Result<()>;

    /// The youngest events, at most `limit`, youngest first.
    fn events(&self, limit: usize) -> Result<Vec<Event>>;

    /// The youngest clones, at most `limit`, youngest first, however they stand.
    fn clones(&self, limit: usize) -> Result<Vec<CloneRecord>>;

    /// The clone of that number, if it is still kept.
    fn clone_of(&self, number: u64) -> Result<Option<CloneRecord>>;
}

/// What a catalog holds now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Contents {
    /// What a node must say to join.
    pub token: JoinToken,
    /// The datacenters that nodes said they are in.
    pub datacenters: BTreeSet<DatacenterRecord>,
    /// The nodes by name.
    pub nodes: BTreeMap<String, NodeRecord>,
    /// Nodes that joined with an older token and are let in with it again, by name.
    pub admissions: BTreeMap<String, AdmissionRecord>,
    /// Nodes that have left and are not back, by name.
    pub removed: BTreeMap<String, RemovedRecord>,
    /// What an operator declared of nodes and datacenters.
    pub declarations: BTreeMap<(Declared, String), DeclarationRecord>,
    /// Round trips, by the node that measured and the one at the other end.
    pub links: BTreeMap<(String, String), LinkRecord>,
    /// The databases.
    pub databases: BTreeMap<DatabaseId, DatabaseRecord>,
    /// The copies.
    pub instances: BTreeMap<InstanceId, InstanceRecord>,
    /// Who leads.
    pub leads: BTreeMap<DatabaseId, LeadRecord>,
    /// Jobs that have not come to an end.
    pub jobs: BTreeMap<u64, JobRecord>,
    /// Clones that have not come to an end.
    pub clones: BTreeMap<u64, CloneRecord>,
    /// What clones may take, where it was set.
    pub limits: BTreeMap<Gate, Ceiling>,
    /// Clones that are asked for again and again, by name.
    pub schedules: BTreeMap<String, ScheduleRecord>,
    /// What is done when something happens, by name.
    pub rules: BTreeMap<String, RuleRecord>,
    /// The stores of backups, by database and place.
    pub stores: BTreeMap<(DatabaseId, String), StoreRecord>,
    /// How many copies are wanted, where it was said.
    pub wants: BTreeMap<DatabaseId, WantRecord>,
    /// The number of the last event.
    pub last_event: u64,
    /// The number of the last job.
    pub last_job: u64,
}

impl Contents {
    /// The same after a change.
    pub fn take(&mut self, change: Change) {
        match change {
            Change::Datacenter(datacenter) => drop(self.datacenters.insert(datacenter)),
            Change::Node(node) => drop(self.nodes.insert(node.name.clone(), node)),
            Change::NodeRemoved(name) => drop(self.nodes.remove(&name)),
            Change::Token(token) => self.token = token,
            Change::Admission(admission) => {
                self.admissions.insert(admission.node.clone(), admission);
            }
            Change::AdmissionRemoved(name) => drop(self.admissions.remove(&name)),
            Change::Removed(removed) => drop(self.removed.insert(removed.node.clone(), removed)),
            Change::RemovedForgotten(name) => drop(self.removed.remove(&name)),
            Change::Declaration(declared) => {
                self.declarations.insert((declared.of, declared.name.clone()), declared);
            }
            Change::DeclarationRemoved(of, name) => drop(self.declarations.remove(&(of, name))),
            Change::Link(link) => drop(self.links.insert((link.from.clone(), link.to.clone()), link)),
            Change::LinkRemoved(from, to) => drop(self.links.remove(&(from, to))),
            Change::Database(database) => drop(self.databases.insert(database.database, database)),
            Change::Instance(instance) => drop(self.instances.insert(instance.instance, instance)),
            Change::InstanceRemoved(instance) => drop(self.instances.remove(&instance)),
            Change::Lead(lead) => drop(self.leads.insert(lead.database, lead)),
            Change::Job(job) => {
                self.last_job = self.last_job.max(job.number);
                match job.state {
                    JobState::Open => drop(self.jobs.insert(job.number, job)),
                    JobState::Done | JobState::Failed => drop(self.jobs.remove(&job.number)),
                }
            }
            Change::Clone(clone) => {
                self.last_job = self.last_job.max(clone.number);
                if clone.state.is_open() {
                    self.clones.insert(clone.number, *clone);
                } else {
                    self.clones.remove(&clone.number);
                }
            }
            Change::Limit(limit) => drop(self.limits.insert(limit.gate, limit.ceiling)),
            Change::LimitRemoved(gate) => drop(self.limits.remove(&gate)),
            Change::Schedule(schedule) => {
                self.schedules.insert(schedule.name.clone(), *schedule);
            }
            Change::ScheduleRemoved(name) => drop(self.schedules.remove(&name)),
            Change::Rule(rule) => drop(self.rules.insert(rule.name.clone(), *rule)),
            Change::RuleRemoved(name) => drop(self.rules.remove(&name)),
            Change::Store(store) => {
                self.last_job = self.last_job.max(store.number);
                self.stores.insert((store.database, store.place.clone()), *store);
            }
            Change::StoreRemoved(database, place) => drop(self.stores.remove(&(database, place))),
            Change::Want(want) => drop(self.wants.insert(want.database, want)),
            Change::Event(event) => self.last_event = self.last_event.max(event.number),
        }
    }
}
