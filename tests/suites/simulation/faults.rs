//! What goes wrong: deaths, disks, clocks, links, and how nodes come back.

use std::io::ErrorKind;

use planaria_engine::os::{Call, CrashStyle, Fault as Failure, Os};
use planaria_engine::{Database, Planted, Task};
use planaria_net::replica::executor;
use planaria_types::EpochOrder;

use crate::leading::Leading;
use crate::node::{DIR, Process};
use crate::world::{Checked, NODES, World};

/// The calls that are made to fail.
const CALLS: [Call; 10] = [
    Call::Open,
    Call::Create,
    Call::Read,
    Call::Write,
    Call::SetLen,
    Call::Allocate,
    Call::SyncData,
    Call::SyncDir,
    Call::Rename,
    Call::Remove,
];

impl World {
    pub(crate) fn fault(&mut self, node: usize) -> Checked {
        if self.moves && self.random.once_in(2) {
            return self.move_lead(node);
        }
        match self.random.below(43) {
            0..8 => {
                let numbers: Vec<u64> = self.connections.keys().copied().collect();
                if !numbers.is_empty() {
                    self.coverage.cuts += 1;
                    let number = numbers[self.random.below(numbers.len() as u64) as usize];
                    let (up, down) = (self.random.once_in(2), self.random.once_in(2));
                    self.cut(number, up, down);
                }
            }
            8..13 => self.crash(node),
            13..19 => {
                let calls = 1 + self.random.below(40);
                let state = &mut self.nodes[node];
                state.disk.crash_at(state.disk.mutations() + calls);
                state.doomed_for = 200;
                self.note(format_args!("node {node} will die at call {calls} from now"));
            }
            19..29 => {
                for node in 0..NODES {
                    self.start(node)?;
                }
            }
            29..31 => self.stop(node),
            31..33 => self.fail_disk(node),
            33 => self.fill_disk(node),
            34..36 => self.heal(node),
            36 => {
                self.coverage.partitions += 1;
                self.parted[node] = !self.parted[node];
                let parted = self.parted[node];
                self.note(format_args!("node {node} parted {parted}"));
            }
            37 => self.jump(node),
            38 if self.may_be_wiped(node) && self.random.once_in(3) => self.wipe(node),
            39..42 => return self.burst(node),
            42 => self.ask(node),
            _ => {}
        }
        Ok(())
    }

    fn jump(&mut self, node: usize) {
        self.coverage.clock_jumps += 1;
        let by = self.random.below(20_000);
        let back = self.random.once_in(2);
        let disk = &self.nodes[node].disk;
        let now = disk.now_millis();
        disk.set_now_millis(if back { now.saturating_sub(by) } else { now + by });
        self.note(format_args!("the clock of node {node} jumps by {by} ms, back {back}"));
    }

    /// Many commits while somebody is away, and a log that is let go.
    fn burst(&mut self, node: usize) -> Checked {
        if node != self.leader && self.random.once_in(2) {
            self.stop(node);
        }
        for _ in 0..self.random.below(50) {
            self.write()?;
        }
        let leader = self.leader;
        if let Some(db) = self.nodes[leader].database().cloned() {
            self.note(format_args!("node {leader} flushes and merges"));
            if let Err(error) = db.flush().and_then(|()| db.work_once(Task::Compact)) {
                self.failed_action(leader, &error.to_string());
            }
        }
        Ok(())
    }

    fn fail_disk(&mut self, node: usize) {
        self.coverage.disk_faults += 1;
        let call = CALLS[self.random.below(CALLS.len() as u64) as usize];
        let error = if self.random.once_in(2) { ErrorKind::StorageFull } else { ErrorKind::Other };
        let (at, forever) = (1 + self.random.below(12), self.random.once_in(4));
        self.nodes[node].faulty.inject(Failure { call, at, error, forever });
        self.nodes[node].hurt = true;
        self.nodes[node].failing = true;
        self.note(format_args!("{call:?} number {at} on node {node} will fail, forever {forever}"));
    }

    fn fill_disk(&mut self, node: usize) {
        self.coverage.full_disks += 1;
        let room = self.random.below(100_000);
        let state = &mut self.nodes[node];
        state.disk.set_capacity(Some(state.disk.used_bytes() + room));
        state.hurt = true;
        state.failing = true;
        self.note(format_args!("the disk of node {node} has room for {room} bytes"));
    }

    pub(crate) fn heal(&mut self, node: usize) {
        self.nodes[node].heal();
        self.note(format_args!("node {node} has its disk back"));
    }

    /// A clean end of the process.
    pub(crate) fn stop(&mut self, node: usize) {
        if self.nodes[node].process.is_none() {
            return;
        }
        self.coverage.clean_stops += 1;
        self.note(format_args!("node {node} stops"));
        self.let_go(node);
        self.nodes[node].end();
    }

    /// What others hold on behalf of a node that ends.
    pub(crate) fn let_go(&mut self, node: usize) {
        self.cut_all_of(node);
        if let Some(Process::Primary(leading)) = &self.nodes[node].process {
            let db = leading.db.clone();
            // Within a step it may have told others of it already.
            self.oracle.leads_with(&db);
            if self.moves {
                // What it holds for those who lead after it.
                self.nodes[node].acknowledged = db.durable();
            }
        }
        let transfer = match &self.nodes[node].process {
            Some(Process::Secondary(following)) => following.transfer.as_ref(),
            _ => None,
        };
        let pinned = transfer.and_then(|transfer| Some((transfer.source, transfer.connection?)));
        if let Some((source, number)) = pinned
            && let Some(Process::Primary(leading)) = &mut self.nodes[source].process
        {
            leading.pins.remove(&number);
        }
    }

    /// The process dies, or the machine.
    pub(crate) fn crash(&mut self, node: usize) {
        let style = CrashStyle::ALL[self.random.below(3) as usize];
        let seed = self.random.number();
        self.coverage.crashes += 1;
        self.coverage.power_cuts += u64::from(style != CrashStyle::ProcessKill);
        self.let_go(node);
        self.oracle.died(node, style == CrashStyle::ProcessKill);
        self.nodes[node].lose(style, seed);
        self.note(format_args!("node {node} dies: {style:?}"));
    }

    fn wipe(&mut self, node: usize) {
        self.coverage.wiped += 1;
        self.let_go(node);
        let seed = self.random.number();
        self.nodes[node].wipe(seed);
        self.oracle.ended(node);
        self.note(format_args!("node {node} gets an empty disk"));
    }

    /// Deaths that were ordered, once they have come, and those that will not come any more.
    pub(crate) fn bury(&mut self) {
        for node in 0..NODES {
            if self.nodes[node].disk.has_crashed() {
                self.coverage.crashes_within_a_call += 1;
                self.crash(node);
            } else if self.nodes[node].doomed_for > 0 {
                self.nodes[node].doomed_for -= 1;
                if self.nodes[node].doomed_for == 0 {
                    self.nodes[node].disk.crash_at(u64::MAX);
                }
            }
        }
    }

    /// Starts a node that is down.
    pub(crate) fn start(&mut self, node: usize) -> Checked {
        if self.nodes[node].process.is_some() {
            return Ok(());
        }
        if self.faults && self.random.once_in(4) {
            let calls = 1 + self.random.below(30);
            let disk = &self.nodes[node].disk;
            disk.crash_at(disk.mutations() + calls);
            self.nodes[node].doomed_for = 20;
        }
        self.nodes[node].hurt = self.nodes[node].failing;
        let settles = self.planted.and_then(crate::Fault::engine) != Some(Planted::SkipSettle);
        let opened = match self.nodes[node].open(settles) {
            Ok(None) if self.nodes[node].made => {
                return self.check_refusal(node, "the directory is gone");
            }
            Ok(None) => Database::open_with(DIR, self.nodes[node].options(true)).map(Some),
            other => other,
        };
        let started = match opened {
            Ok(Some(db)) if self.leads_again(node, &db) => self.become_primary(node, db),
            // Its first process may have died before it was one.
            Ok(Some(db)) => match db.become_secondary(self.database) {
                Ok(()) => self.began_to_follow(node, db),
                Err(error) => self.check_refusal(node, &error.to_string()),
            },
            Ok(None) => Ok(()),
            Err(error) => self.check_refusal(node, &error.to_string()),
        };
        if self.nodes[node].disk.has_crashed() {
            self.coverage.crashes_while_opening += 1;
        }
        started
    }

    /// What a store refuses must have a reason in its disk.
    pub(crate) fn check_refusal(&mut self, node: usize, error: &str) -> Checked {
        self.note(format_args!("node {node} refuses: {error}"));
        let state = &self.nodes[node];
        if state.hurt || state.disk.has_crashed() {
            Ok(())
        } else {
            Err(format!("E5/E11: node {node} refuses: {error}"))
        }
    }

    pub(crate) fn become_primary(&mut self, node: usize, db: Database) -> Checked {
        if self.moves && !self.oracle.leads(node) {
            // It died after its promotion, and before anybody heard of that.
            self.finds_itself_promoted(node, &db)?;
        }
        let lost = self.oracle.restart(node, &db)?;
        if node == self.leader {
            self.holds_protected(&db).map_err(|what| format!("R7/E1: node {node} leads again: {what}"))?;
        }
        self.coverage.commits_lost += lost;
        // What a copy has beyond what the primary recovered is of another history.
        let end = db.log_end().0;
        self.told.values_mut().for_each(|told| *told = end.min(*told));
        self.absorb(node, &db)?;
        self.begin_to_lead(node, db, lost)
    }

    pub(crate) fn begin_to_lead(&mut self, node: usize, db: Database, lost: u64) -> Checked {
        let now = self.millis();
        match executor::lead(&db, self.protocol.clone(), self.terms_of_lead(node), now) {
            Ok(group) => {
                // The lead was written down.
                self.absorb(node, &db)?;
                let end = db.log_end().0;
                if group.0.epoch().order(&self.newest_led) == EpochOrder::Newer {
                    self.newest_led = group.0.epoch();
                }
                self.note(format_args!("node {node} leads as {} from {end}, {lost} lost", group.0.epoch()));
                match Leading::new(db, group) {
                    Ok(leading) => self.nodes[node].process = Some(Process::Primary(leading)),
                    Err(error) => return self.check_refusal(node, &error),
                }
                Ok(())
            }
            Err(error) => self.check_refusal(node, &error.to_string()),
        }
    }

    /// A copy was opened, or taken anew: what it acknowledged and promised before must be in it.
    pub(crate) fn became_secondary(&mut self, node: usize, db: Database, primary: usize) -> Checked {
        let (end, promised) = (db.log_end().0, db.promised());
        let before = self.nodes[node].instance.replace(db.instance());
        if before.is_some_and(|before| before != db.instance()) {
            // Run files took its place, perhaps within the call that the process died in. It counts for the one before from then on.
            let must_have = std::mem::take(&mut self.nodes[node].must_have);
            if end < must_have {
                return Err(format!(
                    "R6/E1: node {node} shared {must_have} with its primary, and was replaced by {end}"
                ));
            }
            self.copy_was_replaced(node);
        }
        let state = &mut self.nodes[node];
        state.made = true;
        if end < state.acknowledged {
            return Err(format!("R6/E1: node {node} acknowledged {}, has {end}", state.acknowledged));
        }
        if promised.order(&state.promised) == planaria_types::EpochOrder::Older {
            return Err(format!("R9: node {node} promised {}, now {promised}", state.promised));
        }
        state.promised = promised;
        state.mark_floor = db.mark_floor();
        let (now, protocol) = (self.millis(), self.protocol.clone());
        self.coverage.sparse_copies += u64::from(!db.sparse().is_empty());
        self.coverage.deltas_inherited += u64::from(db.kept_refresh().is_some());
        self.coverage.ranges_inherited += u64::from(db.kept_reconcile().is_some());
        self.nodes[node].follow(db, format!("node {node}"), primary, &protocol, now);
        self.note(format_args!("node {node} follows node {primary} from {end}"));
        Ok(())
    }
}
