//! Copies that are gone for good because another one has taken their place in their directory.
//!
//! A copy that takes run files anew is another instance afterwards. It has at least what the one before had acknowledged
//! and promised, so until the promotable set names it, it counts for the one before: with a set of two, nobody else could agree to
//! the change. Then the one before is let go of.

use planaria_types::InstanceId;

use super::action::GroupAction;
use super::group::{Ending, Group};
use crate::Millis;

/// How long it takes until the engine is asked again to forget a copy, in milliseconds.
const ASK_AGAIN_AFTER_MS: u64 = 1_000;

/// Who has taken a copy's place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Successor {
    instance: InstanceId,
    /// The engine is asked to forget the one before, or was, in vain, and is asked again after a while.
    asked: bool,
}

impl Successor {
    pub(super) fn instance(&self) -> InstanceId {
        self.instance
    }
}

impl Group {
    /// The copy `instance` says that it has taken the place of these.
    ///
    /// One of them that is online is not gone, whatever is said: two directories go by one history of instances then, and
    /// both are kept.
    pub(super) fn succeed(&mut self, instance: InstanceId, former: &[InstanceId]) {
        let own = self.identity().instance;
        for before in former.iter().copied().filter(|before| *before != instance && *before != own) {
            let is_online = self.members.get(&before).is_some_and(|member| member.online);
            let counts = self.promotable.contains(&before) || self.joins(before);
            if !is_online && (counts || self.members.contains_key(&before)) {
                self.successors.insert(before, Successor { instance, asked: false });
                self.ask_again_at = None;
            }
        }
    }

    /// The copies whose place a copy has taken, until they are let go of.
    pub fn former_of(&self, instance: InstanceId) -> impl Iterator<Item = InstanceId> {
        self.successors.iter().filter(move |(_, by)| by.instance == instance).map(|(before, _)| *before)
    }

    /// The copy that counts where a set has `instance`: itself, or who has its place and may count.
    pub(super) fn stands_for(&self, instance: InstanceId) -> InstanceId {
        let successor = self.successors.get(&instance).map(|successor| successor.instance);
        let counts = |by: &InstanceId| self.members.get(by).is_some_and(|member| member.eligible);
        successor.filter(counts).unwrap_or(instance)
    }

    /// Whether a copy is to leave the promotable set, because the one that has its place is online and may join.
    pub(super) fn is_succeeded(&self, instance: InstanceId) -> bool {
        let successor = self.successors.get(&instance).and_then(|by| self.members.get(&by.instance));
        successor.is_some_and(|member| member.online && member.eligible)
    }

    /// Lets go of those that no set has any more, and whose successors are online, and so registered.
    pub(super) fn let_go_of_former(&mut self) {
        if self.deposed().is_some() || self.ending != Ending::Written {
            return;
        }
        let is_due = |before: InstanceId, by: &Successor| {
            let is_there = self.members.get(&by.instance).is_some_and(|member| member.online);
            !by.asked && is_there && !self.promotable.contains(&before) && !self.joins(before)
        };
        let due = self.successors.iter().filter(|(before, by)| is_due(**before, by));
        let due: Vec<_> = due.map(|(before, _)| *before).collect();
        for before in due {
            if let Some(by) = self.successors.get_mut(&before) {
                by.asked = true;
                self.actions.push_back(GroupAction::LetGo(before));
            }
        }
    }

    /// The engine has forgotten a copy that is gone for good.
    pub fn handle_let_go(&mut self, instance: InstanceId) {
        self.successors.remove(&instance);
        self.absent.remove(&instance);
        // One that came back meanwhile, of a directory that was restored, is registered anew.
        if self.members.get(&instance).is_some_and(|member| !member.online) {
            self.members.remove(&instance);
        }
    }

    /// The engine could not forget it; it is asked again after a while.
    pub fn handle_let_go_failed(&mut self, instance: InstanceId, now: Millis) {
        if self.successors.contains_key(&instance) {
            self.ask_again_at = Some(now.plus(Millis(ASK_AGAIN_AFTER_MS)));
        }
    }

    /// Has the engine be asked again, if it could not forget a copy a while ago.
    pub(super) fn ask_again(&mut self, now: Millis) {
        if self.ask_again_at.take_if(|at| now >= *at).is_some() {
            self.successors.values_mut().for_each(|by| by.asked = false);
        }
    }
}

#[cfg(test)]
#[path = "former_tests.rs"]
mod tests;
