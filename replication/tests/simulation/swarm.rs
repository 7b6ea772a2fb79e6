//! Worlds that differ in what goes wrong: each seed draws its faults and how often they come, so that rare ones meet each
//! other without a crowd of others between them (Groce and others, "Swarm Testing", 2012).

use std::collections::{BTreeMap, BTreeSet};

use planaria_replication::Way;
use planaria_types::Epoch;

use crate::random::Random;
use crate::world::{Checked, NODES, Role, World, id};

/// What may go wrong in a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// A connection is cut; one end may learn of it later.
    Cut,
    /// Links carry nothing any more, one way or both.
    Break,
    /// Links carry again.
    Mend,
    Crash,
    /// Whoever is down starts, as what it was.
    Start,
    /// A copy is to lead, if nothing can be lost by it.
    Promote,
    /// A process stands still, and goes on unaware of what was meanwhile.
    Pause,
    /// The clock of one node runs ahead of the others.
    Clock,
    /// A primary that was replaced follows the one that leads.
    Rejoin,
    /// A copy begins its session anew, or is to be refreshed.
    Ask,
    Garbage,
}

const FAULTS: [Fault; 11] = [
    Fault::Cut,
    Fault::Break,
    Fault::Mend,
    Fault::Crash,
    Fault::Start,
    Fault::Promote,
    Fault::Pause,
    Fault::Clock,
    Fault::Rejoin,
    Fault::Ask,
    Fault::Garbage,
];

/// What goes wrong in one world, and what is wrong now.
pub(crate) struct Swarm {
    random: Random,
    weights: [u64; FAULTS.len()],
    /// How rarely a step is a fault, in so many steps.
    one_in: u64,
    /// How rarely a client writes.
    write_one_in: u64,
    /// How much passes between two steps, in milliseconds: against timeouts, much or little is done.
    tick_ms_max: u64,
    /// Links that carry nothing, by who sends and who would hear.
    broken: BTreeSet<(usize, usize)>,
    /// The step at which a node goes on.
    paused: BTreeMap<usize, u64>,
    /// How far the clock of a node is ahead.
    ahead: BTreeMap<usize, u64>,
    /// Nodes that led when they went down.
    led: BTreeSet<usize>,
}

impl Swarm {
    pub(crate) fn draw(seed: u64) -> Self {
        // Drawn apart, so that other worlds keep the meaning of their seeds.
        let mut random = Random::new(seed ^ 0x7377_6172_6d00);
        let weights = FAULTS.map(|fault| match fault {
            // Without these a world comes to a standstill.
            Fault::Mend | Fault::Start | Fault::Promote => 4 + random.below(8),
            _ if random.one_in(2) => 0,
            _ => 1 + random.below(8),
        });
        Self {
            weights,
            one_in: 40 << random.below(4),
            write_one_in: 10 + random.below(50),
            tick_ms_max: 1 << (1 + random.below(5)),
            random,
            broken: BTreeSet::new(),
            paused: BTreeMap::new(),
            ahead: BTreeMap::new(),
            led: BTreeSet::new(),
        }
    }

    pub(crate) fn ahead(&self, node: usize) -> u64 {
        self.ahead.get(&node).copied().unwrap_or(0)
    }

    pub(crate) fn tick_ms_max(&self) -> u64 {
        self.tick_ms_max
    }

    fn next_fault(&mut self) -> Option<Fault> {
        if !self.random.one_in(self.one_in) {
            return None;
        }
        let mut at = self.random.below(self.weights.iter().sum());
        FAULTS.into_iter().zip(self.weights).find_map(|(fault, weight)| {
            let hit = at < weight;
            at = at.saturating_sub(weight);
            hit.then_some(fault)
        })
    }

    /// Breaks one link, all of a node, or mends all.
    fn break_links(&mut self, node: usize) {
        let other = self.random.below(NODES as u64) as usize;
        match self.random.below(3) {
            0 => drop(self.broken.insert((node, other))),
            1 => self.broken.extend([(node, other), (other, node)]),
            _ => self.broken.extend((0..NODES).flat_map(|other| [(node, other), (other, node)])),
        }
    }
}

impl World {
    /// Whether what `from` sends comes to `to`.
    pub(crate) fn hears(&self, to: usize, from: usize) -> bool {
        self.swarm.as_ref().is_none_or(|swarm| !swarm.broken.contains(&(from, to)))
    }

    /// Whether a node's process stands still.
    pub(crate) fn is_paused(&self, node: usize) -> bool {
        self.swarm.as_ref().is_some_and(|swarm| swarm.paused.contains_key(&node))
    }

    /// Ends what the swarm does to links and processes. Clocks stay as they are.
    pub(crate) fn calm_swarm(&mut self) {
        if let Some(swarm) = &mut self.swarm {
            swarm.broken.clear();
            swarm.paused.clear();
            // The longest wait before a connection must pass.
            swarm.tick_ms_max = 40;
        }
    }

    /// One step of a world of the swarm.
    pub(crate) fn swarm_step(&mut self) -> Checked {
        let step = self.coverage.steps;
        let faults = self.faults;
        let Some(swarm) = &mut self.swarm else { return Ok(()) };
        swarm.paused.retain(|_, until| *until > step);
        let node = swarm.random.below(NODES as u64) as usize;
        let writes = faults && swarm.random.one_in(swarm.write_one_in);
        if faults && let Some(fault) = swarm.next_fault() {
            return self.swarm_fault(fault, node);
        }
        if writes {
            self.write();
        }
        let choice = self.random.below(92);
        if choice < 26 {
            self.deliver();
            return Ok(());
        }
        if self.is_paused(node) {
            return Ok(());
        }
        match choice {
            26..30 => self.publish(),
            30..36 => self.sync(node),
            36..44 => self.tick(node),
            44..60 => return self.answer(node),
            60..90 => return self.act(node),
            _ => self.drop_dead(),
        }
        Ok(())
    }

    fn swarm_fault(&mut self, fault: Fault, node: usize) -> Checked {
        self.note(&format!("{fault:?} at node {node}"));
        match fault {
            Fault::Cut => self.cut_any(),
            Fault::Break => self.break_links(node),
            Fault::Mend => {
                if let Some(swarm) = &mut self.swarm {
                    swarm.broken.clear();
                }
            }
            Fault::Crash => self.crash_as(node),
            Fault::Start => self.start_all(),
            Fault::Promote => {
                let candidates: Vec<usize> = (0..NODES).filter(|node| self.may_lead(*node)).collect();
                if !candidates.is_empty() {
                    let node = candidates[self.random.below(candidates.len() as u64) as usize];
                    return self.promote_carefully(node);
                }
            }
            Fault::Pause => self.pause(node),
            Fault::Clock => self.run_ahead(node),
            Fault::Rejoin if !self.is_paused(node) && node != self.leader => {
                if matches!(self.nodes[node].role, Role::Primary { .. }) {
                    self.follow(node);
                }
            }
            Fault::Ask => {
                let way = if self.random.one_in(2) { Way::Reconcile } else { Way::Delta };
                self.ask(node, way);
            }
            Fault::Garbage if !self.is_paused(node) => self.garbage(node),
            _ => {}
        }
        Ok(())
    }

    /// Some of what copies answered to a promotion, after their promise, may never come.
    pub(crate) fn lose_answers<T>(&mut self, answers: &mut Vec<T>) {
        if let Some(swarm) = &mut self.swarm {
            let before = answers.len();
            answers.retain(|_| !swarm.random.one_in(12));
            self.coverage.lost_answers += (before - answers.len()) as u64;
        }
    }

    /// Whether a node would ask to lead: one that can, and believes to be promotable.
    fn may_lead(&self, node: usize) -> bool {
        let follows = matches!(self.nodes[node].role, Role::Secondary { .. });
        let promotable = self.nodes[node].store.sets().contains(id(node));
        follows && promotable && !self.is_paused(node)
    }

    fn cut_any(&mut self) {
        let open: Vec<u64> = self.connections.keys().copied().collect();
        if !open.is_empty() {
            self.coverage.cuts += 1;
            let connection = open[self.random.below(open.len() as u64) as usize];
            let (up, down) = [(true, true), (true, false), (false, true)][self.random.below(3) as usize];
            self.cut(connection, up, down);
        }
    }

    fn break_links(&mut self, node: usize) {
        self.coverage.broken_links += 1;
        if let Some(swarm) = &mut self.swarm {
            swarm.break_links(node);
            let broken = format!("links that carry nothing: {:?}", swarm.broken);
            self.note(&broken);
        }
    }

    fn pause(&mut self, node: usize) {
        self.coverage.pauses += 1;
        let step = self.coverage.steps;
        if let Some(swarm) = &mut self.swarm {
            // Some outlast every timeout, and the promotion of another node.
            let steps = 20 << swarm.random.below(7);
            swarm.paused.insert(node, step + steps);
        }
    }

    fn run_ahead(&mut self, node: usize) {
        self.coverage.clock_jumps += 1;
        if let Some(swarm) = &mut self.swarm {
            let by = 1 << swarm.random.below(13);
            *swarm.ahead.entry(node).or_default() += by;
        }
    }

    fn crash_as(&mut self, node: usize) {
        let leads = matches!(self.nodes[node].role, Role::Primary { .. });
        let down = matches!(self.nodes[node].role, Role::Down);
        self.crash(node);
        if let Some(swarm) = &mut self.swarm
            && !down
        {
            swarm.paused.remove(&node);
            if leads {
                swarm.led.insert(node)
            } else {
                swarm.led.remove(&node)
            };
        }
    }

    /// Nodes that are down come back as what they were: one that led does so under its old term, unless it has promised
    /// a newer one. Nobody tells it whether it was replaced.
    fn start_all(&mut self) {
        let down = |node: &usize| matches!(self.nodes[*node].role, Role::Down);
        let down: Vec<usize> = (0..NODES).filter(down).collect();
        for node in down {
            let led = self.swarm.as_mut().is_some_and(|swarm| swarm.led.remove(&node));
            let promised = self.nodes[node].store.promised;
            if !led || promised != self.nodes[node].led {
                self.follow(node);
                continue;
            }
            let leader = self.leader;
            self.coverage.stray_restarts += u64::from(leader != node);
            let incarnation = self.nodes[node].incarnations + 1;
            self.nodes[node].incarnations = incarnation;
            let nonce = self.random.next();
            self.lead_as(node, Epoch { term: promised.term, incarnation, nonce });
            self.leader = leader;
        }
    }
}
