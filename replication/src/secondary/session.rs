//! The handshake of a replica, and what it does with each message.

use planaria_types::{Epoch, EpochOrder, Uid};

use super::action::Action;
use super::refresh::Refresh;
use super::replica::{Phase, Replica};
use super::tail::Tail;
use crate::message::FEATURE_PORTIONS;
use crate::options::planted;
use crate::{ByeCode, Hello, Message, Millis, PROTOCOL_VERSION, Reason, Refused, Way, Welcome, fork};

/// A copy that another process has displaced waits as one does whose first so many attempts came to nothing: some seconds.
const DISPLACED_ATTEMPTS: u32 = 7;

/// Why a session must end.
pub(super) type End = (ByeCode, String);

/// A breach of the protocol.
pub(super) fn breach(why: &str) -> End {
    (ByeCode::Protocol, why.to_owned())
}

impl Replica {
    /// Says hello once the log is durable to its end, and nothing is under way in the engine.
    pub(super) fn settle(&mut self) {
        let Phase::Settling { asked } = &mut self.phase else {
            return;
        };
        if !self.connected || !self.appending.is_empty() {
            return;
        }
        if self.local.durable >= self.local.appended {
            self.status.counters.sessions += 1;
            self.greet();
        } else if !*asked {
            *asked = true;
            self.actions.push_back(Action::Sync);
        }
    }

    /// Opens a round.
    pub(super) fn greet(&mut self) {
        self.round += 1;
        self.acked = None;
        self.phase = Phase::Greeting;
        self.note_round();
        let hello = Hello {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            features: if self.partial.is_some() { FEATURE_PORTIONS } else { 0 },
            database: self.identity.database,
            instance: self.identity.instance,
            name: self.identity.name.clone(),
            group: self.identity.group,
            round: self.round,
            promised: if planted!(self.options, AcceptOlderEpoch) { Epoch::NONE } else { self.promised },
            history: self.local.history.clone(),
            durable: self.local.durable,
            hash: self.local.hash,
            without_live: self.without_live || self.partial.is_some(),
            bulk: self.bulk.or_else(|| self.other_portion()),
            asked: self.asked,
            portion: self.partial.as_ref().map(|partial| partial.portion.clone()),
            former: self.former.clone(),
            resume: self.resume(),
        };
        self.actions.push_back(Action::Send(Message::Hello(Box::new(hello))));
    }

    pub(super) fn on_message(&mut self, message: Message, now: Millis) -> Result<(), End> {
        match message {
            Message::Welcome(welcome) if welcome.round == self.round => self.on_welcome(welcome, now),
            Message::Refused(refused) if refused.round == self.round => {
                self.refused(&refused, now);
                Ok(())
            }
            Message::Live(live) if live.round == self.round => self.on_live(live, now),
            Message::DeltaChunk(chunk) if chunk.round == self.round => self.on_chunk(chunk, now),
            Message::RewindReply(reply) if reply.round == self.round => self.on_rewind(reply, now),
            Message::Parts(parts) if parts.round == self.round => self.on_parts(parts, now),
            Message::RangesReply(reply) if reply.round == self.round => self.on_ranges(reply, now),
            Message::Again(again) if again.round == self.round => {
                self.again(again.reason);
                Ok(())
            }
            Message::Bye(bye) => {
                if bye.code == ByeCode::Superseded {
                    self.note_displaced();
                }
                self.leave(&format!("the primary ended the session: {} ({})", bye.code, bye.reason), now);
                Ok(())
            }
            Message::Hello(_)
            | Message::Ack(_)
            | Message::DeltaRequest(_)
            | Message::RewindRequest(_)
            | Message::Compare(_)
            | Message::RangesRequest(_) => Err(breach("a primary sent a message of a secondary")),
            // Of an older round, overtaken by the hello of this one.
            _ => Ok(()),
        }
    }

    /// Two processes that follow as one copy end each other's sessions: they take long turns, so that somebody sees it.
    fn note_displaced(&mut self) {
        self.status.displaced = self.status.displaced.saturating_add(1);
        self.status.attempts = self.status.attempts.max(DISPLACED_ATTEMPTS);
    }

    fn refused(&mut self, refused: &Refused, now: Millis) {
        self.leave(&format!("refused by epoch {}: {}", refused.epoch, refused.code), now);
    }

    /// The primary cannot go on with this round: from the durable position again.
    fn again(&mut self, reason: Reason) {
        let expired = reason == Reason::PinExpired;
        if let Some(partial) = self.partial.as_mut().filter(|_| expired) {
            partial.keeps_up = false;
        }
        // The live stream that did not fit before does not fit now.
        let without_live = expired && self.without_live;
        if self.begin_again(without_live) {
            self.status.reason = Some(reason);
        }
    }

    /// Leaves the round for the next one; false if that comes by itself.
    pub(super) fn begin_again(&mut self, without_live: bool) -> bool {
        match &mut self.phase {
            Phase::Refreshing(_) => self.abandon_refresh(),
            Phase::Tailing(_) | Phase::Checking { .. } | Phase::Resting(_) => {}
            Phase::Installing(refresh) => {
                refresh.again = true;
                return false;
            }
            // Run files do not depend on the round; after them comes a hello anyway.
            _ => return false,
        }
        self.without_live = without_live;
        self.phase = Phase::Settling { asked: false };
        self.settle();
        true
    }

    fn on_welcome(&mut self, welcome: Box<Welcome>, now: Millis) -> Result<(), End> {
        if !matches!(self.phase, Phase::Greeting) {
            return Err(breach("a welcome that was not asked for"));
        }
        if welcome.version != PROTOCOL_VERSION {
            return Err(breach("a welcome in an unknown version"));
        }
        self.check_chain(&welcome)?;
        self.promise(&welcome)?;
        self.check_fork(&welcome)?;
        self.check_round(&welcome)?;
        self.check_resumption(&welcome)?;
        self.note_source(&welcome);
        self.status.way = Some(welcome.way);
        self.status.reason = Some(welcome.reason);
        self.status.progress.bytes = 0;
        self.status.progress.bytes_expected = welcome.bytes;
        self.primary_durable = welcome.durable;
        // Another primary may have said more of another history, and may draw UIDs below what the one before had closed.
        if welcome.fork.uid < self.local.durable || welcome.epoch != self.local.history.current() {
            self.closed_before = Uid::ZERO;
        }
        self.stable = Uid::ZERO;
        self.closed = Uid::ZERO;
        self.status.diverged = self.local.visible > welcome.fork.uid;
        if !welcome.way.reconciles() {
            self.drop_kept();
        }
        if !welcome.resumes {
            self.drop_suspended();
        }
        if welcome.way == Way::Bulk {
            self.fetch_bulk(&welcome);
        } else if welcome.way.reconciles() {
            self.reconcile(*welcome, now);
        } else if welcome.fork.uid < self.local.durable && welcome.fork_hash.is_some() {
            self.actions.push_back(Action::ReadHash(welcome.fork.uid));
            self.phase = Phase::Checking { welcome, early: Vec::new() };
        } else {
            self.prepare(*welcome, now);
        }
        Ok(())
    }

    /// Follows the primary's epoch only if it is not older than the one promised, and makes a newer promise durable
    /// before anything is said or done under it.
    fn promise(&mut self, welcome: &Welcome) -> Result<(), End> {
        match welcome.epoch.order(&self.promised) {
            EpochOrder::Same if !self.unpromised => {}
            EpochOrder::Same | EpochOrder::Newer => {
                self.promised = welcome.epoch;
                self.unpromised = false;
                if !planted!(self.options, ForgetEpoch) {
                    self.actions.push_back(Action::PersistEpoch(welcome.epoch));
                }
            }
            EpochOrder::Older if planted!(self.options, AcceptOlderEpoch) => {}
            EpochOrder::Older => return Err((ByeCode::OldEpoch, format!("promised {}", self.promised))),
            EpochOrder::Conflict => {
                return Err((ByeCode::EpochConflict, format!("promised {}", self.promised)));
            }
        }
        Ok(())
    }

    /// Both sides compute the fork, and must agree on it before anything is taken back.
    fn check_fork(&self, welcome: &Welcome) -> Result<(), End> {
        if planted!(self.options, ForkByWatermark) {
            return Ok(());
        }
        let own = fork(&welcome.history, welcome.tail, &self.local.history, self.local.durable);
        if own != Some(welcome.fork) {
            return Err(breach("the two sides compute different forks"));
        }
        if welcome.way == Way::Tail && welcome.live_from != welcome.fork.uid {
            return Err(breach("a tail must start at the fork"));
        }
        if welcome.live_from < welcome.fork.uid {
            return Err(breach("the live stream starts below the fork"));
        }
        Ok(())
    }

    /// A copy whose history cannot be trusted shares nothing for certain.
    fn shared(welcome: &Welcome) -> Uid {
        if welcome.reason == Reason::HistoryHash { Uid::ZERO } else { welcome.fork.uid }
    }

    /// Compares everything that the copy holds, whatever it is: what lies beyond the fork needs no other care than to be
    /// quarantined.
    fn reconcile(&mut self, welcome: Welcome, now: Millis) {
        let shared = Self::shared(&welcome);
        self.status.counters.forks += u64::from(self.local.durable > welcome.fork.uid);
        self.quarantine(shared);
        self.feeds_under = self.agrees(&welcome).then_some(welcome.epoch);
        let mut refresh = Refresh::new(self.round, welcome, false);
        refresh.since = shared;
        self.begin_comparison(refresh, now);
    }

    fn fetch_bulk(&mut self, welcome: &Welcome) {
        let shared = Self::shared(welcome);
        self.feeds_under = self.agrees(welcome).then_some(welcome.epoch);
        self.quarantine(shared);
        self.actions.push_back(Action::FetchBulk {
            reason: welcome.reason,
            bytes: welcome.bytes,
            at_least: welcome.fork.uid,
        });
        self.phase = Phase::AwaitingBulk;
    }

    fn quarantine(&mut self, above: Uid) {
        if self.local.visible > above && !planted!(self.options, SkipQuarantine) {
            self.actions.push_back(Action::Quarantine { above, through: self.local.visible });
        }
    }

    /// Takes back what lies beyond the fork, and begins the round.
    pub(super) fn prepare(&mut self, welcome: Welcome, now: Millis) {
        let fork = welcome.fork.uid;
        let mut rewind = false;
        if self.local.durable > fork {
            self.status.counters.forks += 1;
            if self.local.can_clip(fork) || planted!(self.options, ClipAnywhere) {
                self.quarantine(fork);
                self.actions.push_back(Action::TakeBack(welcome.fork, welcome.fork_hash));
                self.local.take_back(&welcome.fork, welcome.fork_hash);
                self.status.diverged = false;
            } else if self.local.can_rewind(fork) {
                self.quarantine(fork);
                rewind = true;
            } else {
                self.bulk = Some(Reason::ForkBelowMarks);
                return self.greet();
            }
        }
        if !rewind {
            self.feeds_under = Some(welcome.epoch);
        }
        if welcome.way == Way::Tail && !rewind {
            self.asked = None;
            if self.local.history != welcome.history {
                self.local.history = welcome.history.clone();
                self.actions.push_back(Action::PersistHistory(welcome.history));
            }
            self.phase = Phase::Tailing(Tail::new(fork, welcome.epoch, welcome.tail));
        } else if !rewind && self.has_all_of(&welcome) {
            self.asked = None;
            if self.local.history != welcome.history {
                self.local.history = welcome.history.clone();
                self.actions.push_back(Action::PersistHistory(welcome.history));
            }
            self.rest(welcome.epoch, now);
        } else {
            let resumed = self.suspended.take();
            self.begin_refresh(Refresh::new(self.round, welcome, rewind).on_top_of(resumed, now), now);
        }
    }
}
