//! Partial copies: they follow in rounds, and rest between them until their primary has something new.

use planaria_types::{Epoch, Portion, Uid};

use super::replica::{Phase, Replica};
use super::session::{End, breach};
use crate::message::FEATURE_PORTIONS;
use crate::{ByeCode, Live, Millis, Reason, Welcome};

/// What a partial copy holds, and how its rounds go.
#[derive(Debug)]
pub(super) struct Partial {
    pub(super) portion: Portion,
    /// The copy holds this portion, and not another one or nothing yet.
    settled: bool,
    /// It has rested in this session, and what came since has been brought by deltas alone.
    pub(super) keeps_up: bool,
    /// When the last round began.
    begun: Option<Millis>,
    /// Nothing at or below this UID is missing in what the copy shows.
    closed: Uid,
}

/// What a copy that rests goes by.
#[derive(Debug)]
pub(super) struct Rest {
    epoch: Epoch,
}

impl Partial {
    pub(super) fn new(portion: Portion, settled: bool) -> Self {
        Self { portion, settled, keeps_up: false, begun: None, closed: Uid::ZERO }
    }
}

impl Replica {
    /// Why what changed since the position does not do, though position and history are right: the copy holds something
    /// else. One that holds nothing is told everything anyway.
    pub(super) fn other_portion(&self) -> Option<Reason> {
        let unsettled = self.partial.as_ref().is_some_and(|partial| !partial.settled);
        (unsettled && self.local.durable > Uid::ZERO).then_some(Reason::PortionChanged)
    }

    /// Notes when a round begins.
    pub(super) fn note_round(&mut self) {
        let now = self.clock;
        if let Some(partial) = &mut self.partial {
            partial.begun = Some(now);
        }
    }

    /// A partial copy takes a round alone, and one that leads to the portion that it is to hold.
    pub(super) fn check_round(&mut self, welcome: &Welcome) -> Result<(), End> {
        let other = self.other_portion().is_some();
        let durable = self.local.durable;
        let begins_anew = welcome.epoch != self.local.history.current();
        let Some(partial) = &mut self.partial else {
            return Ok(());
        };
        if welcome.features & FEATURE_PORTIONS == 0 || !welcome.way.is_pinned() {
            return Err(breach("a partial copy is served as one that holds everything: upgrade the primary"));
        }
        if other && !welcome.way.reconciles() {
            return Err(breach("a copy that holds another portion is told what changed alone"));
        }
        let forked = welcome.fork.uid < durable;
        partial.keeps_up &= !forked && !welcome.way.reconciles();
        if forked || begins_anew {
            // Another primary may draw UIDs below what the one before had closed.
            partial.closed = Uid::ZERO;
        }
        Ok(())
    }

    /// Whether a round would change nothing: what the copy shows is what the primary shows.
    pub(super) fn has_all_of(&self, welcome: &Welcome) -> bool {
        let settled = self.partial.as_ref().is_some_and(|partial| partial.settled);
        let at = welcome.live_from;
        settled && !welcome.way.reconciles() && at == self.local.durable && at == self.local.visible
    }

    /// A partial copy shows what its round has brought, and waits for something new.
    pub(super) fn rest(&mut self, epoch: Epoch, now: Millis) {
        if let Some(partial) = &mut self.partial {
            partial.keeps_up = true;
        }
        self.phase = Phase::Resting(Rest { epoch });
        // The next round may begin at once, and the primary is to know of this one.
        let ack = self.poll_ack();
        self.actions.extend(ack);
        self.begin_round_if_due(now);
    }

    /// What a partial copy holds is now what it is to hold.
    pub(super) fn note_settled(&mut self) {
        if let Some(partial) = &mut self.partial {
            partial.settled = true;
        }
    }

    /// The primary tells a copy that rests how far it is.
    pub(super) fn on_news(&mut self, live: &Live, now: Millis) -> Result<(), End> {
        let Phase::Resting(rest) = &self.phase else {
            return Ok(());
        };
        if live.epoch != rest.epoch {
            return Err((ByeCode::OldEpoch, format!("epoch {} in a session of {}", live.epoch, rest.epoch)));
        }
        if !live.commits.is_empty() {
            return Err(breach("a partial copy was sent commits"));
        }
        self.primary_durable = self.primary_durable.max(live.durable);
        self.stable = self.stable.max(live.stable);
        self.closed = self.closed.max(live.closed);
        // Epochs that began come with the next round, whose commits they are told for.
        self.begin_round_if_due(now);
        Ok(())
    }

    /// Begins the next round of a copy that rests, once there is something new and the last one began long enough ago.
    pub(super) fn begin_round_if_due(&mut self, now: Millis) {
        if let Phase::Resting(_) = &self.phase {
            let (closed, visible) = (self.closed, self.local.visible);
            if let Some(partial) = &mut self.partial {
                partial.closed = partial.closed.max(closed).max(visible);
            }
        }
        if self.connected && self.next_round().is_some_and(|due| now >= due) {
            self.clock = now;
            self.greet();
        }
    }

    /// When the next round is to begin; `None` while there is nothing new.
    pub(super) fn next_round(&self) -> Option<Millis> {
        let is_due = matches!(self.phase, Phase::Resting(_)) && self.primary_durable > self.local.visible;
        let begun = self.partial.as_ref()?.begun;
        is_due.then(|| begun.map_or(Millis(0), |begun| begun.plus(self.options.rounds_apart)))
    }

    /// The update time of a partial copy: what was closed in a round is so in the next ones.
    pub(super) fn closed_in_rounds(&self) -> Uid {
        self.partial.as_ref().map_or(Uid::ZERO, |partial| partial.closed)
    }
}

#[cfg(test)]
#[path = "rounds_tests.rs"]
mod tests;
