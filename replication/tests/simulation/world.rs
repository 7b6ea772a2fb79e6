//! Nodes, network and faults: the driver of the state machines, one small step at a time.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{Hash, Hasher};

use planaria_replication::primary::{self, Group, Session, SessionAction};
use planaria_replication::secondary::{self, Replica, State};
use planaria_replication::{Message, Millis, Options, Planted, PromotableSets, Span, Way};
use planaria_types::{DatabaseId, Epoch, EpochOrder, GroupId, InstanceId, KeyRange, Portion, TableId, Uid};

use crate::random::Random;
use crate::store::{Content, Store};
use crate::swarm::Swarm;

pub(crate) const NODES: usize = 3;
pub(crate) const STEPS: u64 = 900;
/// A comparison takes many steps, and fewer faults.
const RECONCILING_STEPS: u64 = 2_500;
/// The lead changes hands several times, each time once copies have caught up.
const SWARM_STEPS: u64 = 4_000;
pub(crate) const SETTLE_STEPS: u64 = 60_000;
pub(crate) type Checked = Result<(), String>;

/// How often things happened, to show that a run reaches what it is to test.
#[derive(Default, Clone, Debug)]
pub(crate) struct Coverage {
    pub(crate) steps: u64,
    pub(crate) simulated_ms: u64,
    pub(crate) commits: u64,
    pub(crate) crashes: u64,
    pub(crate) promotions: u64,
    pub(crate) safe_promotions: u64,
    pub(crate) unsafe_refused: u64,
    pub(crate) protected: u64,
    pub(crate) tails: u64,
    pub(crate) deltas: u64,
    pub(crate) long_logs: u64,
    pub(crate) hops: u64,
    pub(crate) bulks: u64,
    pub(crate) rewinds: u64,
    pub(crate) clips: u64,
    pub(crate) quarantines: u64,
    pub(crate) refused: u64,
    pub(crate) again: u64,
    pub(crate) lost: u64,
    pub(crate) reconciles: u64,
    pub(crate) pinned_reconciles: u64,
    pub(crate) resumed: u64,
    pub(crate) resumptions: u64,
    pub(crate) inherited: u64,
    pub(crate) fed: u64,
    pub(crate) behind: u64,
    pub(crate) loops: u64,
    pub(crate) moved: u64,
    pub(crate) cuts: u64,
    pub(crate) broken_links: u64,
    pub(crate) pauses: u64,
    pub(crate) clock_jumps: u64,
    pub(crate) stray_restarts: u64,
    pub(crate) lost_answers: u64,
    pub(crate) outnumbered: u64,
    /// Of all that happened, as it is told to people.
    pub(crate) digest: u64,
}

#[expect(clippy::large_enum_variant, reason = "three nodes")]
pub(crate) enum Role {
    Down,
    Primary {
        group: Group,
        sessions: BTreeMap<u64, Session>,
    },
    /// One that may feed others: `group` and `sessions` are of those.
    Secondary {
        replica: Replica,
        connection: Option<u64>,
        group: Group,
        sessions: BTreeMap<u64, Session>,
    },
}

impl Role {
    /// What serves those who connect.
    pub(crate) fn serving(&mut self) -> Option<(&mut Group, &mut BTreeMap<u64, Session>)> {
        match self {
            Self::Down => None,
            Self::Primary { group, sessions } | Self::Secondary { group, sessions, .. } => {
                Some((group, sessions))
            }
        }
    }
}

/// What the engine of a node has yet to answer.
pub(crate) enum Answer {
    Appended(Uid),
    Hash(Uid),
    Stored(u64),
    ReconcileBegun(u64),
    Sums { round: u64, spans: Vec<Span> },
    Items { round: u64, above: Uid, cursor: Option<(TableId, bytes::Bytes)>, bytes_max: u64 },
    Installed,
    Bulk { at_least: Uid },
    Promotable(PromotableSets, Uid),
    Read { session: u64, read: SessionAction },
}

pub(crate) struct Node {
    pub(crate) store: Store,
    pub(crate) role: Role,
    pub(crate) answers: VecDeque<Answer>,
    pub(crate) incarnations: u64,
    /// The last epoch that it led under.
    pub(crate) led: Epoch,
}

#[derive(Default)]
pub(crate) struct Connection {
    pub(crate) secondary: usize,
    pub(crate) primary: usize,
    pub(crate) epoch: Epoch,
    pub(crate) up: VecDeque<Message>,
    pub(crate) control: VecDeque<Message>,
    pub(crate) bulk: VecDeque<Message>,
    /// The ends that still believe in the connection.
    pub(crate) up_open: bool,
    pub(crate) down_open: bool,
    /// Something was lost on it: it will be cut.
    pub(crate) doomed: bool,
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) options: Options,
    pub(crate) nodes: Vec<Node>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) next_connection: u64,
    pub(crate) leader: usize,
    pub(crate) now: u64,
    pub(crate) value: u64,
    pub(crate) faults: bool,
    /// Whether the last node is a partial copy. It holds all that there is, so that its content is named by its position,
    /// too; what is left out of a round is the engine's.
    partial: bool,
    /// Where copies are asked to compare ranges: drawn apart from everything else.
    reconciling: Option<Random>,
    /// Where copies follow secondaries as well: drawn apart from everything else.
    pub(crate) cascading: Option<Random>,
    /// What goes wrong here, and how often, where the seed draws that; the weights of all worlds else.
    pub(crate) swarm: Option<Swarm>,
    /// How rarely what was appended becomes visible at the primary.
    publish_one_in: u64,
    /// Whether promotions hear enough copies first; otherwise an operator forces them.
    pub(crate) careful: bool,
    /// The highest UID of each epoch that was acknowledged at a protected level, and which nobody gave up.
    pub(crate) protected: BTreeMap<(u64, u64, u64), Uid>,
    /// The content that each position names.
    pub(crate) truth: HashMap<(Epoch, Uid), Content>,
    /// The highest UID that was durable on the primary of each epoch.
    pub(crate) durable: HashMap<Epoch, Uid>,
    pub(crate) trace: VecDeque<String>,
    trace_lines_max: usize,
    pub(crate) coverage: Coverage,
}

pub(crate) fn id(node: usize) -> InstanceId {
    InstanceId(node as u128 + 1)
}

impl World {
    pub(crate) fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut random = Random::new(seed);
        // Drawn apart, so that seeds of old failures keep their meaning.
        let mut comparison = Random::new(!seed);
        let options = Options {
            live_window_bytes: 150 + random.below(600),
            live_batch_bytes: 100 + random.below(300),
            chunk_bytes: 41 + random.below(120),
            rewind_reply_bytes: 0, // as much as a chunk has
            chunks_in_flight: 1 + random.below(3) as u32,
            held_bytes_max: 100 + random.below(900),
            refresh_mark_bytes: 0,
            refresh_mark_after: Millis(0),
            rewind_request_bytes: 17 + random.below(60),
            compare_first_parts: 1 + comparison.below(5) as u32,
            compare_parts: 2 + comparison.below(2) as u32,
            compare_leaf_records: comparison.below(3),
            compare_spans: 1 + comparison.below(3) as u32,
            rounds_apart: Millis(200),
            bulk_bytes_min: if random.one_in(3) { 200 } else { u64::MAX },
            tail_bytes_free: u64::MAX,
            heartbeat: Millis(100),
            session_timeout: Millis(600),
            leave_after: Millis(300 + random.below(2_000)),
            planted,
        };
        let options = Options {
            rewind_reply_bytes: options.chunk_bytes,
            refresh_mark_bytes: options.chunk_bytes * (1 + comparison.below(3)),
            refresh_mark_after: Millis(comparison.below(200)),
            tail_bytes_free: if comparison.one_in(3) { 200 } else { u64::MAX },
            ..options
        };
        let publish_one_in = if random.one_in(3) { 30 } else { 1 };
        let node = |_| Node {
            store: Store::default(),
            role: Role::Down,
            answers: VecDeque::new(),
            incarnations: 0,
            led: Epoch::NONE,
        };
        let mut world = Self {
            random,
            options,
            nodes: (0..NODES).map(node).collect(),
            connections: BTreeMap::new(),
            next_connection: 1,
            leader: 0,
            now: 1_000,
            value: 0,
            faults: true,
            partial: false,
            reconciling: None,
            cascading: None,
            swarm: None,
            publish_one_in,
            careful: seed % 2 == 1,
            protected: BTreeMap::new(),
            truth: HashMap::new(),
            durable: HashMap::new(),
            trace: VecDeque::new(),
            trace_lines_max: crate::number("PLANARIA_TRACE").unwrap_or(120) as usize,
            coverage: Coverage::default(),
        };
        world.lead(0, 1);
        for node in 1..NODES {
            world.follow(node);
        }
        world
    }

    /// A world in which the last node is a partial copy, which never leads.
    pub(crate) fn with_partial(seed: u64, planted: Option<Planted>) -> Self {
        let mut world = Self::new(seed, planted);
        world.partial = true;
        world.follow(NODES - 1);
        world
    }

    pub(crate) fn is_partial(&self, node: usize) -> bool {
        self.partial && node == NODES - 1
    }

    /// A world in which copies are asked to compare ranges again and again.
    pub(crate) fn reconciling(seed: u64, planted: Option<Planted>) -> Self {
        let mut world = Self::new(seed, planted);
        world.reconciling = Some(Random::new(seed ^ 0x7265_636f));
        world
    }

    /// A world in which copies follow secondaries as well as the primary.
    pub(crate) fn cascading(seed: u64, planted: Option<Planted>) -> Self {
        let mut world = Self::new(seed, planted);
        world.cascading = Some(Random::new(seed ^ 0x6361_7363));
        world
    }

    /// A world that draws its faults from the seed, and in which the lead changes hands often.
    pub(crate) fn swarming(seed: u64, planted: Option<Planted>) -> Self {
        let mut world = Self::new(seed, planted);
        world.careful = true;
        world.swarm = Some(Swarm::draw(seed));
        world
    }

    /// The time that a node's clock tells: any, but it never goes back.
    pub(crate) fn time(&self, node: usize) -> Millis {
        Millis(self.now + self.swarm.as_ref().map_or(0, |swarm| swarm.ahead(node)))
    }

    /// Whether a comparison is asked for now, and whether a fault is let happen.
    fn reconciling_now(&mut self) -> (bool, bool) {
        let faults = self.faults;
        self.reconciling.as_mut().map_or((false, true), |own| (faults && own.one_in(60), own.one_in(8)))
    }

    pub(crate) fn note(&mut self, line: &str) {
        if self.trace.len() >= self.trace_lines_max {
            self.trace.pop_front();
        }
        let line = format!("{:>6} {line}", self.coverage.steps);
        let mut hasher = DefaultHasher::new();
        (self.coverage.digest, &line).hash(&mut hasher);
        self.coverage.digest = hasher.finish();
        self.trace.push_back(line);
    }

    /// Runs the workload under faults, then lets everything settle.
    pub(crate) fn run(&mut self) -> Checked {
        // A promotable set takes some time to come about.
        let steps = match (&self.reconciling, self.careful) {
            _ if self.swarm.is_some() => SWARM_STEPS,
            (Some(_), _) => RECONCILING_STEPS,
            (None, true) => 2 * STEPS,
            (None, false) => STEPS,
        };
        for _ in 0..steps {
            self.step()?;
        }
        self.faults = false;
        self.calm_swarm();
        self.heal();
        for round in 0..SETTLE_STEPS {
            if self.cascading.is_some() {
                // Under faults that commit may come late. Without it nobody who is fed learns what the epoch inherits.
                self.begin_in_full(self.leader);
            }
            self.step()?;
            if round % 10_000 == 9_999 {
                // What the last leader heard only now may have deposed it.
                self.lead_again_if_needed();
            }
            if round % 16 == 0 && self.settled() {
                self.coverage.simulated_ms = self.now;
                return Ok(());
            }
        }
        let states: Vec<String> = (0..NODES).map(|node| self.describe(node)).collect();
        Err(format!("R20: not equal after {SETTLE_STEPS} steps without faults: {states:#?}"))
    }

    pub(crate) fn describe(&self, node: usize) -> String {
        let store = &self.nodes[node].store;
        let head =
            format!("{node}: appended {} synced {} visible {}", store.appended, store.synced, store.visible);
        match &self.nodes[node].role {
            Role::Down => format!("{head} down"),
            Role::Primary { group, .. } => format!("{head} primary {}", group.epoch()),
            Role::Secondary { replica, .. } => format!("{head} {:?}", replica.status()),
        }
    }

    /// Somebody promised a newer epoch that nobody began, or two led under one number: an operator has the last leader begin
    /// one above it. An epoch of its number that was promised and never began the leader meets by itself, unless whoever promised it
    /// follows a copy.
    fn lead_again_if_needed(&mut self) {
        let newest = self.nodes.iter().map(|node| node.store.promised.term).max().unwrap_or(0);
        let follows = matches!(self.nodes[self.leader].role, Role::Secondary { .. });
        let led = self.nodes[self.leader].led;
        let conflict = self.nodes.iter().any(|node| {
            let own = node.store.history.epoch_of(node.store.appended);
            own == node.store.promised && own.order(&led) == EpochOrder::Conflict
        });
        let feeds = self.cascading.is_some();
        let outnumbered = self.nodes.iter().any(|node| match node.store.promised.order(&led) {
            EpochOrder::Newer => true,
            EpochOrder::Conflict => feeds,
            EpochOrder::Older | EpochOrder::Same => false,
        });
        if self.careful && (follows || conflict || outnumbered) {
            self.lead(self.leader, newest + 1);
        }
    }

    pub(crate) fn heal(&mut self) {
        if matches!(self.nodes[self.leader].role, Role::Down) {
            self.restart_leader(self.leader);
        }
        self.lead_again_if_needed();
        for node in 0..NODES {
            let stale_primary = node != self.leader && matches!(self.nodes[node].role, Role::Primary { .. });
            match self.nodes[node].role {
                Role::Down => self.follow(node),
                _ if stale_primary => self.follow(node),
                _ => {}
            }
        }
        let doomed: Vec<u64> = self.connections.iter().filter(|(_, c)| c.doomed).map(|(id, _)| *id).collect();
        for connection in doomed {
            self.cut(connection, true, true);
        }
    }

    pub(crate) fn settled(&self) -> bool {
        let leader = &self.nodes[self.leader].store;
        if leader.synced < leader.appended || leader.visible < leader.appended {
            return false;
        }
        let content = leader.content(leader.visible);
        self.nodes.iter().all(|node| {
            let online = match &node.role {
                Role::Secondary { replica, .. } => replica.status().state == State::Online,
                Role::Primary { .. } => true,
                Role::Down => false,
            };
            online
                && node.store.visible == leader.appended
                && node.store.content(node.store.visible) == content
        })
    }

    pub(crate) fn step(&mut self) -> Checked {
        self.coverage.steps += 1;
        if self.swarm.is_some() {
            self.swarm_step()?;
            return self.check_all();
        }
        let node = self.random.below(NODES as u64) as usize;
        let (compares, fails) = self.reconciling_now();
        if compares {
            self.ask(node, Way::Reconcile);
        }
        // Copies are promotable once they have caught up: a careful world leaves them time for it.
        let calm = self.careful && !self.random.one_in(4);
        match self.random.below(100) {
            95..98 if self.faults && calm && self.random.one_in(6) => self.promote_carefully(node)?,
            0..8 | 95..98 if self.faults && calm => {}
            0..8 if self.faults => self.write(),
            8..12 if !self.faults || self.random.one_in(self.publish_one_in) => self.publish(),
            12..18 => self.sync(node),
            18..44 => self.deliver(),
            44..52 => self.tick(node),
            52..66 => self.answer(node)?,
            66..95 => self.act(node)?,
            95..98 if self.faults && fails => self.fault(node)?,
            98 if self.faults => self.garbage(node),
            _ => self.drop_dead(),
        }
        self.check_all()
    }

    fn check_all(&mut self) -> Checked {
        for node in 0..NODES {
            self.feed(node);
            self.note_protected(node)?;
            self.check(node)?;
        }
        Ok(())
    }

    pub(crate) fn lead(&mut self, node: usize, term: u64) {
        let nonce = self.random.next();
        self.nodes[node].incarnations += 1;
        let incarnation = self.nodes[node].incarnations;
        self.lead_as(node, Epoch { term, incarnation, nonce });
    }

    pub(crate) fn lead_as(&mut self, node: usize, epoch: Epoch) {
        let now = self.time(node);
        let options = self.options.clone();
        let state = &mut self.nodes[node];
        state.led = epoch;
        let store = &mut state.store;
        store.promised = epoch;
        store.history = store.history.inherit(store.appended);
        store.synced = store.appended;
        store.visible = store.appended;
        store.collecting = None;
        store.replacing = None;
        let identity = primary::Identity { database: DatabaseId(7), group: GroupId(1), instance: id(node) };
        let mut group = Group::new(identity, options, epoch, store.history.clone(), store.appended);
        for (instance, durable) in &store.registered {
            group.restore(*instance, instance.to_string(), *durable, true, now);
        }
        let sets = store.sets();
        if sets.now.contains(&id(node)) {
            group.restore_promotable(sets);
        }
        state.answers.clear();
        state.role = Role::Primary { group, sessions: BTreeMap::new() };
        self.leader = node;
        self.drop_connections_of(node);
        self.note(&format!("node {node} leads as {epoch} from {}", self.nodes[node].store.appended));
    }

    pub(crate) fn restart_leader(&mut self, node: usize) {
        // One that promised a newer epoch before it went down is deposed, and knows it.
        if self.careful && self.nodes[node].store.promised != self.nodes[node].led {
            return self.follow(node);
        }
        let term = self.nodes[node].store.promised.term;
        self.lead(node, term);
    }

    pub(crate) fn follow(&mut self, node: usize) {
        self.drop_connections_of(node);
        let now = self.time(node);
        let seed = self.random.next();
        let options = self.options.clone();
        let state = &mut self.nodes[node];
        state.answers.clear();
        state.store.pins.clear();
        // A log may have kept more over the death of its primary than that knew to be durable.
        note_durable(&mut self.durable, state);
        let identity = secondary::Identity {
            database: DatabaseId(7),
            group: GroupId(1),
            instance: id(node),
            name: format!("node {node}"),
        };
        let kept = state.store.kept_delta();
        self.coverage.inherited += u64::from(kept.is_some());
        let replica = Replica::new(identity, options, state.store.promised, state.store.local(), seed, now)
            .going_on_from(kept);
        let replica = if self.is_partial(node) {
            let portion = Portion::new([("t".to_owned(), KeyRange::ALL)]).unwrap_or_default();
            // Now and then it held another one before.
            replica.holding(portion, !self.random.one_in(8))
        } else {
            replica
        };
        let own = primary::Identity { database: DatabaseId(7), group: GroupId(1), instance: id(node) };
        let group = Group::feeding(own, self.options.clone());
        self.nodes[node].role =
            Role::Secondary { replica, connection: None, group, sessions: BTreeMap::new() };
        self.note(&format!("node {node} follows"));
    }

    pub(crate) fn drop_connections_of(&mut self, node: usize) {
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        for connection in ids {
            let ends = &self.connections[&connection];
            let (from, to) = (ends.secondary == node, ends.primary == node);
            if let Some(connection) = self.connections.get_mut(&connection) {
                connection.up_open &= !from;
                connection.down_open &= !to;
            }
        }
    }
}

/// Notes what is durable of the epoch that a node led last, if it has promised no newer one: what it makes durable of that counts also
/// once it follows, and feeds others.
pub(crate) fn note_durable(durable: &mut HashMap<Epoch, Uid>, node: &Node) {
    if node.led == node.store.promised {
        let known = durable.entry(node.led).or_default();
        *known = (*known).max(node.store.synced);
    }
}
