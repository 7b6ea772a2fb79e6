//! The queue of clones: what begins, what waits, and what may go through a place.

use std::collections::BTreeMap;

use planaria_net::wire::jobs::LimitInfo;
use planaria_net::wire::message::{CloneRole, VERSION_MAX, VERSION_MIN};
use planaria_replication::Millis;
use planaria_replication::control::{
    Ceiling, Destination, Gate, GateKind, Limits, Place, Plan, QueuedSource, RunningClone, SourceChoice,
    SourceRule, Start, WaitReason, WaitingClone, plan,
};
use planaria_types::DatabaseId;

use super::clones::instance_role;
use super::stored::Asked;
use super::{Center, Now};
use crate::catalog::{Change, CloneRecord, CloneState, Declared, EventKind, LimitRecord};
use crate::{Error, Result};

/// The queue is gone through this often, and whenever something has changed.
const PLANNED_EVERY: Millis = Millis(1_000);
/// Places that limits were set for, at most.
const LIMITS_MAX: usize = 8_192;
/// The least bandwidth that a place may be given, in bytes a second.
const CEILING_MIN: u64 = 64 << 10;

/// What is known of an open clone since the control center started.
#[derive(Default)]
pub(super) struct LiveClone {
    pub(super) done_bytes: u64,
    pub(super) total_bytes: Option<u64>,
    /// Its rate now, where it is not the one that it began with.
    pub(super) bytes_per_s: Option<u64>,
    /// Why it waits, and what was found of each copy.
    pub(super) waits: Option<(WaitReason, Vec<String>)>,
    /// The backup of its source, if that is a store.
    pub(super) backup: Option<String>,
}

impl Center {
    /// Goes through the queue if it is time to.
    pub(super) fn watch_queue(&mut self, now: Now) -> Result<()> {
        let is_due = self.planned.is_none_or(|planned| now.at.since(planned) >= PLANNED_EVERY);
        if is_due { self.run_queue(now) } else { Ok(()) }
    }

    /// Has begin what can.
    pub(super) fn run_queue(&mut self, now: Now) -> Result<()> {
        self.planned = Some(now.at);
        self.end_homeless(now)?;
        if self.contents.clones.is_empty() {
            return Ok(());
        }
        let waiting: Vec<WaitingClone> = self
            .contents
            .clones
            .values()
            .filter(|clone| clone.state == CloneState::Queued)
            .map(|clone| self.waiting(now, clone))
            .collect();
        let Plan { starts, waits, rates } = plan(&self.limits(), now.wall_ms, &self.running(), &waiting);
        for (number, rate) in rates {
            tracing::info!(clone = number, bytes_per_s = rate, "a clone goes on at another rate");
            self.clones_live.entry(number).or_default().bytes_per_s = Some(rate);
        }
        for start in starts {
            self.begin_clone(now, start)?;
        }
        for wait in waits {
            let reasons = self.source_reasons(&wait.choice);
            let is_hopeless = wait.reason == WaitReason::NoSource;
            let live = self.clones_live.entry(wait.number).or_default();
            live.waits = Some((wait.reason, reasons.clone()));
            let clone = self.contents.clones.get(&wait.number);
            // Where something was tried, and nothing is left to try, it is over.
            if let Some(clone) = clone.filter(|clone| is_hopeless && !clone.failed.is_empty()).cloned() {
                let why = format!("no source is left to try; {}", clone.reason);
                let clone = CloneRecord { reasons, ..clone };
                self.end_clone(now, clone, CloneState::Failed, "no_source", why)?;
            }
        }
        Ok(())
    }

    fn begin_clone(&mut self, now: Now, start: Start) -> Result<()> {
        let Some(clone) = self.contents.clones.get(&start.number).cloned() else { return Ok(()) };
        let source_node = self.node_of(start.source);
        let why = start.choice.verdicts.iter().find(|verdict| verdict.instance == start.source);
        let mut why = why.map(|verdict| verdict.reason.to_string()).unwrap_or_default();
        let stored = self.backup_for(&clone, start.source);
        if let Some((name, _)) = &stored {
            why = format!("{why}; its backup {name}");
        }
        let reasons = self.source_reasons(&start.choice);
        let what = format!(
            "clone {} of {} to {} is taken from {source_node}, at most {} bytes a second: {why}",
            clone.number, clone.name, clone.node, start.bytes_per_s
        );
        let kind = EventKind::CloneBegun;
        let event = self.event(now, kind, Some(clone.database), &clone.node, what, reasons.clone());
        let live = self.copies_of(clone.database).find(|(_, copy)| copy.report.instance == start.source);
        let bytes = live.map(|(_, copy)| copy.report.bytes).or(stored.as_ref().map(|(_, bytes)| *bytes));
        let bytes = bytes.unwrap_or(clone.bytes);
        let record = CloneRecord {
            state: CloneState::Running,
            code: String::new(),
            reason: format!("from {source_node}: {why}"),
            reasons,
            source: Some(start.source),
            source_node,
            gates: start.gates,
            bytes_per_s: start.bytes_per_s,
            bytes,
            ..clone
        };
        let live = self.clones_live.entry(start.number).or_default();
        (live.waits, live.bytes_per_s) = (None, None);
        live.backup = stored.map(|(name, _)| name);
        self.note(vec![Change::Clone(Box::new(record)), event])
    }

    /// What was found of each copy, a line for each.
    pub(super) fn source_reasons(&self, choice: &SourceChoice) -> Vec<String> {
        let line = |verdict: &planaria_replication::control::SourceVerdict| {
            let node = self.node_of(verdict.instance);
            let trip = verdict.round_trip_us.map(|us| format!(", {}.{:03} ms", us / 1_000, us % 1_000));
            let trip = trip.unwrap_or_default();
            format!("{node}: {} ({}, {}{trip})", verdict.reason, verdict.role, verdict.distance)
        };
        choice.verdicts.iter().map(line).collect()
    }

    /// A clone that waits, with all that the decision goes by.
    fn waiting(&self, now: Now, clone: &CloneRecord) -> WaitingClone {
        let (is_stored, asked) = (clone.role == CloneRole::Store, Asked::by(clone));
        let rule = SourceRule {
            period_ms: clone.period_ms,
            failed: clone.failed.clone(),
            as_of: asked.uid(),
            ..SourceRule::default()
        };
        WaitingClone {
            number: clone.number,
            priority: clone.priority,
            submitted_ms: clone.submitted_ms,
            node: clone.node.clone(),
            to: if is_stored {
                self.store_destination(clone.database, &clone.node)
            } else {
                self.destination(&clone.node)
            },
            is_reachable: is_stored || self.is_heard(now, &clone.node) && self.takes(clone),
            rule,
            bytes_per_s: clone.bytes_per_s_wanted,
            sources: if is_stored {
                self.sources_into(now, &clone.node, clone.database)
            } else {
                self.queued_sources(now, &clone.node, clone.database, asked)
            },
        }
    }

    /// Whether the node of a clone has a place for it: a copy is made on one that hosts none.
    fn takes(&self, clone: &CloneRecord) -> bool {
        let spare = self.live.get(&clone.node).and_then(|node| node.spare);
        !super::clones::is_seed(clone.role) || spare == Some(instance_role(clone.role))
    }

    /// The copies of a database and its backups in stores, for a clone to a node.
    pub(super) fn queued_sources(
        &self,
        now: Now,
        to: &str,
        database: DatabaseId,
        asked: Asked,
    ) -> Vec<QueuedSource> {
        let copies = self.source_copies(now, to, database).into_iter();
        let copies = copies.map(|copy| QueuedSource { node: self.node_of(copy.instance), copy });
        let leader = self.leader_of(database);
        copies.chain(self.stored_sources(to, database, leader, asked)).collect()
    }

    /// The designated instance, as the rule sees it.
    pub(super) fn destination(&self, node: &str) -> Destination {
        let live = self.live.get(node);
        let known = self.contents.nodes.get(node);
        let known = known.map_or((0, 0), |known| (known.capacity_bytes, known.free_bytes));
        let reported = live.filter(|live| live.written.is_some());
        let (capacity, free) = reported.map_or(known, |live| (live.capacity_bytes, live.free_bytes));
        Destination {
            holds: live.map(|live| live.copies.keys().copied().collect()).unwrap_or_default(),
            labels: self.labels(node),
            versions: (VERSION_MIN, VERSION_MAX),
            free_bytes: self.room(node, capacity, free),
        }
    }

    /// The clones that run.
    pub(super) fn running(&self) -> Vec<RunningClone> {
        let running = self.contents.clones.values().filter(|clone| clone.state == CloneState::Running);
        let one = |clone: &CloneRecord| {
            let live = self.clones_live.get(&clone.number);
            let total = live.and_then(|live| live.total_bytes).unwrap_or(clone.bytes);
            RunningClone {
                number: clone.number,
                node: clone.node.clone(),
                gates: clone.gates.clone(),
                bytes_per_s_wanted: clone.bytes_per_s_wanted,
                bytes_per_s: live.and_then(|live| live.bytes_per_s).unwrap_or(clone.bytes_per_s),
                bytes_left: total.saturating_sub(live.map_or(0, |live| live.done_bytes)),
            }
        };
        running.map(one).collect()
    }

    /// What a clone goes through that its node has gone on with.
    pub(super) fn gates_of(&self, clone: &CloneRecord) -> Vec<Gate> {
        let from = self.labels_at(clone.database, &clone.source_node);
        let to = self.labels_at(clone.database, &clone.node);
        let lead = self.contents.leads.get(&clone.database);
        let from_primary = lead.is_some_and(|lead| Some(lead.instance) == clone.source);
        Gate::between(
            Place { node: &clone.source_node, labels: &from },
            Place { node: &clone.node, labels: &to },
            from_primary,
        )
    }

    /// What clones may take.
    pub(super) fn limits(&self) -> Limits {
        Limits { set: self.contents.limits.clone(), ..Limits::default() }
    }

    /// Sets what clones may take of a place, or of all places of a kind. It holds for those that run, too: their rates are
    /// lowered; none of them is ended.
    ///
    /// # Errors
    ///
    /// `invalid` if there is no such place or too little is given, `too_many`.
    pub fn set_limit(&mut self, now: Now, gate: &str, ceiling: Ceiling) -> Result<()> {
        let LimitRecord { gate, ceiling } = limit_record(gate, ceiling)?;
        let is_of_node = matches!(gate.kind, GateKind::NodeIn | GateKind::NodeOut | GateKind::Primary);
        if is_of_node && !gate.name.is_empty() && !self.knows_node(&gate.name) {
            let what = format!("no node {:?} has joined or is declared", gate.name);
            return Err(Error::refused(
                "unknown_node",
                what,
                "`planaria cluster nodes` shows those that have",
            ));
        }
        check_limits(self.contents.limits.len() + usize::from(!self.contents.limits.contains_key(&gate)))?;
        let Ceiling { clones_max, bytes_per_s_max } = ceiling;
        let what = format!("{gate} takes {clones_max} clones and {bytes_per_s_max} bytes a second");
        let event = self.event(now, EventKind::LimitSet, None, "", what, Vec::new());
        self.note(vec![Change::Limit(LimitRecord { gate, ceiling }), event])?;
        self.run_queue(now)
    }

    fn knows_node(&self, name: &str) -> bool {
        let declared = (Declared::Node, name.to_owned());
        self.contents.nodes.contains_key(name) || self.contents.declarations.contains_key(&declared)
    }

    /// What clones may take: what holds for each kind of place, and every place for which something else was set or that a
    /// clone goes through.
    pub fn limit_infos(&self) -> Vec<LimitInfo> {
        let limits = self.limits();
        let mut gates: BTreeMap<Gate, (u32, u64)> =
            GateKind::ALL.into_iter().map(|kind| (Gate::new(kind, ""), (0, 0))).collect();
        gates.extend(limits.set.keys().map(|gate| (gate.clone(), (0, 0))));
        for clone in self.running() {
            for gate in clone.gates {
                for gate in [Gate::new(gate.kind, ""), gate] {
                    let (clones, bytes) = gates.entry(gate).or_default();
                    (*clones, *bytes) = (*clones + 1, bytes.saturating_add(clone.bytes_per_s));
                }
            }
        }
        let info = |(gate, (clones, bytes_per_s)): (Gate, (u32, u64))| {
            let Ceiling { clones_max, bytes_per_s_max } = limits.of(&gate);
            let is_set = limits.set.contains_key(&gate);
            LimitInfo { gate: gate.to_string(), clones_max, bytes_per_s_max, clones, bytes_per_s, is_set }
        };
        gates.into_iter().map(info).collect()
    }
}

/// A limit as it is kept, if it can be.
pub(super) fn limit_record(gate: &str, ceiling: Ceiling) -> Result<LimitRecord> {
    let invalid = |what: String| Error::refused("invalid", what, "see `planaria cluster limits --help`");
    let gate: Gate = gate.parse().map_err(invalid)?;
    if gate.name.len() > 2 * planaria_net::wire::control::NAME_BYTES_MAX
        || gate.name.contains(char::is_control)
    {
        return Err(invalid("that is no name of a place".to_owned()));
    }
    if ceiling.bytes_per_s_max < CEILING_MIN {
        return Err(invalid(format!("a place has at least {CEILING_MIN} bytes a second")));
    }
    Ok(LimitRecord { gate, ceiling })
}

/// Whether limits may be set for so many places.
pub(super) fn check_limits(count: usize) -> Result<()> {
    if count <= LIMITS_MAX {
        return Ok(());
    }
    let what = format!("limits are set for {LIMITS_MAX} places at most");
    Err(Error::refused("too_many", what, "set them for all places of a kind"))
}
