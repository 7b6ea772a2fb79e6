//! What must hold after every step.

use planaria_replication::ack::Level;
use planaria_replication::primary::Group;
use planaria_replication::secondary::{Replica, State};
use planaria_types::{Position, Uid};

use crate::store::Content;
use crate::world::{Checked, NODES, Role, World, id};

impl World {
    pub(crate) fn position(&self, node: usize, uid: Uid) -> Position {
        self.nodes[node].store.history.position_of(uid)
    }

    pub(crate) fn check(&self, node: usize) -> Checked {
        let store = &self.nodes[node].store;
        if store.visible > Uid::ZERO {
            let position = self.position(node, store.visible);
            let expected = self.truth.get(&(position.epoch, position.uid));
            let as_expected = |expected: &Content| {
                store.live(store.visible).eq(expected.iter().map(|(key, value)| (*key, *value)))
            };
            if !expected.is_some_and(as_expected) {
                let shown = store.content(store.visible);
                let what = format!("node {node} at {position} shows {shown:?}, which is {expected:?}");
                return Err(format!("R1/R4/R15/R16/R21: {what}"));
            }
        }
        match &self.nodes[node].role {
            Role::Down => Ok(()),
            Role::Secondary { replica, .. } => self.check_secondary(node, replica),
            Role::Primary { group, .. } => {
                let partial = (0..NODES).find(|other| self.is_partial(*other)).map(id);
                if partial.is_some_and(|partial| group.promotable().contains(&partial)) {
                    return Err(format!("R8: node {node} counts on a partial copy"));
                }
                self.check_levels(node, group)
            }
        }
    }

    pub(crate) fn check_secondary(&self, node: usize, replica: &Replica) -> Checked {
        let status = replica.status();
        let leader = &self.nodes[self.leader];
        let Role::Primary { group, .. } = &leader.role else {
            return Ok(());
        };
        if status.state == State::Online && group.epoch() == status.epoch {
            let visible = self.nodes[node].store.visible;
            let (ours, theirs) = (self.position(node, visible), self.position(self.leader, visible));
            if ours != theirs || visible > leader.store.synced {
                return Err(format!("R5: node {node} is online at {ours}, its primary has {theirs}"));
            }
        }
        Ok(())
    }

    /// Remembers what a protected level acknowledged. A primary that was replaced acknowledges nothing that the one in
    /// its place does not have.
    pub(crate) fn note_protected(&mut self, node: usize) -> Checked {
        let Role::Primary { group, .. } = &self.nodes[node].role else { return Ok(()) };
        let levels = [Level::One, Level::Quorum, Level::All].into_iter();
        let others = group.promotable().len();
        let protected = levels.filter(|level| level.copies_of(others + 1) > 1);
        let Some(uid) = protected.filter_map(|level| group.acknowledged(level)).max() else { return Ok(()) };
        if uid == Uid::ZERO {
            return Ok(());
        }
        let epoch = self.position(node, uid).epoch;
        let key = (epoch.term, epoch.incarnation, epoch.nonce);
        let replaced = self.careful && node != self.leader;
        let known = self.protected.entry(key).or_default();
        if *known >= uid {
            return Ok(());
        }
        *known = uid;
        self.coverage.protected += 1;
        let leader = self.leader;
        if replaced && !matches!(self.nodes[leader].role, Role::Down) && !self.holds(leader, key, uid) {
            return Err(format!(
                "C1: node {node} acknowledges {uid} of {epoch} after node {leader} took its place"
            ));
        }
        Ok(())
    }

    /// What a level acknowledged is durable on as many promotable copies, under the same history.
    pub(crate) fn check_levels(&self, node: usize, group: &Group) -> Checked {
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
