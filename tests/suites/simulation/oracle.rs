//! What every position names, as the commits tell that were really made.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use bytes::Bytes;
use planaria_engine::{CommitOp, Database, Durability, Followed, LoggedCommit, RecordKind};
use planaria_types::{Epoch, Position, TableId, Uid};

use crate::world::Checked;

/// The live records of a state, each with the commit that wrote it.
pub(crate) type Content = BTreeMap<(TableId, Bytes), (Uid, Bytes)>;
/// What a commit does, in the order of its keys; `None` deletes.
pub(crate) type Ops = Vec<(TableId, Bytes, Option<Bytes>)>;

/// The commits of the group, and what they amount to.
#[derive(Default)]
pub(crate) struct Oracle {
    /// The content that each position names, of all histories that there ever were.
    named: HashMap<(Epoch, Uid), Rc<Content>>,
    /// The history of the primary that leads now: the epoch of each commit.
    line: BTreeMap<Uid, Epoch>,
    /// The highest UID that was ever drawn.
    drawn: Uid,
    /// What the primary last said to be durable.
    pub(crate) durable: Uid,
    /// The last commit that was acknowledged, at any level.
    pub(crate) acknowledged: Uid,
    /// The last commit that a writer was told of, at any level.
    written: Uid,
    /// What the next start must find whatever the level was: the process ended, the machine did not.
    survives: Uid,
    /// Batches that were given to a primary and are not known to be logged, by the number in their first row.
    submitted: HashMap<u64, Ops>,
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
        self.submitted.insert(number, ops);
    }

    /// A writer was told that its commit is done.
    pub(crate) fn wrote(&mut self, uid: Uid, durability: Durability) {
        self.written = uid;
        if durability == Durability::Synced {
            self.acknowledged = uid;
        }
    }

    /// The primary died; its machine lives on, or does not.
    pub(crate) fn died(&mut self, machine_lives: bool) {
        if !machine_lives {
            self.written = self.acknowledged;
        }
        self.survives = self.written;
    }

    /// The last commit of the line.
    pub(crate) fn end(&self) -> Uid {
        self.line.last_key_value().map_or(Uid::ZERO, |(uid, _)| *uid)
    }

    /// Whether the position lies on the line of the primary that leads now.
    pub(crate) fn is_on_line(&self, position: Position) -> bool {
        position.uid == Uid::ZERO || self.line.get(&position.uid) == Some(&position.epoch)
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
    pub(crate) fn restart(&mut self, db: &Database) -> Result<u64, String> {
        let end = db.log_end().0;
        let lost = self.line.split_off(&end.next());
        if end < self.acknowledged {
            return Err(format!("E1: {} was acknowledged, recovered is {end}", self.acknowledged));
        }
        if end < self.survives {
            return Err(format!(
                "E1: {} was written before the process died, recovered is {end}",
                self.survives
            ));
        }
        self.written = self.written.min(end);
        self.durable = self.durable.min(end);
        Ok(lost.len() as u64)
    }

    /// Takes in what is new in the log of the primary.
    pub(crate) fn absorb(&mut self, db: &Database) -> Result<Absorbed, String> {
        let mut absorbed = Absorbed::default();
        if db.log_end().0 == self.end() {
            return Ok(absorbed);
        }
        let mut follower = db.follow(self.end());
        loop {
            let commits = match follower.next(1 << 20).map_err(|error| error.to_string())? {
                Followed::Commits(commits) => commits,
                Followed::NotRetained => return Err("the harness missed commits".into()),
            };
            if commits.is_empty() {
                return Ok(absorbed);
            }
            for logged in &commits {
                self.append(db, logged, &mut absorbed)?;
            }
        }
    }

    fn append(&mut self, db: &Database, logged: &LoggedCommit, absorbed: &mut Absorbed) -> Checked {
        let (uid, end) = (logged.commit.uid(), self.end());
        if logged.commit.prev() != end || uid <= end {
            return Err(format!("R2: commit {uid} names {}, before it comes {end}", logged.commit.prev()));
        }
        if uid <= self.drawn {
            return Err(format!("E15: {uid} was drawn again, {} was drawn before", self.drawn));
        }
        self.drawn = uid;
        let before = self.line.last_key_value().map(|(uid, epoch)| Position { epoch: *epoch, uid: *uid });
        let before = self.content(before.unwrap_or_default()).ok_or("the line has a gap")?;
        let ops: Vec<CommitOp<'_>> = logged.commit.ops().collect();
        self.recognise(&ops, uid, absorbed)?;
        let mut content = Content::clone(&before);
        for op in ops {
            let place = (op.table, Bytes::copy_from_slice(op.key));
            match op.kind {
                RecordKind::Put => content.insert(place, (uid, Bytes::copy_from_slice(op.row))),
                _ => content.remove(&place),
            };
        }
        let epoch = db.history().epoch_of(uid);
        self.line.insert(uid, epoch);
        if self.named.insert((epoch, uid), Rc::new(content)).is_some() {
            return Err(format!("R1: {uid} of {epoch} names two contents"));
        }
        Ok(())
    }

    /// Every commit is one that was asked for, whole, or one that the store makes by itself.
    fn recognise(&mut self, ops: &[CommitOp<'_>], uid: Uid, absorbed: &mut Absorbed) -> Checked {
        if ops.iter().all(|op| op.table == TableId::SYSTEM) {
            absorbed.own += 1;
            absorbed.splits += u64::from(ops.len() == 1 && ops[0].row.len() == 8);
            return Ok(());
        }
        absorbed.commits += 1;
        let number =
            ops.iter().find_map(|op| op.row.first_chunk::<8>()).map(|head| u64::from_le_bytes(*head));
        let asked = number.and_then(|number| self.submitted.remove(&number));
        let made: Ops = ops
            .iter()
            .map(|op| {
                let row = (op.kind == RecordKind::Put).then(|| Bytes::copy_from_slice(op.row));
                (op.table, Bytes::copy_from_slice(op.key), row)
            })
            .collect();
        if asked.as_ref() == Some(&made) {
            Ok(())
        } else {
            Err(format!("E3/E4: commit {uid} is not what was written"))
        }
    }
}
