//! Which clones begin now, from where and how fast, and why the others wait.

use std::collections::BTreeMap;
use std::fmt;

use planaria_types::InstanceId;
use serde::{Deserialize, Serialize};

use super::InstanceRole;
use super::gates::{Closed, Gate, Limits, Place, Usage, shares};
use super::source::{
    Destination, Obstacle, SourceChoice, SourceCopy, SourceReason, SourceRule, SourceVerdict, choose_source,
};

/// A clone that has waited for so long counts as one of the next priority, and so on: none starves behind others that keep
/// coming.
pub const RISES_AFTER_MS: u64 = 10 * 60_000;
/// For one that has waited for so long room is kept: those behind it do not take what it needs in parts.
pub const KEEPS_AFTER_MS: u64 = 30_000;

/// What a clone is for. What comes first goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Priority {
    /// A database has fewer copies than it needs to go on without loss.
    Recovery,
    /// A standby is to be added.
    StandbySeeding,
    /// A backup is to be made or added.
    BackupRefresh,
    /// Somebody asked for it.
    #[default]
    AdHoc,
}

impl Priority {
    /// Every priority, the first first.
    pub const ALL: [Self; 4] = [Self::Recovery, Self::StandbySeeding, Self::BackupRefresh, Self::AdHoc];

    /// Its name in commands and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recovery => "recovery",
            Self::StandbySeeding => "standby-seeding",
            Self::BackupRefresh => "backup-refresh",
            Self::AdHoc => "ad-hoc",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A copy that a clone might be taken from, and its node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueuedSource {
    /// The node, by name.
    pub node: String,
    /// The copy. What it says of clones and bandwidth is not looked at: the queue knows.
    pub copy: SourceCopy,
}

/// A clone that is to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WaitingClone {
    /// Its number: those of the same age go by it.
    pub number: u64,
    /// What it is for.
    pub priority: Priority,
    /// When it was asked for, by the clock of `plan`.
    pub submitted_ms: u64,
    /// The node that gets it, by name.
    pub node: String,
    /// The designated instance. Room that other clones are still to take is no part of what is free.
    pub to: Destination,
    /// Whether the node that gets it has been heard lately.
    pub is_reachable: bool,
    /// By what the source is chosen; the least bandwidth follows from the limits.
    pub rule: SourceRule,
    /// At most so many bytes a second; none leaves it to the limits.
    pub bytes_per_s: Option<u64>,
    /// The copies that there are.
    pub sources: Vec<QueuedSource>,
}

impl WaitingClone {
    /// Where it stands in the queue: its priority, raised by the time it has waited; then its age, then its number.
    fn order(&self, now_ms: u64) -> (u64, u64, u64) {
        let waited = now_ms.saturating_sub(self.submitted_ms);
        ((self.priority as u64).saturating_sub(waited / RISES_AFTER_MS), self.submitted_ms, self.number)
    }

    fn gates(&self, source: &QueuedSource) -> Vec<Gate> {
        let from = Place { node: &source.node, labels: &source.copy.labels };
        let to = Place { node: &self.node, labels: &self.to.labels };
        Gate::between(from, to, source.copy.role == InstanceRole::Primary)
    }

    fn source(&self, instance: InstanceId) -> Option<&QueuedSource> {
        self.sources.iter().find(|source| source.copy.instance == instance)
    }
}

/// A clone that is being made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunningClone {
    /// Its number.
    pub number: u64,
    /// The node that gets it, by name.
    pub node: String,
    /// What it goes through.
    pub gates: Vec<Gate>,
    /// At most so many bytes a second were asked for.
    pub bytes_per_s_wanted: Option<u64>,
    /// The rate that was told, in bytes a second.
    pub bytes_per_s: u64,
    /// Bytes that it is still to take on the disk of its node.
    pub bytes_left: u64,
}

/// A clone that begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Start {
    /// The clone.
    pub number: u64,
    /// Where it is taken from.
    pub source: InstanceId,
    /// Its rate, in bytes a second.
    pub bytes_per_s: u64,
    /// What it goes through.
    pub gates: Vec<Gate>,
    /// Why it is taken from there.
    pub choice: SourceChoice,
}

/// Why a clone waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WaitReason {
    /// The node that gets it has not been heard lately.
    DestinationAway,
    /// No copy can be its source, though nothing else were going on.
    NoSource,
    /// As many clones as may be go through this place.
    Slots {
        /// The place.
        gate: Gate,
        /// How many.
        clones: u32,
    },
    /// What other clones leave of a place is too little.
    Bandwidth {
        /// The place.
        gate: Gate,
        /// Bytes a second that are left.
        free_bytes_per_s: u64,
    },
    /// Other clones to its node are to take the room that it needs.
    Room {
        /// Bytes that they are still to take.
        promised_bytes: u64,
    },
    /// Another one has waited for longer, and what is free is kept for it.
    Turn {
        /// The other one.
        of: u64,
    },
}

impl WaitReason {
    /// A stable name for logs and JSON.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::DestinationAway => "destination_away",
            Self::NoSource => "no_source",
            Self::Slots { .. } => "slots",
            Self::Bandwidth { .. } => "bandwidth",
            Self::Room { .. } => "room",
            Self::Turn { .. } => "turn",
        }
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DestinationAway => f.write_str("the node that gets it has not been heard lately"),
            Self::NoSource => f.write_str("no copy can be its source"),
            Self::Slots { gate, clones: 0 } => write!(f, "no clone may go through {gate}"),
            Self::Slots { gate, clones } => {
                let clones =
                    if *clones == 1 { "1 clone goes".to_owned() } else { format!("{clones} clones go") };
                write!(f, "{clones} through {gate}, as many as may be")
            }
            Self::Bandwidth { gate, free_bytes_per_s } => {
                write!(f, "other clones leave {free_bytes_per_s} bytes a second of {gate}, too few")
            }
            Self::Room { promised_bytes } => {
                write!(f, "other clones to its node are still to take {promised_bytes} bytes of the disk")
            }
            Self::Turn { of } => write!(f, "clone {of} has waited for longer, and room is kept for it"),
        }
    }
}

/// A clone that waits, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wait {
    /// The clone.
    pub number: u64,
    /// Why.
    pub reason: WaitReason,
    /// What was found of every copy.
    pub choice: SourceChoice,
}

/// What happens now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Clones that begin, in order.
    pub starts: Vec<Start>,
    /// Those that wait, in the order in which their turn comes.
    pub waits: Vec<Wait>,
    /// Clones that run, and go on at another rate in bytes a second.
    pub rates: Vec<(u64, u64)>,
}

/// Decides which clones begin, from where and how fast, which go on at another rate, and why the others wait.
///
/// They are gone through by priority, then age; one that has waited for long counts as one of a higher priority, and keeps
/// what it needs from those behind it. Each is taken from where [`choose_source`] says, by slots and bandwidth that are left
/// then. No limit is exceeded by what begins or is raised; where limits were lowered, the rates are lowered first.
pub fn plan(limits: &Limits, now_ms: u64, running: &[RunningClone], waiting: &[WaitingClone]) -> Plan {
    let mut queue = Queue { limits, usage: Usage::default(), promised: BTreeMap::new() };
    for clone in running {
        queue.usage.take(&clone.gates, clone.bytes_per_s);
        queue.promise(&clone.node, clone.bytes_left);
    }
    let mut order: Vec<&WaitingClone> = waiting.iter().collect();
    order.sort_by_key(|clone| clone.order(now_ms));
    let mut plan = Plan::default();
    for clone in order {
        match queue.begin(clone) {
            Ok(start) => plan.starts.push(start),
            Err(wait) => {
                if now_ms.saturating_sub(clone.submitted_ms) >= KEEPS_AFTER_MS {
                    queue.keep_for(clone);
                }
                plan.waits.push(*wait);
            }
        }
    }
    plan.rates = queue.rates(running);
    plan
}

/// What is taken while a plan is made.
struct Queue<'a> {
    limits: &'a Limits,
    usage: Usage,
    /// Bytes that clones are still to take on the disks of their nodes.
    promised: BTreeMap<String, u64>,
}

impl Queue<'_> {
    fn promise(&mut self, node: &str, bytes: u64) {
        let promised = self.promised.entry(node.to_owned()).or_default();
        *promised = promised.saturating_add(bytes);
    }

    fn wanted(&self, clone: &WaitingClone) -> u64 {
        clone.bytes_per_s.unwrap_or(self.limits.bytes_per_s_default)
    }

    /// Has a clone begin, or says why it cannot.
    fn begin(&mut self, clone: &WaitingClone) -> Result<Start, Box<Wait>> {
        let promised = self.promised.get(&clone.node).copied().unwrap_or(0);
        let choice = self.choose(&self.usage, promised, clone);
        let waits = |reason, choice| Box::new(Wait { number: clone.number, reason, choice });
        if !clone.is_reachable {
            return Err(waits(WaitReason::DestinationAway, choice));
        }
        let Some(source) = choice.source.and_then(|instance| clone.source(instance)) else {
            return Err(waits(self.why_it_waits(clone, promised), choice));
        };
        let (instance, bytes) = (source.copy.instance, source.copy.bytes);
        let gates = clone.gates(source);
        let bytes_per_s = self.wanted(clone).min(self.usage.left_of_all(self.limits, &gates));
        self.usage.take(&gates, bytes_per_s);
        self.promise(&clone.node, bytes);
        Ok(Start { number: clone.number, source: instance, bytes_per_s, gates, choice })
    }

    /// Chooses the source of a clone beside others that take so much.
    fn choose(&self, usage: &Usage, promised: u64, clone: &WaitingClone) -> SourceChoice {
        let bytes_per_s_min = self.limits.least(self.wanted(clone));
        let rule = SourceRule { bytes_per_s_min, ..clone.rule.clone() };
        let free_bytes = clone.to.free_bytes.saturating_sub(promised);
        let to = Destination { free_bytes, ..clone.to.clone() };
        let copy = |source: &QueuedSource| {
            let gates = clone.gates(source);
            let is_full = |gate: &&Gate| usage.clones(gate) >= self.limits.of(gate).clones_max;
            let own = Gate::new(super::gates::GateKind::NodeOut, source.node.clone());
            let gate = gates.iter().find(is_full).unwrap_or(&own);
            SourceCopy {
                clones: usage.clones(gate),
                clones_max: self.limits.of(gate).clones_max,
                free_bytes_per_s: usage.left_of_all(self.limits, &gates),
                ..source.copy.clone()
            }
        };
        let copies: Vec<SourceCopy> = clone.sources.iter().map(copy).collect();
        choose_source(&rule, &to, &copies)
    }

    /// Where it would be taken from if nothing else were going on.
    fn alone<'b>(&self, clone: &'b WaitingClone) -> Option<&'b QueuedSource> {
        clone.source(self.choose(&Usage::default(), 0, clone).source?)
    }

    fn why_it_waits(&self, clone: &WaitingClone, promised: u64) -> WaitReason {
        let Some(source) = self.alone(clone) else { return self.why_nothing_goes(clone) };
        let least = self.limits.least(self.wanted(clone));
        for gate in clone.gates(source) {
            match self.usage.closed(self.limits, &gate, least) {
                None => {}
                Some(Closed::Slots { clones }) => return WaitReason::Slots { gate, clones },
                Some(Closed::Bandwidth { free_bytes_per_s }) => {
                    return WaitReason::Bandwidth { gate, free_bytes_per_s };
                }
                Some(Closed::Kept { for_job }) => return WaitReason::Turn { of: for_job },
            }
        }
        WaitReason::Room { promised_bytes: promised }
    }

    /// Why it could not be taken from anywhere though nothing else were going on: a place through which no clone may go, or no source.
    fn why_nothing_goes(&self, clone: &WaitingClone) -> WaitReason {
        let choice = self.choose(&Usage::default(), 0, clone);
        let is_shut =
            |verdict: &&SourceVerdict| matches!(verdict.reason, SourceReason::Unfit(Obstacle::NoSlot { .. }));
        let source = choice.verdicts.iter().find(is_shut).and_then(|verdict| clone.source(verdict.instance));
        let mut gates = source.map(|source| clone.gates(source)).unwrap_or_default().into_iter();
        let shut = gates.find(|gate| self.limits.of(gate).clones_max == 0);
        shut.map_or(WaitReason::NoSource, |gate| WaitReason::Slots { gate, clones: 0 })
    }

    /// Keeps what a clone that waits needs from those behind it.
    fn keep_for(&mut self, clone: &WaitingClone) {
        if !clone.is_reachable {
            return;
        }
        let Some((gates, bytes)) = self.alone(clone).map(|source| (clone.gates(source), source.copy.bytes))
        else {
            return;
        };
        self.usage.keep(&gates, self.limits.least(self.wanted(clone)), clone.number);
        self.promise(&clone.node, bytes);
    }

    /// The rates of clones that run, where they change.
    fn rates(&mut self, running: &[RunningClone]) -> Vec<(u64, u64)> {
        let wanted =
            |clone: &RunningClone| clone.bytes_per_s_wanted.unwrap_or(self.limits.bytes_per_s_default);
        let claims: Vec<(&[Gate], u64)> =
            running.iter().map(|clone| (&clone.gates[..], wanted(clone))).collect();
        // What begins now is no part of what those that run share. What is kept for others is: they wait for these to end.
        let mut beside = self.usage.clone();
        for clone in running {
            beside.change(&clone.gates, clone.bytes_per_s, 0);
        }
        let shares = shares(|gate| beside.not_taken(self.limits, gate), &claims);
        let mut rates = Vec::new();
        for (clone, share) in running.iter().zip(shares) {
            // What others are told to give up is there when they have given it up.
            let free = self.usage.left_of_all(self.limits, &clone.gates);
            let rate = share.min(clone.bytes_per_s.saturating_add(free));
            if rate > clone.bytes_per_s {
                self.usage.change(&clone.gates, clone.bytes_per_s, rate);
            }
            if rate != clone.bytes_per_s {
                rates.push((clone.number, rate));
            }
        }
        rates
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
