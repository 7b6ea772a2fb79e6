//! What must survive whoever leads: commits that a protected level acknowledged, each once, and what was shown and goes.

use planaria_engine::{Database, Written};
use planaria_replication::ack::Level;
use planaria_replication::secondary::Action;
use planaria_types::{EpochOrder, Position, Uid};

use crate::leading::Waiting;
use crate::workload::Write;
use crate::world::{Checked, NODES, World};

/// Writers who come again, at most.
const UNSETTLED_MAX: usize = 30;

impl World {
    /// A client writes under a token, once more if it was not told that its batch is done; not all know who leads.
    pub(crate) fn write_once(&mut self) -> Checked {
        let comes_again = !self.unsettled.is_empty() && self.random.once_in(3);
        let write = if comes_again {
            self.unsettled[self.random.below(self.unsettled.len() as u64) as usize].clone()
        } else {
            self.numbers += 1;
            let write = Write::draw(&mut self.random, self.numbers, self.synced_one_in);
            self.unsettled.push(write.clone());
            if self.unsettled.len() > UNSETTLED_MAX {
                self.unsettled.remove(0);
            }
            write
        };
        let level = if self.random.once_in(2) { Level::One } else { Level::Quorum };
        let strays = self.random.once_in(4);
        let node = if strays { self.random.below(NODES as u64) as usize } else { self.leader };
        if self.is_paused(node) {
            return Ok(());
        }
        let Some(leading) = self.leading(node) else { return Ok(()) };
        let db = leading.db.clone();
        self.oracle.submit(write.number, write.ops.clone());
        match db.write_once(write.batch(), u128::from(write.number), write.durability) {
            Ok(written) => {
                self.moved.retried += u64::from(comes_again);
                self.note(format_args!("node {node} commits batch {} as {written:?}", write.number));
                self.was_written(node, &db, &write, written, level)
            }
            // Deposed, or its lead is handed over.
            Err(_) if db.is_gated() => Ok(()),
            Err(error) => self.check_refusal(node, &error.to_string()),
        }
    }

    fn was_written(
        &mut self,
        node: usize,
        db: &Database,
        write: &Write,
        written: Written,
        level: Level,
    ) -> Checked {
        let Written { uid, again } = written;
        if !again {
            self.oracle.wrote(node, uid, write.durability);
            self.moved.stray_commits += u64::from(node != self.leader);
        }
        if let Some(leading) = self.leading(node) {
            leading.waiting.push(Waiting { uid, level, number: write.number });
        }
        self.absorb(node, db)?;
        if again {
            self.moved.known_by_token += 1;
            let position = db.history().position_of(uid);
            if !self.oracle.was_made_at(write.number, position) && !self.nodes[node].hurt {
                return Err(format!(
                    "R19: batch {} is said to be {position:?}, which is another",
                    write.number
                ));
            }
        }
        Ok(())
    }

    /// Writers were told that their commits are on several copies: no promotion may lose them.
    pub(crate) fn note_protected(&mut self, node: usize, done: &[Waiting]) -> Checked {
        let Some(db) = self.nodes[node].database().cloned() else { return Ok(()) };
        for waiting in done {
            self.moved.protected += 1;
            self.unsettled.retain(|write| write.number != waiting.number);
            self.oracle.protect(waiting.number, db.history().position_of(waiting.uid));
        }
        match self.nodes[self.leader].database() {
            Some(leader) if node != self.leader => self
                .holds_protected(leader)
                .map_err(|what| format!("C1: node {node} acknowledges after it was replaced: {what}")),
            _ => Ok(()),
        }
    }

    pub(crate) fn holds_protected(&self, db: &Database) -> Checked {
        let (history, end) = (db.history(), db.log_end().0);
        let is_there = |at: &Position| at.uid <= end && history.position_of(at.uid) == *at;
        match self.oracle.protected().find(|at| !is_there(at)) {
            Some(lost) => Err(format!("{lost:?} was acknowledged at a protected level, and is not there")),
            None => Ok(()),
        }
    }

    /// A node was promoted: it has all that a protected level acknowledged.
    pub(crate) fn was_promoted(&mut self, node: usize, db: &Database) -> Checked {
        self.leader = node;
        self.begins_reign(node, db);
        self.holds_protected(db).map_err(|what| format!("R7: node {node} is to lead: {what}"))
    }

    /// A node that died after its promotion, and before anybody heard of that, starts again. Where another one has led under a
    /// newer epoch meanwhile, it is over: it lacks what that one acknowledged, and finds nobody who acknowledges to it.
    pub(crate) fn finds_itself_promoted(&mut self, node: usize, db: &Database) -> Checked {
        if db.epoch().order(&self.newest_led) == EpochOrder::Older {
            self.begins_reign(node, db);
            return Ok(());
        }
        self.was_promoted(node, db)
    }

    fn begins_reign(&mut self, node: usize, db: &Database) {
        self.oracle.promoted(node, db);
        let state = &mut self.nodes[node];
        (state.acknowledged, state.greeted, state.shown) = (db.log_end().0, Uid::ZERO, Uid::ZERO);
        state.promised = db.promised();
        state.mark_floor = db.mark_floor();
    }

    /// In the end the one that leads has everything that was acknowledged at a protected level, each batch once.
    pub(crate) fn check_protected(&self, node: usize) -> Checked {
        let Some(db) = self.nodes[node].database() else { return Ok(()) };
        self.holds_protected(db).map_err(|what| format!("R7: node {node} leads in the end: {what}"))?;
        match self.oracle.settled().find(|number| self.oracle.times(*number, db) != 1) {
            Some(number) => Err(format!("R19: batch {number} was acknowledged, and is not there once")),
            None => Ok(()),
        }
    }

    /// Where a copy forks off from what it held, if an action takes something back. What was shown must be kept by then.
    pub(crate) fn kept_by(&mut self, node: usize, action: &Action) -> Result<Option<Uid>, String> {
        let fork = match action {
            _ if !self.moves => return Ok(None),
            Action::TakeBack(fork, _) => fork.uid,
            Action::Install(install) => install.sparse_from,
            Action::BeginRefresh { rewind, .. } => {
                self.moved.rewinds += u64::from(*rewind);
                return Ok(None);
            }
            Action::Quarantine { .. } => {
                self.moved.quarantines += 1;
                return Ok(None);
            }
            _ => return Ok(None),
        };
        let Some(db) = self.nodes[node].database().cloned() else { return Ok(None) };
        let visible = db.visible();
        if visible <= fork {
            return Ok(Some(fork));
        }
        self.moved.taken_back += 1;
        let kept = match db.extracts() {
            Ok(extracts) => {
                extracts.iter().any(|file| file.extract.above <= fork && file.extract.through >= visible)
            }
            Err(error) => return self.check_refusal(node, &error.to_string()).map(|()| Some(fork)),
        };
        if !kept {
            return Err(format!(
                "R10: node {node} showed ({fork}, {visible}], which goes without quarantine"
            ));
        }
        Ok(Some(fork))
    }

    /// What a copy took back it neither shows nor has acknowledged any more.
    pub(crate) fn was_taken_back(&mut self, node: usize, fork: Option<Uid>) {
        let Some(fork) = fork else { return };
        let state = &mut self.nodes[node];
        state.acknowledged = state.acknowledged.min(fork);
        state.greeted = state.greeted.min(fork);
        state.shown = state.shown.min(fork);
    }
}
