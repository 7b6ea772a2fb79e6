//! What every position names, as the commits tell that were really made.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use bytes::Bytes;
use planaria_engine::{CommitOp, Database, Durability, Followed, LoggedCommit, RecordKind};
use planaria_types::{Epoch, Position, TableId, Uid};

use crate::world::{Checked, NODES};

/// The live records of a state, each with the commit that wrote it.
pub(crate) type Content = BTreeMap<(TableId, Bytes), (Uid, Bytes)>;
/// What a commit does, in the order of its keys; `None` deletes.
pub(crate) type Ops = Vec<(TableId, Bytes, Option<Bytes>)>;

/// The commits of the group, and what they amount to.
#[derive(Default)]
pub(crate) struct Oracle {
    /// The content that each position names, of all histories that there ever were.
    named: HashMap<(Epoch, Uid), Rc<Content>>,
    /// The highest UID of each epoch that was durable on a primary.
    durable: HashMap<Epoch, Uid>,
    /// What each node has done as a primary.
    reigns: [Reign; NODES],
    /// Batches that were given to a primary, by the number in their first row, and where they were committed.
    asked: HashMap<u64, (Ops, Vec<Position>)>,
    /// The last position of each epoch that was acknowledged at a protected level.
    protected: Vec<Position>,
    /// The batches that were.
    settled: Vec<u64>,
    /// Batches are given under a token, so that the same one may come again.
    pub(crate) again: bool,
}

/// What a node has done as a primary, since it was made one.
#[derive(Default)]
struct Reign {
    leads: bool,
    /// Its history: the epoch of each commit.
    line: BTreeMap<Uid, Epoch>,
    /// The highest UID that it drew.
    drawn: Uid,
    /// The last commit that was acknowledged, at any level.
    acknowledged: Uid,
    /// The last commit that a writer was told of, at any level.
    written: Uid,
    /// What the next start must find whatever the level was: the process ended, the machine did not.
    survives: Uid,
}

impl Reign {
    fn end(&self) -> Uid {
        self.line.last_key_value().map_or(Uid::ZERO, |(uid, _)| *uid)
    }
}

/// What was new in a primary's log.
#[derive(Default)]
pub(crate) struct Absorbed {
    /// Batches of the workload.
    pub(crate) commits: u64,
    /// Commits that the store made itself.
    pub(crate) own: u64,
    /// Fragments that began.
    pub(crate) splits: u64,
}

impl Oracle {
    pub(crate) fn submit(&mut self, number: u64, ops: Ops) {
        self.asked.entry(number).or_insert((ops, Vec::new()));
    }

    /// A writer was told that its commit is done.
    pub(crate) fn wrote(&mut self, node: usize, uid: Uid, durability: Durability) {
        let reign = &mut self.reigns[node];
        reign.written = uid;
        if durability == Durability::Synced {
            reign.acknowledged = uid;
        }
    }

    /// A writer was told that its commit is on so many copies.
    pub(crate) fn acknowledged(&mut self, node: usize, uid: Uid) {
        let reign = &mut self.reigns[node];
        reign.acknowledged = reign.acknowledged.max(uid);
    }

    /// A primary has told that this is durable there.
    pub(crate) fn note_durable(&mut self, position: Position) {
        let durable = self.durable.entry(position.epoch).or_default();
        *durable = position.uid.max(*durable);
    }

    /// What a primary has durable now, and what its epoch inherited, which may have begun within a step.
    pub(crate) fn leads_with(&mut self, db: &Database) {
        let history = db.history();
        let inherited = history.entries().last().map_or(Uid::ZERO, |entry| entry.inherited);
        for uid in [inherited, db.durable()] {
            self.note_durable(history.position_of(uid));
        }
    }

    /// Whether a position was durable on a primary.
    pub(crate) fn is_durable(&self, position: Position) -> bool {
        self.durable.get(&position.epoch).copied().unwrap_or_default() >= position.uid
    }

    /// A node died; its machine lives on, or does not.
    pub(crate) fn died(&mut self, node: usize, machine_lives: bool) {
        let reign = &mut self.reigns[node];
        if !machine_lives {
            reign.written = reign.acknowledged;
        }
        reign.survives = reign.written;
    }

    /// Whether a node leads, or did when it was seen last.
    pub(crate) fn leads(&self, node: usize) -> bool {
        self.reigns[node].leads
    }

    /// The first primary of all begins.
    pub(crate) fn begins(&mut self, node: usize) {
        self.reigns[node].leads = true;
    }

    /// A batch was acknowledged at a protected level.
    pub(crate) fn protect(&mut self, number: u64, position: Position) {
        self.settled.push(number);
        match self.protected.iter_mut().find(|last| last.epoch == position.epoch) {
            Some(last) => last.uid = position.uid.max(last.uid),
            None => self.protected.push(position),
        }
    }

    pub(crate) fn protected(&self) -> impl Iterator<Item = &Position> {
        self.protected.iter()
    }

    pub(crate) fn settled(&self) -> impl Iterator<Item = u64> {
        self.settled.iter().copied()
    }

    /// A node leads no more: another one decides what stays of its commits.
    pub(crate) fn ended(&mut self, node: usize) {
        self.reigns[node] = Reign::default();
    }

    /// A node was promoted: its history is what it inherits, all of it durable.
    pub(crate) fn promoted(&mut self, node: usize, db: &Database) {
        let (history, end) = (db.history(), db.log_end().0);
        let lies_there =
            |(epoch, uid): &(Epoch, Uid)| *uid <= end && history.position_of(*uid).epoch == *epoch;
        let line = self.named.keys().filter(|at| lies_there(at)).map(|(epoch, uid)| (*uid, *epoch)).collect();
        self.note_durable(history.position_of(end));
        self.reigns[node] =
            Reign { leads: true, line, drawn: end, acknowledged: end, written: end, survives: end };
    }

    /// Whether a batch was committed where a position on this history says so, and how often it was on this history.
    pub(crate) fn times(&self, number: u64, db: &Database) -> usize {
        let (history, end) = (db.history(), db.log_end().0);
        let lies_there = |at: &&Position| at.uid <= end && history.position_of(at.uid) == **at;
        self.asked.get(&number).map_or(0, |(_, made)| made.iter().filter(lies_there).count())
    }

    /// Whether a batch was committed at a position.
    pub(crate) fn was_made_at(&self, number: u64, position: Position) -> bool {
        self.asked.get(&number).is_some_and(|(_, made)| made.contains(&position))
    }

    /// The content that a position names.
    pub(crate) fn content(&self, position: Position) -> Option<Rc<Content>> {
        if position.uid == Uid::ZERO {
            return Some(Rc::default());
        }
        self.named.get(&(position.epoch, position.uid)).cloned()
    }

    /// A primary has started: what is not in its log any more is lost, which nobody may have been promised. How many commits
    /// are.
    pub(crate) fn restart(&mut self, node: usize, db: &Database) -> Result<u64, String> {
        let end = db.log_end().0;
        let reign = &mut self.reigns[node];
        if !reign.leads {
            return Ok(0);
        }
        let lost = reign.line.split_off(&end.next());
        if end < reign.acknowledged {
            return Err(format!("E1: {} was acknowledged, recovered is {end}", reign.acknowledged));
        }
        if end < reign.survives {
            return Err(format!(
                "E1: {} was written before the process died, recovered is {end}",
                reign.survives
            ));
        }
        reign.written = reign.written.min(end);
        self.note_durable(db.history().position_of(end));
        Ok(lost.len() as u64)
    }

    /// Takes in what is new in the log of a primary; else what is wrong with it, or why it cannot be read.
    pub(crate) fn absorb(
        &mut self,
        node: usize,
        db: &Database,
    ) -> Result<Absorbed, Result<String, planaria_engine::Error>> {
        let mut absorbed = Absorbed::default();
        if db.log_end().0 == self.reigns[node].end() {
            return Ok(absorbed);
        }
        let mut follower = db.follow(self.reigns[node].end());
        loop {
            let commits = match follower.next(1 << 20).map_err(Err)? {
                Followed::Commits(commits) => commits,
                Followed::NotRetained => return Err(Ok("the harness missed commits".into())),
            };
            if commits.is_empty() {
                return Ok(absorbed);
            }
            for logged in &commits {
                self.append(node, db, logged, &mut absorbed).map_err(Ok)?;
            }
        }
    }

    fn append(
        &mut self,
        node: usize,
        db: &Database,
        logged: &LoggedCommit,
        absorbed: &mut Absorbed,
    ) -> Checked {
        let reign = &mut self.reigns[node];
        let (uid, end) = (logged.commit.uid(), reign.end());
        if logged.commit.prev() != end || uid <= end {
            return Err(format!("R2: commit {uid} names {}, before it comes {end}", logged.commit.prev()));
        }
        if uid <= reign.drawn {
            return Err(format!("E15: {uid} was drawn again, {} was drawn before", reign.drawn));
        }
        reign.drawn = uid;
        let before = reign.line.last_key_value().map(|(uid, epoch)| Position { epoch: *epoch, uid: *uid });
        let before = self.content(before.unwrap_or_default()).ok_or("the line has a gap")?;
        let ops: Vec<CommitOp<'_>> = logged.commit.ops().collect();
        self.recognise(&ops, db, uid, absorbed)?;
        let mut content = Content::clone(&before);
        for op in ops {
            let place = (op.table, Bytes::copy_from_slice(op.key));
            match op.kind {
                RecordKind::Put => content.insert(place, (uid, Bytes::copy_from_slice(op.row))),
                _ => content.remove(&place),
            };
        }
        let epoch = db.history().epoch_of(uid);
        self.reigns[node].line.insert(uid, epoch);
        if self.named.insert((epoch, uid), Rc::new(content)).is_some() {
            return Err(format!("R1: {uid} of {epoch} names two contents"));
        }
        Ok(())
    }

    /// Every commit is one that was asked for, whole, or one that the store makes by itself.
    fn recognise(
        &mut self,
        ops: &[CommitOp<'_>],
        db: &Database,
        uid: Uid,
        absorbed: &mut Absorbed,
    ) -> Checked {
        if ops.iter().all(|op| op.table == TableId::SYSTEM) {
            absorbed.own += 1;
            absorbed.splits += u64::from(ops.len() == 1 && ops[0].row.len() == 8);
            return Ok(());
        }
        absorbed.commits += 1;
        // Tokens are beside what was asked for.
        let ops: Vec<_> = ops.iter().filter(|op| op.table != TableId::SYSTEM).collect();
        let number =
            ops.iter().find_map(|op| op.row.first_chunk::<8>()).map(|head| u64::from_le_bytes(*head));
        let made: Ops = ops
            .iter()
            .map(|op| {
                let row = (op.kind == RecordKind::Put).then(|| Bytes::copy_from_slice(op.row));
                (op.table, Bytes::copy_from_slice(op.key), row)
            })
            .collect();
        let Some(number) =
            number.filter(|number| self.asked.get(number).is_some_and(|asked| asked.0 == made))
        else {
            return Err(format!("E3/E4: commit {uid} is not what was written"));
        };
        let before = self.times(number, db);
        let known = self.asked.get(&number).map_or(0, |(_, made)| made.len());
        if before > 0 || known > 0 && !self.again {
            return Err(format!("R19: batch {number} is committed again, at {uid}"));
        }
        let position = db.history().position_of(uid);
        if let Some((_, made)) = self.asked.get_mut(&number) {
            made.push(position);
        }
        Ok(())
    }
}
