//! Nodes, network and faults: the driver of the state machines, one small step at a time.

use std::collections::{BTreeMap, HashMap, VecDeque};

use planaria_replication::ack::Level;
use planaria_replication::primary::{self, Group, GroupAction, Session, SessionAction, SessionId};
use planaria_replication::secondary::{self, Action, Replica, State};
use planaria_replication::{Lane, Message, Millis, Options, Planted, RewindItem, Way};
use planaria_types::{
    DatabaseId, Epoch, EpochOrder, GroupId, HistoryEntry, InstanceId, Position, TableId, Uid,
};

use crate::random::Random;
use crate::store::{Content, KEYS, Op, Store};

const NODES: usize = 3;
const STEPS: u64 = 900;
const SETTLE_STEPS: u64 = 60_000;
pub(crate) type Checked = Result<(), String>;

/// How often things happened, to show that a run reaches what it is to test.
#[derive(Default, Clone, Debug)]
pub(crate) struct Coverage {
    pub(crate) steps: u64,
    pub(crate) simulated_ms: u64,
    pub(crate) commits: u64,
    pub(crate) crashes: u64,
    pub(crate) promotions: u64,
    pub(crate) tails: u64,
    pub(crate) deltas: u64,
    pub(crate) hops: u64,
    pub(crate) bulks: u64,
    pub(crate) rewinds: u64,
    pub(crate) clips: u64,
    pub(crate) quarantines: u64,
    pub(crate) refused: u64,
    pub(crate) again: u64,
    pub(crate) lost: u64,
}

#[expect(clippy::large_enum_variant, reason = "three nodes")]
enum Role {
    Down,
    Primary {
        group: Group,
        sessions: BTreeMap<u64, Session>,
    },
    Secondary {
        replica: Replica,
        connection: Option<u64>,
    },
}

/// What the engine of a node has yet to answer.
enum Answer {
    Appended(Uid),
    Hash(Uid),
    Stored(u64),
    Items {
        round: u64,
        above: Uid,
        cursor: Option<(TableId, bytes::Bytes)>,
        bytes_max: u64,
    },
    Installed,
    Bulk,
    Promotable,
    Read {
        session: u64,
        read: SessionAction,
    },
}

struct Node {
    store: Store,
    role: Role,
    answers: VecDeque<Answer>,
    incarnations: u64,
}

#[derive(Default)]
struct Connection {
    secondary: usize,
    primary: usize,
    epoch: Epoch,
    up: VecDeque<Message>,
    control: VecDeque<Message>,
    bulk: VecDeque<Message>,
    /// The ends that still believe in the connection.
    up_open: bool,
    down_open: bool,
    /// Something was lost on it: it will be cut.
    doomed: bool,
}

pub(crate) struct World {
    random: Random,
    options: Options,
    nodes: Vec<Node>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    leader: usize,
    now: u64,
    value: u64,
    faults: bool,
    /// The content that each position names.
    truth: HashMap<(Epoch, Uid), Content>,
    /// The highest UID that was durable on the primary of each epoch.
    durable: HashMap<Epoch, Uid>,
    pub(crate) trace: VecDeque<String>,
    pub(crate) coverage: Coverage,
}

fn id(node: usize) -> InstanceId {
    InstanceId(node as u128 + 1)
}

impl World {
    pub(crate) fn new(seed: u64, planted: Option<Planted>) -> Self {
        let mut random = Random::new(seed);
        let options = Options {
            live_window_bytes: 150 + random.below(600),
            live_batch_bytes: 100 + random.below(300),
            chunk_bytes: 41 + random.below(120),
            chunks_in_flight: 1 + random.below(3) as u32,
            held_bytes_max: 100 + random.below(900),
            rewind_request_bytes: 17 + random.below(60),
            bulk_bytes_min: if random.one_in(3) { 200 } else { u64::MAX },
            heartbeat: Millis(100),
            session_timeout: Millis(600),
            leave_after: Millis(300 + random.below(2_000)),
            planted,
        };
        let node = |_| Node {
            store: Store::default(),
            role: Role::Down,
            answers: VecDeque::new(),
            incarnations: 0,
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
            truth: HashMap::new(),
            durable: HashMap::new(),
            trace: VecDeque::new(),
            coverage: Coverage::default(),
        };
        world.lead(0, 1);
        for node in 1..NODES {
            world.follow(node);
        }
        world
    }

    fn note(&mut self, line: String) {
        if self.trace.len() >= 120 {
            self.trace.pop_front();
        }
        self.trace.push_back(format!("{:>6} {line}", self.coverage.steps));
    }

    /// Runs the workload under faults, then lets everything settle.
    pub(crate) fn run(&mut self) -> Checked {
        for _ in 0..STEPS {
            self.step()?;
        }
        self.faults = false;
        self.heal();
        for round in 0..SETTLE_STEPS {
            self.step()?;
            if round % 16 == 0 && self.settled() {
                self.coverage.simulated_ms = self.now;
                return Ok(());
            }
        }
        let states: Vec<String> = (0..NODES).map(|node| self.describe(node)).collect();
        Err(format!(
            "R20: not equal after {SETTLE_STEPS} steps without faults: {states:#?}"
        ))
    }

    fn describe(&self, node: usize) -> String {
        let store = &self.nodes[node].store;
        let head = format!(
            "{node}: appended {} synced {} visible {}",
            store.appended, store.synced, store.visible
        );
        match &self.nodes[node].role {
            Role::Down => format!("{head} down"),
            Role::Primary { group, .. } => format!("{head} primary {}", group.epoch()),
            Role::Secondary { replica, .. } => format!("{head} {:?}", replica.status()),
        }
    }

    fn heal(&mut self) {
        for node in 0..NODES {
            let stale_primary = node != self.leader && matches!(self.nodes[node].role, Role::Primary { .. });
            match self.nodes[node].role {
                Role::Down if node == self.leader => self.restart_leader(node),
                Role::Down => self.follow(node),
                _ if stale_primary => self.follow(node),
                _ => {}
            }
        }
        let doomed: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, c)| c.doomed)
            .map(|(id, _)| *id)
            .collect();
        for connection in doomed {
            self.cut(connection, true, true);
        }
    }

    fn settled(&self) -> bool {
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

    fn step(&mut self) -> Checked {
        self.coverage.steps += 1;
        let node = self.random.below(NODES as u64) as usize;
        match self.random.below(100) {
            0..8 if self.faults => self.write(),
            8..12 => self.publish(),
            12..18 => self.sync(node),
            18..44 => self.deliver()?,
            44..52 => self.tick(node),
            52..66 => self.answer(node)?,
            66..95 => self.act(node)?,
            95..98 if self.faults => self.fault(node)?,
            98 if self.faults => self.garbage(node),
            _ => self.drop_dead(),
        }
        for node in 0..NODES {
            self.check(node)?;
        }
        Ok(())
    }

    // ---- roles -----------------------------------------------------------------------------------------------

    fn lead(&mut self, node: usize, term: u64) {
        let nonce = self.random.next();
        let now = Millis(self.now);
        let options = self.options.clone();
        let state = &mut self.nodes[node];
        state.incarnations += 1;
        let epoch = Epoch {
            term,
            incarnation: state.incarnations,
            nonce,
        };
        let store = &mut state.store;
        store.promised = epoch;
        store.history.truncate(store.appended);
        store.synced = store.appended;
        store.visible = store.appended;
        store.collecting = None;
        let identity = primary::Identity {
            database: DatabaseId(7),
            group: GroupId(1),
            instance: id(node),
        };
        let mut group = Group::new(identity, options, epoch, store.history.clone(), store.appended);
        for (instance, durable) in &store.registered {
            group.restore(*instance, instance.to_string(), *durable, true, now);
        }
        group.restore_promotable(store.promotable.clone());
        state.answers.clear();
        state.role = Role::Primary {
            group,
            sessions: BTreeMap::new(),
        };
        self.leader = node;
        self.drop_connections_of(node);
        self.note(format!(
            "node {node} leads as {epoch} from {}",
            self.nodes[node].store.appended
        ));
    }

    fn restart_leader(&mut self, node: usize) {
        let term = self.nodes[node].store.promised.term;
        self.lead(node, term);
    }

    fn follow(&mut self, node: usize) {
        self.drop_connections_of(node);
        let now = Millis(self.now);
        let seed = self.random.next();
        let options = self.options.clone();
        let state = &mut self.nodes[node];
        state.answers.clear();
        state.store.pins.clear();
        let identity = secondary::Identity {
            database: DatabaseId(7),
            group: GroupId(1),
            instance: id(node),
            name: format!("node {node}"),
        };
        let replica = Replica::new(
            identity,
            options,
            state.store.promised,
            state.store.local(),
            seed,
            now,
        );
        state.role = Role::Secondary {
            replica,
            connection: None,
        };
        self.note(format!("node {node} follows"));
    }

    fn drop_connections_of(&mut self, node: usize) {
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

    // ---- the primary's work ----------------------------------------------------------------------------------

    fn primaries(&self) -> Vec<usize> {
        (0..NODES)
            .filter(|node| matches!(self.nodes[*node].role, Role::Primary { .. }))
            .collect()
    }

    fn write(&mut self) {
        for node in self.primaries() {
            let ops: Vec<Op> = (0..1 + self.random.below(3))
                .map(|_| {
                    self.value += 1;
                    let key = self.random.below(KEYS) as u8;
                    (
                        key,
                        if self.random.one_in(3) {
                            None
                        } else {
                            Some(self.value)
                        },
                    )
                })
                .collect();
            let step = 1 + self.random.below(3);
            let Node {
                store,
                role: Role::Primary { group, .. },
                ..
            } = &mut self.nodes[node]
            else {
                continue;
            };
            if group.deposed().is_some() {
                continue;
            }
            let epoch = group.epoch();
            if store.history.current() != epoch {
                let entry = HistoryEntry {
                    epoch,
                    inherited: store.appended,
                    hash: store.end_hash(),
                };
                store.history.push(entry).expect("a new epoch is newer");
                group.handle_history(store.history.clone());
            }
            let uid = Uid::new(store.appended.get() + step);
            store.write(uid, &ops);
            group.handle_appended(uid);
            self.truth.insert((epoch, uid), store.content(uid));
            self.coverage.commits += 1;
            self.note(format!("node {node} commits {uid} {ops:?}"));
        }
    }

    fn publish(&mut self) {
        for node in self.primaries() {
            let Node { store, role, .. } = &mut self.nodes[node];
            store.visible = store.appended;
            if let Role::Primary { group, .. } = role {
                group.handle_closed(store.appended);
            }
        }
    }

    fn sync(&mut self, node: usize) {
        let now = Millis(self.now);
        let Node { store, role, .. } = &mut self.nodes[node];
        store.synced = store.appended;
        match role {
            Role::Primary { group, .. } => {
                self.durable.insert(group.epoch(), store.synced);
                group.handle_durable(store.synced);
            }
            Role::Secondary { replica, .. } => replica.handle_durable(store.synced, now),
            Role::Down => {}
        }
    }

    fn garbage(&mut self, node: usize) {
        let over_caps = self.random.one_in(4);
        let trim = self.random.one_in(2);
        let near = self.random.below(8);
        let Node { store, role, .. } = &mut self.nodes[node];
        let stable = match role {
            Role::Primary { group, .. } => group.stable(),
            Role::Secondary { replica, .. } => replica.status().stable,
            Role::Down => return,
        };
        let versions = stable.min(store.visible).min(store.synced);
        let positions = store.registered.values().copied().fold(versions, Uid::min);
        let marks = if over_caps { versions } else { positions };
        store.collect_garbage(versions, marks);
        if trim {
            store.trim_log(Uid::new(store.synced.get().saturating_sub(near)));
        }
        if let Role::Secondary { replica, .. } = role {
            replica.handle_floors(store.version_floor, store.mark_floor);
        }
        self.note(format!(
            "node {node} collects garbage: versions {versions}, marks {marks}, log {trim}"
        ));
    }

    // ---- faults ----------------------------------------------------------------------------------------------

    fn fault(&mut self, node: usize) -> Checked {
        match self.random.below(20) {
            0..5 => {
                let open: Vec<u64> = self.connections.keys().copied().collect();
                if !open.is_empty() {
                    let connection = open[self.random.below(open.len() as u64) as usize];
                    // One end may learn of it later: then two sessions of one secondary live side by side.
                    let (up, down) =
                        [(true, true), (true, false), (false, true)][self.random.below(3) as usize];
                    self.cut(connection, up, down);
                }
            }
            5..8 => self.crash(node),
            8..13 => {
                let down: Vec<usize> = (0..NODES)
                    .filter(|node| matches!(self.nodes[*node].role, Role::Down))
                    .collect();
                for node in down {
                    if node == self.leader {
                        self.restart_leader(node)
                    } else {
                        self.follow(node)
                    }
                }
            }
            13..16 => self.promote(node),
            16 => {
                let old: Vec<usize> = self
                    .primaries()
                    .into_iter()
                    .filter(|node| *node != self.leader)
                    .collect();
                for node in old {
                    self.follow(node);
                }
            }
            17 if matches!(self.nodes[node].role, Role::Secondary { .. }) => {
                // A driver that restarts its replica without a crash of the engine.
                self.nodes[node].store.collecting = None;
                self.follow(node);
            }
            _ => {}
        }
        Ok(())
    }

    fn crash(&mut self, node: usize) {
        self.coverage.crashes += 1;
        self.drop_connections_of(node);
        let state = &mut self.nodes[node];
        state.store.crash(&mut self.random);
        state.role = Role::Down;
        state.answers.clear();
        let end = self.nodes[node].store.appended;
        self.note(format!("node {node} crashes and keeps its log up to {end}"));
    }

    fn promote(&mut self, node: usize) {
        if node == self.leader || !matches!(self.nodes[node].role, Role::Secondary { .. }) {
            return;
        }
        // An empty copy begins a history that is related to none: no operator promotes it.
        if self.nodes[node].store.appended == Uid::ZERO {
            return;
        }
        self.coverage.promotions += 1;
        let term = self
            .nodes
            .iter()
            .map(|node| node.store.promised.term)
            .max()
            .unwrap_or(0)
            + 1;
        self.lead(node, term);
    }

    // ---- network ---------------------------------------------------------------------------------------------

    fn cut(&mut self, connection: u64, up: bool, down: bool) {
        let now = Millis(self.now);
        let Some(ends) = self.connections.get_mut(&connection) else {
            return;
        };
        let (tell_secondary, tell_primary) = (up && ends.up_open, down && ends.down_open);
        let (secondary, primary) = (ends.secondary, ends.primary);
        if up {
            ends.up_open = false;
        }
        if down {
            ends.down_open = false;
        }
        if tell_secondary
            && let Role::Secondary {
                replica,
                connection: current,
            } = &mut self.nodes[secondary].role
            && *current == Some(connection)
        {
            *current = None;
            replica.handle_disconnected("cut", now);
        }
        if tell_primary && let Role::Primary { group, sessions } = &mut self.nodes[primary].role {
            if let Some(mut session) = sessions.remove(&connection) {
                session.handle_disconnected(group, now);
            }
            self.nodes[primary].store.pins.remove(&connection);
        }
        self.note(format!(
            "connection {connection} is cut (secondary {up}, primary {down})"
        ));
    }

    /// Ends that no longer exist are noticed by the others, at some time.
    fn drop_dead(&mut self) {
        let dead: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, ends)| {
                let silent = ends.up.is_empty() && ends.control.is_empty() && ends.bulk.is_empty();
                !(ends.up_open && ends.down_open) && (silent || !ends.up_open && !ends.down_open)
            })
            .map(|(id, _)| *id)
            .collect();
        if dead.is_empty() {
            return;
        }
        let connection = dead[self.random.below(dead.len() as u64) as usize];
        self.cut(connection, true, true);
        self.connections.remove(&connection);
    }

    fn deliver(&mut self) -> Checked {
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        if ids.is_empty() {
            return Ok(());
        }
        let connection = ids[self.random.below(ids.len() as u64) as usize];
        let lane = self.random.below(3);
        let lose = self.faults && self.random.one_in(25);
        let Some(ends) = self.connections.get_mut(&connection) else {
            return Ok(());
        };
        let queue = [&mut ends.up, &mut ends.control, &mut ends.bulk]
            .into_iter()
            .nth(lane as usize);
        let Some(message) = queue.and_then(VecDeque::pop_front) else {
            return Ok(());
        };
        let carries = match &message {
            Message::Live(live) => !live.commits.is_empty(),
            other => matches!(other, Message::DeltaChunk(_)),
        };
        if lose && carries {
            ends.doomed = true;
            self.coverage.lost += 1;
            self.note(format!("connection {connection} loses {message:?}"));
            return Ok(());
        }
        let (secondary, primary) = (ends.secondary, ends.primary);
        let (up_open, down_open) = (ends.up_open, ends.down_open);
        let now = Millis(self.now);
        self.note(format!("connection {connection} delivers {message:?}"));
        match (&message, lane) {
            (Message::Refused(_), _) => self.coverage.refused += 1,
            (Message::Again(_), _) => self.coverage.again += 1,
            (Message::Welcome(welcome), _) => match welcome.way {
                Way::Tail => self.coverage.tails += 1,
                Way::Delta => self.coverage.deltas += 1,
                Way::PinnedDelta => self.coverage.hops += 1,
                Way::Bulk => self.coverage.bulks += 1,
            },
            _ => {}
        }
        if lane == 0 {
            if let Role::Primary { group, sessions } = &mut self.nodes[primary].role
                && let Some(session) = sessions.get_mut(&connection)
                && down_open
            {
                session.handle_message(group, message, now);
            }
        } else if let Role::Secondary {
            replica,
            connection: current,
        } = &mut self.nodes[secondary].role
            && *current == Some(connection)
            && up_open
        {
            replica.handle_message(message, now);
        }
        Ok(())
    }

    fn tick(&mut self, node: usize) {
        self.now += self.random.below(40);
        let now = Millis(self.now);
        match &mut self.nodes[node].role {
            Role::Primary { group, sessions } => {
                group.handle_tick(now);
                for session in sessions.values_mut() {
                    session.handle_tick(group, now);
                }
            }
            Role::Secondary { replica, .. } => replica.handle_tick(now),
            Role::Down => {}
        }
    }

    fn connect(&mut self, node: usize) {
        let stray = self.faults && self.random.one_in(4);
        let target = if stray {
            self.random.below(NODES as u64) as usize
        } else {
            self.leader
        };
        let now = Millis(self.now);
        let (number, options) = (self.next_connection, self.options.clone());
        let Role::Primary { group, sessions } = &mut self.nodes[target].role else {
            if let Role::Secondary { replica, .. } = &mut self.nodes[node].role {
                replica.handle_disconnected("nobody leads there", now);
            }
            return;
        };
        self.next_connection += 1;
        let epoch = group.epoch();
        sessions.insert(number, Session::new(SessionId(number), options, now));
        let ends = Connection {
            secondary: node,
            primary: target,
            epoch,
            up_open: true,
            down_open: true,
            ..Connection::default()
        };
        self.connections.insert(number, ends);
        if let Role::Secondary { replica, connection } = &mut self.nodes[node].role {
            *connection = Some(number);
            replica.handle_connected(now);
        }
        self.note(format!("node {node} connects to {target} as {number}"));
    }

    // ---- the drivers -----------------------------------------------------------------------------------------

    fn act(&mut self, node: usize) -> Checked {
        match &mut self.nodes[node].role {
            Role::Down => Ok(()),
            Role::Secondary { replica, .. } => match replica.poll_action() {
                Some(action) => self.act_secondary(node, action),
                None => Ok(()),
            },
            Role::Primary { group, sessions } => {
                if let Some(action) = group.poll_action() {
                    self.act_group(node, action);
                    return Ok(());
                }
                let ids: Vec<u64> = sessions.keys().copied().collect();
                if ids.is_empty() {
                    return Ok(());
                }
                let connection = ids[self.random.below(ids.len() as u64) as usize];
                let Some(session) = sessions.get_mut(&connection) else {
                    return Ok(());
                };
                if let Some(action) = session.poll_action(group) {
                    self.act_session(node, connection, action);
                }
                Ok(())
            }
        }
    }

    fn act_group(&mut self, node: usize, action: GroupAction) {
        self.note(format!("node {node} does {action:?}"));
        match action {
            GroupAction::PersistPromotable(set) => {
                self.nodes[node].store.promotable = set;
                self.nodes[node].answers.push_back(Answer::Promotable);
            }
            GroupAction::Deposed(_) => self.follow(node),
        }
    }

    fn act_session(&mut self, node: usize, connection: u64, action: SessionAction) {
        let state = &mut self.nodes[node];
        match action {
            SessionAction::Send(message) => {
                if let Some(ends) = self.connections.get_mut(&connection) {
                    match message.lane() {
                        Lane::Control => ends.control.push_back(message),
                        Lane::Bulk => ends.bulk.push_back(message),
                    }
                }
            }
            SessionAction::Close => {
                if let Role::Primary { sessions, .. } = &mut state.role {
                    sessions.remove(&connection);
                }
                state.store.pins.remove(&connection);
                if let Some(ends) = self.connections.get_mut(&connection) {
                    ends.down_open = false;
                }
            }
            SessionAction::Register {
                instance, durable, ..
            } => {
                state.store.registered.insert(instance, durable);
            }
            SessionAction::ReleasePin => {
                state.store.pins.remove(&connection);
            }
            read => state.answers.push_back(Answer::Read {
                session: connection,
                read,
            }),
        }
    }

    fn act_secondary(&mut self, node: usize, action: Action) -> Checked {
        self.note(format!("node {node} does {action:?}"));
        let epoch = self.epoch_of_session(node);
        let now = Millis(self.now);
        let state = &mut self.nodes[node];
        let store = &mut state.store;
        match action {
            Action::Connect => self.connect(node),
            Action::Disconnect => {
                if let Role::Secondary { connection, .. } = &mut state.role
                    && let Some(number) = connection.take()
                    && let Some(ends) = self.connections.get_mut(&number)
                {
                    ends.up_open = false;
                }
            }
            Action::Send(message) => return self.send(node, message),
            Action::Sync => {
                store.synced = store.appended;
                let synced = store.synced;
                if let Role::Secondary { replica, .. } = &mut state.role {
                    replica.handle_durable(synced, now);
                }
            }
            Action::PersistEpoch(epoch) => {
                if epoch.order(&store.promised) != EpochOrder::Newer {
                    return Err(format!("R9: promise {} falls to {epoch}", store.promised));
                }
                store.promised = epoch;
            }
            Action::PersistHistory(history) => store.history = history,
            Action::ReadHash(uid) => state.answers.push_back(Answer::Hash(uid)),
            Action::Quarantine { above, through } => {
                self.coverage.quarantines += 1;
                store.quarantined.push((above, through));
            }
            Action::TakeBack(to) => {
                self.coverage.clips += 1;
                store.take_back(to)?;
            }
            Action::Append(commits) => {
                if epoch.is_some_and(|epoch| epoch != store.promised) {
                    return Err(format!(
                        "R9: commits of {epoch:?} under the promise {}",
                        store.promised
                    ));
                }
                for commit in commits {
                    state.answers.push_back(Answer::Appended(commit.uid));
                    store.append(commit)?;
                }
            }
            Action::Show(cut) => {
                let durable = self.durable.get(&store.promised).copied().unwrap_or_default();
                let inherited = store
                    .history
                    .entries()
                    .last()
                    .map_or(Uid::ZERO, |entry| entry.inherited);
                if cut > store.synced
                    || (cut > durable && cut > inherited && epoch.is_some() && durable > Uid::ZERO)
                {
                    return Err(format!(
                        "R4: {cut} shown, but durable at the primary is only {durable}"
                    ));
                }
                if cut < store.visible {
                    return Err(format!("R4: the cut falls from {} to {cut}", store.visible));
                }
                store.visible = cut;
            }
            Action::BeginRefresh { round, rewind, .. } => {
                self.coverage.rewinds += u64::from(rewind);
                store.begin(round);
            }
            Action::StoreDelta { round, records } => {
                store.collect(round, records, false)?;
                state.answers.push_back(Answer::Stored(round));
            }
            Action::StoreRewind { round, records } => {
                store.collect(round, records, true)?;
                state.answers.push_back(Answer::Stored(round));
            }
            Action::ReadRewindItems {
                round,
                above,
                cursor,
                bytes_max,
            } => {
                state.answers.push_back(Answer::Items {
                    round,
                    above,
                    cursor,
                    bytes_max,
                });
            }
            Action::AbandonRefresh => store.collecting = None,
            Action::Install(install) => {
                store.install(&install)?;
                state.answers.push_back(Answer::Installed);
            }
            Action::FetchBulk { .. } => state.answers.push_back(Answer::Bulk),
            Action::AbandonBulk => state.answers.retain(|answer| !matches!(answer, Answer::Bulk)),
        }
        Ok(())
    }

    fn epoch_of_session(&self, node: usize) -> Option<Epoch> {
        let Role::Secondary {
            connection: Some(number),
            ..
        } = &self.nodes[node].role
        else {
            return None;
        };
        self.connections.get(number).map(|ends| ends.epoch)
    }

    fn send(&mut self, node: usize, message: Message) -> Checked {
        let Role::Secondary {
            connection: Some(number),
            replica,
        } = &self.nodes[node].role
        else {
            return Ok(());
        };
        let Some(ends) = self.connections.get_mut(number) else {
            return Ok(());
        };
        let store = &self.nodes[node].store;
        if let Message::Ack(ack) = &message {
            if ack.durable > store.synced {
                return Err(format!(
                    "R6: acknowledged {} with {} durable",
                    ack.durable, store.synced
                ));
            }
            if ack.epoch != store.promised || ends.epoch != store.promised {
                return Err(format!(
                    "R9: acknowledged under {} with the promise {}",
                    ack.epoch, store.promised
                ));
            }
            let _ = replica;
        }
        ends.up.push_back(message);
        Ok(())
    }

    fn answer(&mut self, node: usize) -> Checked {
        let Some(answer) = self.nodes[node].answers.pop_front() else {
            return Ok(());
        };
        let now = Millis(self.now);
        match answer {
            Answer::Read { session, read } => self.answer_read(node, session, read),
            Answer::Promotable => {
                if let Role::Primary { group, .. } = &mut self.nodes[node].role {
                    group.handle_promotable();
                }
            }
            Answer::Bulk => return self.answer_bulk(node),
            other => {
                let Node {
                    store,
                    role: Role::Secondary { replica, .. },
                    ..
                } = &mut self.nodes[node]
                else {
                    return Ok(());
                };
                match other {
                    Answer::Appended(uid) => replica.handle_appended(uid, now),
                    Answer::Hash(uid) => replica.handle_hash(uid, store.hash_at(uid), now),
                    Answer::Stored(round) => replica.handle_stored(round, now),
                    Answer::Items {
                        round,
                        above,
                        cursor,
                        bytes_max,
                    } => {
                        let (items, next) = store.rewind_items(above, &cursor, bytes_max);
                        replica.handle_rewind_items(round, items, next, now);
                    }
                    _ => replica.handle_installed(store.local(), now),
                }
            }
        }
        Ok(())
    }

    fn answer_bulk(&mut self, node: usize) -> Checked {
        let now = Millis(self.now);
        let source = match &self.nodes[node].role {
            Role::Secondary {
                connection: Some(number),
                ..
            } => self.connections.get(number).map(|ends| ends.primary),
            _ => None,
        };
        let promised = self.nodes[node].store.promised;
        let source = source.filter(|source| {
            matches!(&self.nodes[*source].role, Role::Primary { group, .. } if group.epoch() == promised)
        });
        let copy = source.map(|source| self.nodes[source].store.clone());
        let Node {
            store,
            role: Role::Secondary { replica, .. },
            ..
        } = &mut self.nodes[node]
        else {
            return Ok(());
        };
        match copy {
            Some(copy) => {
                store.install_bulk(&copy)?;
                replica.handle_bulk_installed(store.local(), now);
            }
            None => replica.handle_failure(store.local(), "the source is gone", now),
        }
        Ok(())
    }

    fn answer_read(&mut self, node: usize, number: u64, read: SessionAction) {
        let now = Millis(self.now);
        let expire = self.faults && self.random.one_in(60);
        let Node {
            store,
            role: Role::Primary { group, sessions },
            answers,
            ..
        } = &mut self.nodes[node]
        else {
            return;
        };
        let Some(session) = sessions.get_mut(&number) else {
            return;
        };
        match read {
            SessionAction::Survey { round, since } => {
                let survey = store.survey(round, since);
                session.handle_survey(group, &survey, now);
            }
            SessionAction::ReadCommits {
                round,
                after,
                bytes_max,
            } => {
                session.handle_commits(group, round, store.commits(after, bytes_max), now);
            }
            SessionAction::ReadDelta { at_least, .. } | SessionAction::ReadStates { at_least, .. }
                if store.visible < at_least =>
            {
                answers.push_back(Answer::Read {
                    session: number,
                    read,
                });
            }
            SessionAction::ReadDelta {
                round,
                since,
                cursor,
                pinned,
                bytes_max,
                ..
            } => {
                let read = if pinned && expire {
                    primary::DeltaRead::PinExpired
                } else {
                    store.delta(number, since, &cursor, pinned, bytes_max)
                };
                session.handle_delta(group, round, read, now);
            }
            SessionAction::ReadStates {
                round,
                items,
                pinned,
                bytes_max,
                ..
            } => {
                let read = store.states(number, &items as &[RewindItem], pinned, bytes_max);
                session.handle_states(group, round, read, now);
            }
            _ => {}
        }
    }

    // ---- invariants ------------------------------------------------------------------------------------------

    fn position(&self, node: usize, uid: Uid) -> Position {
        self.nodes[node].store.history.position_of(uid)
    }

    fn check(&self, node: usize) -> Checked {
        let store = &self.nodes[node].store;
        if store.visible > Uid::ZERO {
            let position = self.position(node, store.visible);
            let shown = store.content(store.visible);
            let expected = self.truth.get(&(position.epoch, position.uid));
            if expected != Some(&shown) {
                let what = format!("node {node} at {position} shows {shown:?}, which is {expected:?}");
                return Err(format!("R1/R4/R15/R16/R21: {what}"));
            }
        }
        match &self.nodes[node].role {
            Role::Down => Ok(()),
            Role::Secondary { replica, .. } => self.check_secondary(node, replica),
            Role::Primary { group, .. } => self.check_levels(node, group),
        }
    }

    fn check_secondary(&self, node: usize, replica: &Replica) -> Checked {
        let status = replica.status();
        let leader = &self.nodes[self.leader];
        let Role::Primary { group, .. } = &leader.role else {
            return Ok(());
        };
        if status.state == State::Online && group.epoch() == status.epoch {
            let visible = self.nodes[node].store.visible;
            let (ours, theirs) = (self.position(node, visible), self.position(self.leader, visible));
            if ours != theirs || visible > leader.store.synced {
                return Err(format!(
                    "R5: node {node} is online at {ours}, its primary has {theirs}"
                ));
            }
        }
        Ok(())
    }

    /// What a level acknowledged is durable on as many promotable copies, under the same history.
    fn check_levels(&self, node: usize, group: &Group) -> Checked {
        let copies = group.promotable().len() + 1;
        for level in [Level::One, Level::Quorum, Level::All] {
            let Some(uid) = group.acknowledged(level) else {
                continue;
            };
            if uid == Uid::ZERO || self.position(node, uid).epoch != group.epoch() || node != self.leader {
                continue;
            }
            let holds = |other: &usize| {
                let store = &self.nodes[*other].store;
                (*other == node || group.promotable().contains(&id(*other)))
                    && store.synced >= uid
                    && self.position(*other, uid) == self.position(node, uid)
            };
            let holders = (0..NODES).filter(holds).count();
            if holders < level.copies_of(copies) {
                return Err(format!(
                    "R7: {uid} is acknowledged at {level}, but {holders} of {copies} hold it"
                ));
            }
        }
        Ok(())
    }
}
