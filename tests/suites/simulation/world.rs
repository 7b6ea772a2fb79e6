//! Nodes, links and time; one small step at a time.

use std::collections::BTreeMap;
use std::fmt;

use planaria_engine::os::Os;
use planaria_engine::{Database, Options, ReadMode, Task};
use planaria_net::replica::executor;
use planaria_replication::ack::Level;
use planaria_replication::secondary::State;
use planaria_replication::{Millis, Options as Protocol};
use planaria_tests::cluster::Random;
use planaria_types::{DatabaseId, Epoch, InstanceId, Uid};

use crate::leading::{Leading, Waiting};
use crate::network::Connection;
use crate::node::{DIR, Node, Process};
use crate::oracle::Oracle;
use crate::planted::Fault;
use crate::trace::{Coverage, Moves, Trace};
use crate::workload::{Write, create_tables};

pub(crate) const NODES: usize = 3;
/// Steps under faults.
const STEPS: u64 = 3_000;
/// Steps under faults where the lead changes hands, each time once copies are promotable.
const MOVING_STEPS: u64 = 6_000;
/// Steps within which everything must be equal once faults have ended.
const SETTLE_STEPS: u64 = 30_000;

pub(crate) type Checked = Result<(), String>;

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) protocol: Protocol,
    pub(crate) planted: Option<Fault>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) connections: BTreeMap<u64, Connection>,
    pub(crate) next_connection: u64,
    /// Secondaries that reach nobody.
    pub(crate) parted: [bool; NODES],
    pub(crate) database: DatabaseId,
    /// The node that was made the primary last: the first one, where the lead changes never.
    pub(crate) leader: usize,
    /// The newest epoch that anybody has led under.
    pub(crate) newest_led: Epoch,
    /// The lead changes hands here.
    pub(crate) moves: bool,
    /// Batches whose writers were not told that they are done: they may come again, under the same token.
    pub(crate) unsettled: Vec<Write>,
    /// What is preserved for secondaries has caps that bite.
    pub(crate) capped: bool,
    /// What each copy has told a primary to be durable there; a registration may say less.
    pub(crate) told: BTreeMap<InstanceId, Uid>,
    /// How rarely a commit waits for the disk, and how rarely the background syncs.
    pub(crate) synced_one_in: u64,
    now: u64,
    pub(crate) numbers: u64,
    pub(crate) faults: bool,
    pub(crate) oracle: Oracle,
    pub(crate) trace: Trace,
    pub(crate) coverage: Coverage,
    pub(crate) moved: Moves,
    /// What was found in the middle of a step.
    pub(crate) broken: Checked,
}

fn limits(random: &mut Random, capped: bool, planted: Option<Fault>) -> Options {
    Options {
        memtable_bytes: 1 << 16,
        cache_bytes: 1 << 16,
        log_segment_bytes: 1 << 16,
        log_bytes_max: 1 << (16 + random.below(3)),
        log_tail_bytes: if random.once_in(3) { 1 << 17 } else { 0 },
        run_file_bytes: 1 << 14,
        fragment_bytes_max: 1 << (14 + random.below(3)),
        block_bytes: 256 << random.below(4),
        read_mode: if random.once_in(2) { ReadMode::Mapped } else { ReadMode::Cached },
        preserved_bytes_max: if capped { random.below(4_000) } else { 1 << 40 },
        preserved_age_max_ms: if capped { random.below(3_000) } else { u64::MAX },
        background: false,
        planted: planted.and_then(Fault::engine),
        ..Options::default()
    }
}

impl World {
    /// A world in which node 0 leads, and nobody takes its place.
    pub(crate) fn new(seed: u64, planted: Option<Fault>) -> Result<Self, String> {
        Self::of_kind(seed, planted, false)
    }

    /// A world in which the lead changes hands.
    pub(crate) fn moving(seed: u64, planted: Option<Fault>) -> Result<Self, String> {
        Self::of_kind(seed, planted, true)
    }

    fn of_kind(seed: u64, planted: Option<Fault>, moves: bool) -> Result<Self, String> {
        let mut random = Random::new(seed);
        let protocol = Protocol {
            live_window_bytes: 1_000 + random.below(20_000),
            live_batch_bytes: 500 + random.below(6_000),
            chunk_bytes: 200 + random.below(6_000),
            // As much as a chunk has.
            rewind_reply_bytes: 0,
            chunks_in_flight: 1 + random.below(3) as u32,
            held_bytes_max: 1_000 + random.below(30_000),
            refresh_mark_bytes: 0,
            refresh_mark_after: Millis(100),
            rewind_request_bytes: 17 + random.below(60),
            compare_first_parts: 1 + random.below(8) as u32,
            compare_parts: 2 + random.below(4) as u32,
            compare_leaf_records: random.below(4),
            compare_spans: 1 + random.below(5) as u32,
            rounds_apart: Millis(200),
            bulk_bytes_min: if random.once_in(3) { 1_000 } else { u64::MAX },
            // Drawn apart, so that seeds of old failures keep their meaning.
            tail_bytes_free: if Random::new(!seed).once_in(3) { 1_000 } else { u64::MAX },
            heartbeat: Millis(100),
            session_timeout: Millis(600),
            leave_after: Millis(300 + random.below(2_000)),
            planted: planted.and_then(Fault::protocol),
        };
        let protocol = Protocol {
            rewind_reply_bytes: protocol.chunk_bytes,
            refresh_mark_bytes: protocol.chunk_bytes,
            ..protocol
        };
        let leave_after = if moves { Millis(protocol.leave_after.0 + 4_000) } else { protocol.leave_after };
        let protocol = Protocol { leave_after, ..protocol };
        let capped = random.once_in(3);
        let synced_one_in = if random.once_in(2) { 2 } else { 30 };
        let nodes = (0..NODES).map(|_| Node::new(random.number(), limits(&mut random, capped, planted)));
        let nodes: Vec<Node> = nodes.collect();
        for node in &nodes {
            let skew = random.below(4_000);
            node.disk.set_now_millis(node.disk.now_millis() + skew);
        }
        let mut world = Self {
            random,
            protocol,
            planted,
            nodes,
            connections: BTreeMap::new(),
            next_connection: 1,
            parted: [false; NODES],
            database: DatabaseId::default(),
            leader: 0,
            moves,
            unsettled: Vec::new(),
            capped,
            told: BTreeMap::new(),
            synced_one_in,
            now: 1_000,
            numbers: 0,
            faults: true,
            oracle: Oracle::default(),
            trace: Trace::default(),
            coverage: Coverage::default(),
            newest_led: Epoch::NONE,
            moved: Moves::default(),
            broken: Ok(()),
        };
        world.begin().map_err(|error| format!("seed {seed}: {error}"))?;
        Ok(world)
    }

    fn begin(&mut self) -> Checked {
        let text = |error: planaria_engine::Error| error.to_string();
        let node = self.leader;
        let db = Database::open_with(DIR, self.nodes[node].options(true)).map_err(text)?;
        create_tables(&db).map_err(text)?;
        self.database = db.id();
        self.oracle.again = self.moves;
        self.oracle.begins(node);
        self.nodes[node].made = true;
        let group = executor::lead(&db, self.protocol.clone(), self.terms_of_lead(node), self.millis());
        let group = group.map_err(|error| error.to_string())?;
        self.absorb(node, &db)?;
        self.nodes[node].process = Some(Process::Primary(Leading::new(db, group)?));
        Ok(())
    }

    pub(crate) fn millis(&self) -> Millis {
        Millis(self.now)
    }

    pub(crate) fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.note(self.coverage.steps, self.now, what);
    }

    /// A call of the engine failed, which ends no process.
    pub(crate) fn failed_action(&mut self, node: usize, error: &str) {
        self.coverage.failed_actions += 1;
        self.note(format_args!("node {node} could not: {error}"));
    }

    /// Runs the workload under faults, then lets everything settle.
    pub(crate) fn run(&mut self) -> Checked {
        for _ in 0..if self.moves { MOVING_STEPS } else { STEPS } {
            self.step()?;
        }
        self.faults = false;
        self.note(format_args!("faults end"));
        for node in 0..NODES {
            self.heal(node);
            self.nodes[node].failing = false;
            self.parted[node] = false;
            self.nodes[node].paused_until = 0;
            if self.nodes[node].hurt {
                self.stop(node);
            }
            self.start(node)?;
        }
        for round in 0..SETTLE_STEPS {
            self.step()?;
            if round % 64 == 0 {
                for node in 0..NODES {
                    self.start(node)?;
                }
                if self.moves {
                    self.settle_lead(round)?;
                }
                self.forget_the_gone()?;
            }
            if round % 16 == 0 && self.is_settled() {
                self.coverage.simulated_ms = self.now;
                self.check_equal()?;
                return self.check_protected(self.leader);
            }
        }
        let states: Vec<String> = (0..NODES).map(|node| self.describe(node)).collect();
        Err(format!("R12/R20: not equal after {SETTLE_STEPS} steps without faults:\n{}", states.join("\n")))
    }

    fn describe(&self, node: usize) -> String {
        let state = match &self.nodes[node].process {
            None => "down".into(),
            Some(Process::Primary(leading)) => {
                format!("{:?}", leading.group)
            }
            Some(Process::Secondary(following)) => format!("{:?}", following.machine.status()),
        };
        let ends = self.nodes[node].database().map(|db| (db.visible(), db.durable(), db.log_end().0));
        format!("node {node} visible, durable, end {ends:?}: {state}")
    }

    /// Everybody is online, promotable, and shows what the primary has.
    fn is_settled(&self) -> bool {
        let leader = self.leader;
        let Some(Process::Primary(leading)) = &self.nodes[leader].process else { return false };
        let end = leading.db.log_end().0;
        let follows = |node: &Node| match &node.process {
            Some(Process::Secondary(following)) => {
                let db = following.copy.database();
                following.machine.status().state == State::Online
                    && db.visible() == end
                    && leading.group.promotable().contains(&db.instance())
            }
            _ => false,
        };
        leading.db.visible() == end
            && leading.db.durable() == end
            && (0..NODES).filter(|node| *node != leader).all(|node| follows(&self.nodes[node]))
    }

    fn step(&mut self) -> Checked {
        self.coverage.steps += 1;
        let node = self.random.below(NODES as u64) as usize;
        if self.moves && self.faults && self.weather(node)? {
            return self.after_step(Some(node));
        }
        let choice = self.random.below(100);
        if self.is_paused(node) && !(10..42).contains(&choice) {
            return Ok(());
        }
        let touched = match choice {
            0..5 if self.faults => {
                self.write()?;
                Some(self.leader)
            }
            5..10 => {
                self.maintain(node);
                Some(node)
            }
            10..42 => {
                self.deliver();
                None
            }
            42..48 => {
                self.tick(node);
                None
            }
            48..54 => {
                self.transfer(node)?;
                Some(node)
            }
            54..95 => {
                self.act(node)?;
                Some(node)
            }
            95 if self.faults && !self.moves => {
                self.fault(node)?;
                Some(node)
            }
            _ => {
                self.notice_dead();
                Some(self.leader)
            }
        };
        self.after_step(touched)
    }

    /// What must hold after every step.
    fn after_step(&mut self, touched: Option<usize>) -> Checked {
        self.bury();
        std::mem::replace(&mut self.broken, Ok(()))?;
        for node in 0..NODES {
            let Some(Process::Primary(leading)) = &self.nodes[node].process else { continue };
            let db = leading.db.clone();
            self.absorb(node, &db)?;
            self.oracle.leads_with(&db);
            self.acknowledge(node)?;
        }
        touched.map_or(Ok(()), |node| self.check(node))
    }

    fn act(&mut self, node: usize) -> Checked {
        if self.is_primary(node) {
            self.act_primary(node);
            Ok(())
        } else {
            self.act_secondary(node)
        }
    }

    pub(crate) fn is_primary(&self, node: usize) -> bool {
        matches!(self.nodes[node].process, Some(Process::Primary(_)))
    }

    /// Whether a node's process stands still.
    pub(crate) fn is_paused(&self, node: usize) -> bool {
        self.coverage.steps < self.nodes[node].paused_until
    }

    /// Time passes for all, and one node notices.
    fn tick(&mut self, node: usize) {
        let by = self.random.below(40);
        self.now += by;
        for other in &self.nodes {
            other.disk.advance(std::time::Duration::from_millis(by));
        }
        if self.is_primary(node) { self.tick_primary(node) } else { self.tick_secondary(node) }
    }

    /// What threads in the background do, and what people ask for.
    fn maintain(&mut self, node: usize) {
        let choice = self.random.below(16);
        let Some(db) = self.nodes[node].database().cloned() else { return };
        if self.is_primary(node) && self.faults && !self.random.once_in(self.synced_one_in / 2) {
            return;
        }
        let (what, done) = match choice {
            0..6 => ("sync", db.work_once(Task::Sync)),
            6..9 => ("flush", db.work_once(Task::Flush)),
            9..12 => ("compact", db.work_once(Task::Compact)),
            12..14 => ("flush all", db.flush()),
            14 => ("compact all", db.compact()),
            _ => ("seal", db.sync().map(drop)),
        };
        self.note(format_args!("node {node} works: {what}"));
        if let Err(error) = done {
            self.failed_action(node, &error.to_string());
        }
    }

    /// A client writes.
    pub(crate) fn write(&mut self) -> Checked {
        if self.moves {
            return self.write_once();
        }
        let node = self.leader;
        self.numbers += 1;
        let write = Write::draw(&mut self.random, self.numbers, self.synced_one_in);
        let waits = self.random.once_in(3);
        let Some(Process::Primary(leading)) = &mut self.nodes[node].process else { return Ok(()) };
        self.oracle.submit(write.number, write.ops.clone());
        match leading.db.write(write.batch(), write.durability) {
            Ok(uid) => {
                if waits {
                    leading.waiting.push(Waiting { uid, level: Level::One, number: write.number });
                }
                let db = leading.db.clone();
                self.oracle.wrote(node, uid, write.durability);
                self.note(format_args!(
                    "commit {uid} of {} records, {:?}",
                    write.ops.len(),
                    write.durability
                ));
                self.absorb(node, &db)
            }
            Err(error) => self.check_refusal(node, &error.to_string()),
        }
    }

    pub(crate) fn absorb(&mut self, node: usize, db: &Database) -> Checked {
        match self.oracle.absorb(node, db) {
            Ok(absorbed) => {
                self.coverage.commits += absorbed.commits;
                self.coverage.commits_of_the_store += absorbed.own;
                self.coverage.splits += absorbed.splits;
                Ok(())
            }
            // A disk that fails may not be readable either; what was missed is found at the next start.
            Err(Err(error)) => self.check_refusal(node, &error.to_string()),
            Err(Ok(what)) => Err(what),
        }
    }
}
