use std::sync::Arc;

use planaria_types::{Position, Uid};

use super::copy::{CopyId, CopyState, Registration, Role, Stage};
use super::ledger::{Changes, KeySet};
use super::op::{Op, Outcome, Planted, Refused};
use super::{Key, Model};

impl Model {
    /// Takes one step. A refused step changes nothing.
    pub fn apply(&mut self, op: &Op) -> Result<Outcome, Refused> {
        match *op {
            Op::Commit { at, changes } => self.commit(at, changes),
            Op::Sync { at } => self.sync(at),
            Op::Crash { at } => self.crash(at),
            Op::Flush { at } => self.flush(at),
            Op::Merge { at, lower, upper } => self.merge(at, usize::from(lower), usize::from(upper)),
            Op::Pin { at } => self.pin(at),
            Op::Unpin { at } => self.unpin(at),
            Op::Connect { copy, to } => self.connect(copy, to),
            Op::Disconnect { copy } => self.disconnect(copy),
            Op::Deliver { copy } => self.deliver(copy),
            Op::Chunk { copy } => self.chunk(copy),
            Op::Install { copy } => self.install(copy),
            Op::Promote { copy } => self.promote(copy),
            Op::Leave { at, copy } => self.leave(at, copy),
            Op::GiveUp { at, copy } => self.give_up(at, copy),
        }
    }

    /// The steps that are possible now and change something, with commits of one key, and one that puts the first and
    /// deletes the last.
    pub fn enabled_ops(&self) -> Vec<Op> {
        let mut ops = self.candidates();
        ops.retain(|op| self.clone().apply(op).is_ok());
        ops
    }

    /// All steps that are worth trying in this state.
    pub(crate) fn candidates(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        let mut menu: Vec<Changes> =
            self.keys().flat_map(|key| [Changes::put(key), Changes::delete(key)]).collect();
        if let Some(last) = self.keys().last().filter(|last| *last > Key(0)) {
            menu.push(Changes { puts: KeySet::of(Key(0)), deletes: KeySet::of(last) });
        }
        for (at, copy) in self.ids().zip(&self.copies) {
            if copy.role == Role::Primary {
                ops.extend(menu.iter().map(|changes| Op::Commit { at, changes: *changes }));
            }
            ops.extend([
                Op::Sync { at },
                Op::Crash { at },
                Op::Flush { at },
                Op::Pin { at },
                Op::Unpin { at },
            ]);
            let pairs = copy.stack.neighbours().into_iter();
            ops.extend(pairs.map(|(lower, upper)| Op::Merge { at, lower: lower as u8, upper: upper as u8 }));
            ops.extend([Op::Deliver { copy: at }, Op::Chunk { copy: at }, Op::Install { copy: at }]);
            ops.extend([Op::Disconnect { copy: at }, Op::Promote { copy: at }]);
            for other in self.ids().filter(|other| *other != at) {
                ops.push(Op::Connect { copy: at, to: other });
                ops.extend([Op::Leave { at, copy: other }, Op::GiveUp { at, copy: other }]);
            }
        }
        ops
    }

    fn primary(&self, at: CopyId) -> Result<&CopyState, Refused> {
        let copy = self.copy(at)?;
        if copy.role == Role::Primary { Ok(copy) } else { Err(Refused::NotPrimary) }
    }

    fn commit(&mut self, at: CopyId, changes: Changes) -> Result<Outcome, Refused> {
        let primary = self.primary(at)?;
        if !changes.is_normalised(self.keys) {
            return Err(Refused::NotNormalised);
        }
        let (restarted, last) = (primary.restarted, primary.accepted);
        if restarted && !self.has(Planted::ReuseUid) {
            let epoch = self.fresh_epoch(last.term, last.incarnation + 1);
            let ledger = Arc::clone(&self.ledger);
            self.copy_mut(at)?.open_epoch(epoch, &ledger);
        }
        let primary = self.copy(at)?;
        let (uid, predecessor) = (self.next_uid(primary), primary.end());
        let position = Position { epoch: primary.accepted, uid };
        let commit = Arc::make_mut(&mut self.ledger).write(position, predecessor, changes);
        let primary = self.copy_mut(at)?;
        primary.log.push(commit);
        primary.drawn = uid;
        primary.visible = uid;
        Ok(Outcome::Committed(position))
    }

    fn sync(&mut self, at: CopyId) -> Result<Outcome, Refused> {
        let copy = self.copy_mut(at)?;
        let synced = copy.durable < copy.appended();
        copy.durable = copy.appended();
        let told = self.acknowledge(at)?;
        if synced || told { Ok(Outcome::Done) } else { Err(Refused::NothingToDo) }
    }

    /// A secondary tells its primary what it has durable, of what the primary has durable too. It joins the promotable
    /// set when it has reached the tail.
    fn acknowledge(&mut self, at: CopyId) -> Result<bool, Refused> {
        let copy = self.copy(at)?;
        let Some(session) = copy.session.as_ref().filter(|session| session.stage == Stage::Live) else {
            return Ok(false);
        };
        let (primary, appended) = (session.primary, copy.appended());
        let durable = copy.durable.min(copy.primary_durable);
        let primary = self.copy_mut(primary)?;
        let at_tail = appended == primary.appended();
        let Some(entry) = primary.registered.get_mut(usize::from(at.0)) else {
            return Ok(false);
        };
        let known = entry.is_some_and(|registration| registration.promotable);
        let told = Registration { durable, promotable: known || at_tail };
        Ok(entry.replace(told) != Some(told))
    }

    fn crash(&mut self, at: CopyId) -> Result<Outcome, Refused> {
        let torn = self.has(Planted::KeepTornCommit);
        let copy = self.copy_mut(at)?;
        if copy.durable == copy.appended() && copy.session.is_none() && copy.role == Role::Secondary {
            return Err(Refused::NothingToDo);
        }
        let lost = copy.log.iter().find(|commit| commit.uid() > copy.durable).cloned();
        copy.lose_unsynced();
        if let Some(lost) = lost.filter(|_| torn) {
            let mut half = lost.as_ref().clone();
            half.changes.deletes = KeySet::EMPTY;
            copy.log.push(Arc::new(half));
            copy.durable = lost.uid();
            copy.visible = if copy.role == Role::Primary { lost.uid() } else { copy.visible };
        }
        self.hang_up(at);
        Ok(Outcome::Done)
    }

    fn flush(&mut self, at: CopyId) -> Result<Outcome, Refused> {
        let (keys, overlapping) = (self.keys, self.has(Planted::FlushOverlapping));
        let copy = self.copy_mut(at)?;
        if copy.durable <= copy.base {
            return Err(Refused::NothingToDo);
        }
        if overlapping && copy.base > Uid::ZERO {
            copy.base = copy.base.prev();
        }
        copy.flush(copy.durable, keys);
        Ok(Outcome::Done)
    }

    fn merge(&mut self, at: CopyId, lower: usize, upper: usize) -> Result<Outcome, Refused> {
        let mut retention = self.copy(at)?.retention();
        match self.planted {
            Some(Planted::DropMarksEarly) => retention.marks = Uid::MAX,
            Some(Planted::DropVersionsEarly) => {
                retention.stable = Uid::MAX;
                retention.snapshots.clear();
            }
            Some(Planted::MergeAcrossGap) => retention.forget_gaps = true,
            _ => {}
        }
        let copy = self.copy_mut(at)?;
        let dropped = copy.stack.merge(lower, upper, &retention).ok_or(Refused::NothingToDo)?;
        copy.version_floor = copy.version_floor.max(dropped.version_successor);
        copy.mark_floor = copy.mark_floor.max(dropped.mark);
        Ok(Outcome::Done)
    }

    fn pin(&mut self, at: CopyId) -> Result<Outcome, Refused> {
        let copy = self.copy_mut(at)?;
        if copy.snapshots.contains(&copy.visible) {
            return Err(Refused::NothingToDo);
        }
        copy.snapshots.push(copy.visible);
        Ok(Outcome::Done)
    }

    fn unpin(&mut self, at: CopyId) -> Result<Outcome, Refused> {
        let copy = self.copy_mut(at)?;
        if copy.snapshots.is_empty() {
            return Err(Refused::NothingToDo);
        }
        copy.snapshots.clear();
        Ok(Outcome::Done)
    }

    fn disconnect(&mut self, id: CopyId) -> Result<Outcome, Refused> {
        self.copy_mut(id)?.session.take().ok_or(Refused::NotConnected)?;
        Ok(Outcome::Done)
    }

    fn deliver(&mut self, id: CopyId) -> Result<Outcome, Refused> {
        let copy = self.copy(id)?;
        let session = copy.session.as_ref().ok_or(Refused::NotConnected)?;
        let primary = self.copy(session.primary)?;
        let after = copy.refresh().map_or(copy.end(), super::Refresh::passed);
        let mut next = self.ledger.follower(after, primary.end()).cloned();
        if self.has(Planted::IgnorePredecessor) && copy.refresh().is_none() {
            next = primary.log.last().filter(|last| last.uid() > after.uid).cloned();
        }
        if copy.refresh().is_some() {
            let next = next.ok_or(Refused::NothingToDo)?;
            self.copy_mut(id)?.refresh_mut().ok_or(Refused::NotConnected)?.live.push(next);
            return Ok(Outcome::Done);
        }
        let (durable, registered) = (primary.durable, primary.registered.clone());
        if next.is_none()
            && copy.primary_durable == durable.min(copy.appended())
            && copy.registered == registered
        {
            return Err(Refused::NothingToDo);
        }
        let (history, accepted) = (primary.history.clone(), primary.accepted);
        let careless = self.has(Planted::ShowBeyondDurable);
        let copy = self.copy_mut(id)?;
        if let Some(commit) = next {
            copy.adopt(&history, commit.uid());
            copy.accepted = accepted;
            copy.log.push(commit);
        }
        copy.primary_durable = durable.min(copy.appended());
        copy.registered = registered;
        copy.visible = copy.visible.max(if careless { copy.appended() } else { copy.primary_durable });
        Ok(Outcome::Done)
    }

    fn promote(&mut self, id: CopyId) -> Result<Outcome, Refused> {
        let copy = self.copy(id)?;
        if copy.refresh().is_some() {
            return Err(Refused::NotComplete);
        }
        if self.ruling() == Some(id) {
            return Err(Refused::NothingToDo);
        }
        // The operator, or the control center, hears the nodes before it grants a term.
        let term = self.copies.iter().map(|copy| copy.accepted.term).max().unwrap_or_default() + 1;
        let epoch = self.fresh_epoch(term, 0);
        let ledger = Arc::clone(&self.ledger);
        self.hang_up(id);
        let copy = self.copy_mut(id)?;
        let deposed = copy.follows.take().filter(|_| copy.role == Role::Secondary);
        copy.session = None;
        copy.role = Role::Primary;
        copy.durable = copy.appended();
        copy.visible = copy.durable;
        copy.open_epoch(epoch, &ledger);
        let (inherited, known) = (copy.durable, copy.primary_durable);
        for registration in copy.registered.iter_mut().flatten() {
            registration.durable = registration.durable.min(inherited);
        }
        if let Some(entry) = deposed.and_then(|old| copy.registered.get_mut(usize::from(old.0))) {
            *entry = Some(Registration { durable: known.min(inherited), promotable: true });
        }
        if let Some(own) = copy.registered.get_mut(usize::from(id.0)) {
            *own = None;
        }
        copy.primary_durable = Uid::ZERO;
        Ok(Outcome::Done)
    }

    fn absent(&self, at: CopyId, copy: CopyId) -> Result<(), Refused> {
        self.primary(at)?;
        let here = self.copy(copy)?.session.as_ref().is_some_and(|session| session.primary == at);
        if here { Err(Refused::Connected) } else { Ok(()) }
    }

    fn leave(&mut self, at: CopyId, copy: CopyId) -> Result<Outcome, Refused> {
        self.absent(at, copy)?;
        let entry = self.copy_mut(at)?.registered.get_mut(usize::from(copy.0));
        let member = entry.and_then(Option::as_mut).filter(|registration| registration.promotable);
        member.ok_or(Refused::NothingToDo)?.promotable = false;
        Ok(Outcome::Done)
    }

    fn give_up(&mut self, at: CopyId, copy: CopyId) -> Result<Outcome, Refused> {
        self.absent(at, copy)?;
        let entry = self.copy_mut(at)?.registered.get_mut(usize::from(copy.0));
        entry.and_then(Option::take).ok_or(Refused::NothingToDo)?;
        Ok(Outcome::Done)
    }
}
