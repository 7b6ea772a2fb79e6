//! What happens in the control center.

mod calendar;
mod clone_view;
mod clones;
mod learn;
mod links;
mod live;
mod members;
mod orders;
mod queue;
mod route;
mod rules;
mod schedules;
mod seeding;
mod source;
mod stored;
mod stores;
mod succession;
mod topology;
mod view;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use planaria_net::wire::control::{Join, JoinToken, Mode, NodeReport, Order};
use planaria_replication::Millis;
use planaria_replication::control::Labels;
use planaria_types::DatabaseId;

use self::live::{LiveNode, Watched};
use self::queue::LiveClone;
use self::rules::Watching;
use self::seeding::Seeding;
use crate::catalog::{
    Catalog, Change, Contents, DatabaseRecord, DatacenterRecord, Event, EventKind, NodeRecord,
};
use crate::{Error, Result};

/// Nodes that are known, at most.
const NODES_MAX: usize = 4_096;
/// Datacenters that are known, at most.
const DATACENTERS_MAX: usize = 4_096;
/// Copies that are known, at most; databases, too.
const INSTANCES_MAX: usize = 16_384;

/// What an operator may set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// A node that was not heard for so many milliseconds is lost.
    pub lost_after_ms: u64,
    /// How often nodes report, in milliseconds.
    pub report_every_ms: u32,
    /// A copy that is wanted and was not heard for so many milliseconds is made anew elsewhere.
    pub seed_after_ms: u64,
    /// How often the round trip between two nodes is measured, in milliseconds.
    pub measure_every_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lost_after_ms: 10_000,
            report_every_ms: 1_000,
            seed_after_ms: 600_000,
            measure_every_ms: 60_000,
        }
    }
}

/// A moment, by both clocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// By a clock that never goes back, for what is decided.
    pub at: Millis,
    /// Milliseconds since 1970, for what is written down.
    pub wall_ms: u64,
}

/// The control center: what the catalog says, what the nodes said lately, and what follows from both.
pub struct Center {
    catalog: Box<dyn Catalog>,
    contents: Contents,
    settings: Settings,
    /// Nobody was heard before.
    started: Millis,
    /// The nodes that joined since then, by name.
    live: BTreeMap<String, LiveNode>,
    watched: BTreeMap<DatabaseId, Watched>,
    /// What is known of open clones, by number.
    clones_live: BTreeMap<u64, LiveClone>,
    /// When the queue of clones was last gone through.
    planned: Option<Millis>,
    seeding: Seeding,
    /// Clients that were told where to turn: each begins with another copy.
    routed: u64,
    watching: Watching,
    /// Nodes that have left since then, by the sessions that they had.
    left: BTreeMap<u64, String>,
}

impl Center {
    /// A control center over a catalog.
    pub fn new(catalog: Box<dyn Catalog>, settings: Settings, now: Now) -> Result<Self> {
        let contents = catalog.load()?;
        Ok(Self {
            catalog,
            contents,
            settings,
            started: now.at,
            live: BTreeMap::new(),
            watched: BTreeMap::new(),
            clones_live: BTreeMap::new(),
            planned: None,
            seeding: Seeding::default(),
            routed: 0,
            watching: Watching::default(),
            left: BTreeMap::new(),
        })
    }

    /// What a node must say to join.
    pub fn token(&self) -> JoinToken {
        self.contents.token
    }

    /// What the catalog holds.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Lets a node join that speaks from `host`, under a session number that was drawn at random.
    ///
    /// # Errors
    ///
    /// `token` if its token is another one, and `removed` if it has left and its token is; `name_taken` while another node is heard under its name, `invalid` if a name or
    /// a label is none.
    pub fn join(&mut self, now: Now, host: IpAddr, join: &Join, session: u64) -> Result<()> {
        let labels = learn::labels_of(join)?;
        let address = join.advertised.unwrap_or(SocketAddr::new(host, join.port));
        self.check_token(join, address)?;
        let lost_after = Millis(self.settings.lost_after_ms);
        let other = self.live.get(&join.name).filter(|node| node.address != address);
        if other.is_some_and(|node| now.at.since(node.heard) < lost_after) {
            return Err(Error::refused(
                "name_taken",
                format!("another node is called {:?}", join.name),
                "name this one differently with --name; a node that moved is taken for another until the old one is lost",
            ));
        }
        let known = self.contents.nodes.get(&join.name);
        if known.is_none() && self.contents.nodes.len() >= NODES_MAX {
            return Err(Error::refused(
                "too_many",
                format!("there are {NODES_MAX} nodes"),
                "use another cluster",
            ));
        }
        let is_same = known.is_some_and(|node| node.address == address && node.labels == labels);
        let node = NodeRecord {
            name: join.name.clone(),
            address,
            labels,
            software: join.software.clone(),
            capacity_bytes: known.map_or(0, |node| node.capacity_bytes),
            free_bytes: known.map_or(0, |node| node.free_bytes),
            joined_ms: known.map_or(now.wall_ms, |node| node.joined_ms),
            heard_ms: now.wall_ms,
        };
        if !is_same {
            let what = format!("{} joined at {address} ({})", node.name, node.labels);
            let back = self.back_after(&node.name);
            let reasons = back.iter().map(|(_, words)| words.clone()).collect();
            let event = self.event(now, EventKind::NodeJoined, None, &node.name, what, reasons);
            let has_room = self.contents.datacenters.len() < DATACENTERS_MAX;
            let datacenter = datacenter_of(&node.labels).filter(|_| has_room).map(Change::Datacenter);
            let back = back.map(|(forgotten, _)| forgotten);
            let changes = [Some(Change::Node(node)), back, datacenter, Some(event)];
            self.note(changes.into_iter().flatten().collect())?;
        }
        self.note_token(join)?;
        self.note_returned(now, &join.name)?;
        self.live.insert(join.name.clone(), LiveNode::new(session, address, now.at));
        Ok(())
    }

    /// Takes in how a node is. The answer is what it is to do.
    ///
    /// # Errors
    ///
    /// `not_joined` if the node has not joined since the control center started, `removed` if it has left since: it joins, and
    /// reports again.
    pub fn report(&mut self, now: Now, report: &NodeReport) -> Result<Vec<Order>> {
        let joined = self.live.iter().find(|(_, node)| node.session == report.session);
        let Some((name, _)) = joined.map(|(name, node)| (name.clone(), node)) else {
            return Err(self.not_joined(report.session));
        };
        self.take_report(now, &name, report)?;
        self.tick(now)?;
        self.orders(now, &name)
    }

    /// Does what time asks for.
    pub fn tick(&mut self, now: Now) -> Result<()> {
        self.note_lost_nodes(now)?;
        let led: Vec<DatabaseId> = self.contents.leads.keys().copied().collect();
        for database in led {
            self.watch_lead(now, database)?;
        }
        self.note_lost_receivers(now)?;
        self.watch_wants(now)?;
        self.watch_schedules(now)?;
        self.watch_rules(now)?;
        self.watch_queue(now)
    }

    /// Sets who decides on a promotion of a database. Where an operator does, nodes are told no more what they were.
    ///
    /// # Errors
    ///
    /// `unknown_database`, `ambiguous`.
    pub fn set_mode(&mut self, now: Now, database: &str, mode: Mode) -> Result<()> {
        let record = DatabaseRecord { mode, ..self.database_named(Some(database))?.clone() };
        let what = format!("promotions of {} are decided in mode {}", record.name, mode.name());
        let event = self.event(now, EventKind::ModeSet, Some(record.database), "", what, Vec::new());
        let called_off = match mode {
            Mode::Operator => self.called_off(now, record.database),
            Mode::Automatic => Vec::new(),
        };
        self.note([Change::Database(record), event].into_iter().chain(called_off).collect())
    }

    /// The database of that name or id; the only one, where none is named.
    fn database_named(&self, named: Option<&str>) -> Result<&DatabaseRecord> {
        let is_meant = |database: &&DatabaseRecord| {
            named.is_none_or(|named| database.name == named || database.database.to_string() == named)
        };
        let mut meant = self.contents.databases.values().filter(is_meant);
        match (meant.next(), meant.next()) {
            (Some(database), None) => Ok(database),
            (None, _) => Err(Error::refused(
                "unknown_database",
                named.map_or("no database is known yet".to_owned(), |named| {
                    format!("no database is called {named:?}")
                }),
                "`planaria cluster show` lists those that are known",
            )),
            (Some(_), Some(_)) => Err(Error::refused(
                "ambiguous",
                named.map_or("several databases are known".to_owned(), |named| {
                    format!("several databases are called {named:?}")
                }),
                "name it by its id; `planaria cluster show` has it",
            )),
        }
    }

    /// What happened, as a change. Events of one list of changes are numbered by [`Center::note`].
    #[expect(clippy::unused_self, reason = "it reads as what the control center says")]
    fn event(
        &self,
        now: Now,
        kind: EventKind,
        database: Option<DatabaseId>,
        node: &str,
        what: String,
        reasons: Vec<String>,
    ) -> Change {
        tracing::info!(kind = kind.name(), "{what}");
        let node = node.to_owned();
        Change::Event(Event { number: 0, at_ms: now.wall_ms, kind, database, node, what, reasons })
    }

    /// Makes changes durable, and then one's own.
    fn note(&mut self, mut changes: Vec<Change>) -> Result<()> {
        let mut number = self.contents.last_event;
        for change in &mut changes {
            if let Change::Event(event) = change {
                number += 1;
                event.number = number;
            }
        }
        self.catalog.apply(&changes)?;
        for change in changes {
            self.contents.take(change);
        }
        Ok(())
    }

    /// How long ago a node was heard, if it was since the control center started.
    fn heard_ago(&self, now: Now, node: &str) -> Option<u64> {
        self.live.get(node).map(|node| now.at.since(node.heard).0)
    }

    /// Whether a node was heard lately.
    fn is_heard(&self, now: Now, node: &str) -> bool {
        self.heard_ago(now, node).is_some_and(|ago| ago < self.settings.lost_after_ms)
    }
}

impl std::fmt::Debug for Center {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Center").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn datacenter_of(labels: &Labels) -> Option<DatacenterRecord> {
    let datacenter = labels.get("datacenter")?.to_owned();
    Some(DatacenterRecord { region: labels.get("region").unwrap_or_default().to_owned(), datacenter })
}

#[cfg(test)]
#[path = "center_tests.rs"]
mod tests;
