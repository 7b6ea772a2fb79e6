use std::collections::VecDeque;

use planaria_types::{DatabaseId, Epoch, GroupId, HistoryHash, InstanceId, Portion, Uid};

use super::action::{Action, KeptDelta, Local, RewindCursor, RewindItems};
use super::feed::shown_under;
use super::refresh::Refresh;
use super::rounds::{Partial, Rest};
use super::status::{State, Status};
use super::tail::Tail;
use crate::message::FORMER_MAX;
use crate::{Ack, Bye, ByeCode, Live, Message, Millis, Options, Reason, Way, Welcome, backoff};

/// A reconcile that failed this often in a row is tried no more: the copy is taken anew.
const RECONCILE_FAILURES_MAX: u32 = 2;
/// A copy that is online for so long is the only one that follows as itself.
const UNDISPUTED_FOR: Millis = Millis(60_000);

/// Who a secondary is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The database.
    pub database: DatabaseId,
    /// The group that is followed.
    pub group: GroupId,
    /// The copy.
    pub instance: InstanceId,
    /// Its name, for people. At most 255 bytes.
    pub name: String,
}

/// One copy of a group that follows a primary.
///
/// Order of calls: [`Replica::new`] with what the engine recovered; then any `handle_*` in any order, each followed by
/// [`Replica::poll_action`] until it gives nothing; [`Replica::handle_tick`] no later than [`Replica::poll_timeout`] says.
/// Only messages of the connection that the last [`Action::Connect`] made may be passed in. Answers to actions may come
/// late, also after the session in which they were asked: the replica knows which still count.
///
/// While no refresh is installed the copy reads at its old cut.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own; what depends on one another is the phase"
)]
pub struct Replica {
    pub(super) identity: Identity,
    pub(super) options: Options,
    pub(super) seed: u64,
    pub(super) local: Local,
    pub(super) promised: Epoch,
    /// Whether the promise may not be durable, because an action failed.
    pub(super) unpromised: bool,
    pub(super) phase: Phase,
    pub(super) connected: bool,
    pub(super) round: u64,
    /// Commits given to the engine and not yet confirmed: UID, hash after it, weight.
    pub(super) appending: VecDeque<(Uid, HistoryHash, u64)>,
    pub(super) primary_durable: Uid,
    pub(super) stable: Uid,
    pub(super) closed: Uid,
    /// The update time when the last session ended: what was closed then, and shown, is so for good under that epoch.
    pub(super) closed_before: Uid,
    /// The epoch that all it shows is of: others may be fed on it.
    pub(super) feeds_under: Option<Epoch>,
    /// What the next hello says.
    pub(super) without_live: bool,
    pub(super) bulk: Option<Reason>,
    pub(super) asked: Option<Way>,
    /// What a copy that is partial holds, and how its rounds go.
    pub(super) partial: Option<Partial>,
    /// Whose place it has taken in its directory.
    pub(super) former: Vec<InstanceId>,
    /// The engine keeps a delta that was interrupted.
    pub(super) suspended: Option<KeptDelta>,
    /// The engine holds ranges that an earlier round replaced.
    pub(super) kept: bool,
    /// Reconciles that the engine failed at, one after the other.
    pub(super) reconcile_failures: u32,
    pub(super) acked: Option<Ack>,
    pub(super) heard: Millis,
    pub(super) sent: Millis,
    /// The time of the last input.
    pub(super) clock: Millis,
    pub(super) status: Status,
    pub(super) actions: VecDeque<Action>,
}

/// What a replica waits for.
#[derive(Debug)]
pub(super) enum Phase {
    /// The next attempt to connect.
    Apart { until: Millis },
    /// A connection.
    Connecting,
    /// The log to be durable to its end, so that one position says all.
    Settling { asked: bool },
    /// The answer to a hello.
    Greeting,
    /// The own hash at the fork. What comes live meanwhile waits; the sender's window bounds it, as no credit is given.
    Checking { welcome: Box<Welcome>, early: Vec<Live> },
    /// Live commits.
    Tailing(Tail),
    /// The parts of a refresh.
    Refreshing(Box<Refresh>),
    /// The engine to install a refresh.
    Installing(Box<Refresh>),
    /// The driver to install run files.
    AwaitingBulk,
    /// Something new at the primary, after a round of a partial copy.
    Resting(Rest),
}

impl Replica {
    /// A copy that holds `local` and has durably promised to follow no epoch older than `promised`.
    ///
    /// `seed` spreads the reconnections of many copies.
    pub fn new(
        identity: Identity,
        options: Options,
        promised: Epoch,
        local: Local,
        seed: u64,
        now: Millis,
    ) -> Self {
        let feeds_under = shown_under(&local, promised);
        Self {
            identity,
            options,
            seed,
            local,
            promised,
            unpromised: false,
            phase: Phase::Apart { until: now },
            connected: false,
            round: 0,
            appending: VecDeque::new(),
            primary_durable: Uid::ZERO,
            stable: Uid::ZERO,
            closed: Uid::ZERO,
            closed_before: Uid::ZERO,
            feeds_under,
            without_live: false,
            bulk: None,
            asked: None,
            partial: None,
            former: Vec::new(),
            suspended: None,
            kept: false,
            reconcile_failures: 0,
            acked: None,
            heard: now,
            sent: now,
            clock: now,
            status: Status { since: now, ..Status::default() },
            actions: VecDeque::new(),
        }
    }

    /// Names the copies that this one has taken the place of in its directory, newest first: its primary lets go of them. At most
    /// eight; more are not told.
    #[must_use]
    pub fn succeeding(mut self, mut former: Vec<InstanceId>) -> Self {
        former.truncate(FORMER_MAX);
        self.former = former;
        self
    }

    /// Goes on from a delta that an earlier process kept.
    #[must_use]
    pub fn going_on_from(mut self, kept: Option<KeptDelta>) -> Self {
        self.suspended = kept;
        self
    }

    /// Says whether ranges are kept that a reconcile in an earlier process replaced: the next one goes on from them.
    #[must_use]
    pub fn having_replaced(mut self, replaced: bool) -> Self {
        self.kept = replaced;
        self
    }

    /// The limits and times that it goes by.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Has the copy hold a portion alone; `holds_it` says whether it does already, or holds another one, or nothing yet.
    ///
    /// Such a copy is never told commits. It follows in rounds, each of which leads to one cut over all that it holds, and
    /// begins one when its primary has something new.
    #[must_use]
    pub fn holding(mut self, portion: Portion, holds_it: bool) -> Self {
        self.partial = Some(Partial::new(portion, holds_it));
        self
    }

    /// The connection asked for is there.
    pub fn handle_connected(&mut self, now: Millis) {
        if matches!(self.phase, Phase::Connecting) {
            self.connected = true;
            self.heard = now;
            self.sent = now;
            self.phase = Phase::Settling { asked: false };
            self.settle();
        }
        self.note_state(now);
    }

    /// The connection is gone, or could not be made.
    pub fn handle_disconnected(&mut self, why: &str, now: Millis) {
        if self.connected || matches!(self.phase, Phase::Connecting) {
            self.leave(why, now);
        }
    }

    /// A message came.
    pub fn handle_message(&mut self, message: Message, now: Millis) {
        if !self.connected {
            return;
        }
        self.heard = now;
        let result = match message.validate() {
            Ok(()) => self.on_message(message, now),
            Err(error) => Err((ByeCode::Protocol, error.to_string())),
        };
        if let Err((code, why)) = result {
            self.end(code, &why, now);
        }
        self.note_state(now);
    }

    /// Commits up to `uid` were appended to the log.
    pub fn handle_appended(&mut self, uid: Uid, now: Millis) {
        while let Some(&(next, hash, weight)) = self.appending.front() {
            if next > uid {
                break;
            }
            self.appending.pop_front();
            self.local.appended = next;
            self.local.hash = Some(hash);
            if let Phase::Tailing(tail) = &mut self.phase {
                tail.received_bytes = tail.received_bytes.saturating_add(weight);
            }
        }
        self.settle();
        self.note_state(now);
    }

    /// The log is durable up to `uid`: what the engine says at the time of this call, never what it said before a
    /// take back or an installation.
    pub fn handle_durable(&mut self, uid: Uid, now: Millis) {
        self.local.durable = self.local.durable.max(uid.min(self.local.appended));
        self.settle();
        self.note_state(now);
    }

    /// The copy's floors were raised by its own compaction.
    pub fn handle_floors(&mut self, version_floor: Uid, mark_floor: Uid) {
        self.local.version_floor = self.local.version_floor.max(version_floor);
        self.local.mark_floor = self.local.mark_floor.max(mark_floor);
    }

    /// The history hash at a UID was looked up.
    pub fn handle_hash(&mut self, uid: Uid, hash: Option<HistoryHash>, now: Millis) {
        let phase = std::mem::replace(&mut self.phase, Phase::Greeting);
        match phase {
            Phase::Checking { welcome, early } if welcome.fork.uid == uid => {
                if let (Some(ours), Some(theirs)) = (hash, welcome.fork_hash)
                    && ours != theirs
                {
                    self.bulk = Some(Reason::HistoryHash);
                    self.greet();
                } else {
                    self.prepare(*welcome, now);
                    self.catch_up(early, now);
                }
            }
            other => self.phase = other,
        }
        self.note_state(now);
    }

    /// Records of a refresh were collected.
    pub fn handle_stored(&mut self, round: u64, now: Millis) {
        if let Some(refresh) = self.refresh(round) {
            refresh.stored();
            self.advance(now);
        }
    }

    /// Keys to rewind were listed; `next` says where the listing goes on.
    pub fn handle_rewind_items(&mut self, round: u64, items: RewindItems, next: RewindCursor, now: Millis) {
        if let Some(refresh) = self.refresh(round) {
            if let Some(request) = refresh.listed(items, next) {
                self.actions.push_back(Action::Send(Message::RewindRequest(request)));
            }
            self.advance(now);
        }
    }

    /// The refresh was installed, and this is what the copy holds now.
    pub fn handle_installed(&mut self, local: Local, now: Millis) {
        let phase = std::mem::replace(&mut self.phase, Phase::Settling { asked: false });
        match phase {
            Phase::Installing(refresh) => self.installed(*refresh, local, now),
            other => self.phase = other,
        }
        self.note_state(now);
    }

    /// Run files were installed, and this is what the copy holds now.
    pub fn handle_bulk_installed(&mut self, local: Local, now: Millis) {
        self.local = local;
        self.feeds_under = shown_under(&self.local, self.promised);
        self.bulk = None;
        self.asked = None;
        self.suspended = None;
        self.kept = false;
        self.reconcile_failures = 0;
        self.status.counters.refreshes += 1;
        if matches!(self.phase, Phase::AwaitingBulk) {
            self.phase = Phase::Settling { asked: false };
            self.settle();
        }
        self.note_state(now);
    }

    /// The engine could not carry out an action: what the copy holds now, and why.
    ///
    /// The session ends; what was not confirmed counts as not done, and what was to be done after it is not begun.
    pub fn handle_failure(&mut self, local: Local, what: &str, now: Millis) {
        self.local = local;
        self.feeds_under = shown_under(&self.local, self.promised);
        self.appending.clear();
        self.note_failed_reconcile();
        self.suspended = None;
        self.unpromised = true;
        // A take back must not follow a quarantine that failed, nor an acknowledgement a promise.
        self.actions.retain(|action| matches!(action, Action::Connect | Action::Disconnect));
        if matches!(self.phase, Phase::Installing(_)) {
            self.phase = Phase::Settling { asked: false };
        }
        self.end(ByeCode::Engine, what, now);
        self.note_state(now);
    }

    /// What was collected is gone with the failure; a copy that cannot be repaired in place is taken anew.
    fn note_failed_reconcile(&mut self) {
        self.kept = false;
        let reconciles = match &self.phase {
            Phase::Refreshing(refresh) | Phase::Installing(refresh) => refresh.comparison.is_some(),
            _ => false,
        };
        if reconciles {
            self.reconcile_failures += 1;
            if self.reconcile_failures >= RECONCILE_FAILURES_MAX {
                self.bulk = Some(Reason::Unreadable);
            }
        }
    }

    /// An operator asks for a refresh, by this way if it leads to the primary's state. It begins with the next round,
    /// which is at once unless one is being installed.
    pub fn handle_refresh_asked(&mut self, way: Way, now: Millis) {
        self.asked = Some(way);
        if self.connected {
            self.begin_again(false);
        }
        self.note_state(now);
    }

    /// The process shuts down in good order.
    pub fn handle_shutdown(&mut self, now: Millis) {
        self.end(ByeCode::Shutdown, "the secondary shuts down", now);
        self.note_state(now);
    }

    /// Time passed.
    pub fn handle_tick(&mut self, now: Millis) {
        match &self.phase {
            Phase::Apart { until } if now >= *until => {
                self.phase = Phase::Connecting;
                self.heard = now;
                self.actions.push_back(Action::Connect);
            }
            Phase::Connecting if now.since(self.heard) >= self.options.session_timeout => {
                self.leave("no connection in time", now);
            }
            _ if !self.connected => {}
            _ if now.since(self.heard) >= self.options.session_timeout => {
                self.end(ByeCode::Timeout, "the primary was silent", now);
            }
            _ if now.since(self.sent) >= self.options.heartbeat => {
                self.sent = now;
                self.actions.push_back(Action::Send(Message::Heartbeat));
            }
            _ => {}
        }
        self.begin_round_if_due(now);
        self.note_state(now);
    }

    /// When [`Replica::handle_tick`] should be called next; `None` while it only waits for the engine.
    pub fn poll_timeout(&self) -> Option<Millis> {
        match &self.phase {
            Phase::Apart { until } => Some(*until),
            Phase::Connecting => Some(self.heard.plus(self.options.session_timeout)),
            _ if self.connected => {
                let silent = self.heard.plus(self.options.session_timeout);
                let next = silent.min(self.sent.plus(self.options.heartbeat));
                Some(self.next_round().map_or(next, |due| next.min(due)))
            }
            _ => None,
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        // Only now has the engine done all that was asked: what it shows is what `local` says.
        self.reach();
        self.note_state(self.clock);
        self.poll_show().or_else(|| self.poll_ack())
    }

    /// The replica as others may see it.
    pub fn status(&self) -> Status {
        let mut status = self.status.clone();
        status.epoch = self.promised;
        status.durable = self.ack_durable();
        status.visible = self.local.visible;
        status.primary_durable = self.primary_durable;
        // A floor above what is shared would take away what a fork needs, also while the take back is only asked for.
        status.stable = self.stable.min(status.durable).min(status.visible);
        status.closed = self.closed_in_full();
        if let Phase::Refreshing(refresh) | Phase::Installing(refresh) = &self.phase {
            status.progress.bytes = refresh.bytes;
            status.progress.held_bytes = refresh.held_bytes;
        }
        status
    }

    /// What the copy holds, as far as the engine confirmed it.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// Follows changes of the state, and notes when they happened.
    fn note_state(&mut self, now: Millis) {
        self.clock = now;
        let state = match &self.phase {
            _ if !self.connected => State::Offline,
            Phase::Tailing(tail) if tail.online => State::Online,
            // Between two rounds, and within one that brings what is new.
            _ if self.partial.as_ref().is_some_and(|partial| partial.keeps_up) => State::Online,
            Phase::Refreshing(_) | Phase::Installing(_) | Phase::AwaitingBulk => State::Refreshing,
            _ => State::Stale,
        };
        if state != self.status.state {
            self.status.state = state;
            self.status.since = now;
        }
        if state == State::Online {
            self.status.attempts = 0;
            if now.since(self.status.since) >= UNDISPUTED_FOR {
                self.status.displaced = 0;
            }
            // A round has fitted, so that a later series of hops is another one.
            self.status.progress.hop_before_bytes = None;
            self.status.progress.hop_bytes = None;
        }
    }

    /// Ends the session with a word to the other side.
    pub(super) fn end(&mut self, code: ByeCode, why: &str, now: Millis) {
        if self.connected {
            let reason = why.to_owned();
            self.actions.push_back(Action::Send(Message::Bye(Bye { code, reason })));
        }
        self.leave(why, now);
    }

    /// The session is over. What was collected of a delta is kept for the next one.
    pub(super) fn leave(&mut self, why: &str, now: Millis) {
        self.closed_before = self.closed_in_full();
        let had_connection = self.connected || matches!(self.phase, Phase::Connecting);
        if had_connection {
            self.actions.push_back(Action::Disconnect);
        }
        self.connected = false;
        self.acked = None;
        self.without_live = false;
        if let Some(partial) = &mut self.partial {
            partial.keeps_up = false;
        }
        self.status.last_end = Some(why.to_owned());
        match &self.phase {
            Phase::Installing(_) | Phase::Apart { .. } => return,
            Phase::Refreshing(_) => self.abandon_refresh(),
            Phase::AwaitingBulk => self.actions.push_back(Action::AbandonBulk),
            _ => {}
        }
        self.part(now);
    }

    /// Waits for the next attempt to connect.
    pub(super) fn part(&mut self, now: Millis) {
        let wait = backoff(self.status.attempts, self.seed);
        self.status.attempts = self.status.attempts.saturating_add(1);
        self.phase = Phase::Apart { until: now.plus(wait) };
    }

    fn refresh(&mut self, round: u64) -> Option<&mut Refresh> {
        match &mut self.phase {
            Phase::Refreshing(refresh) if refresh.round == round => Some(refresh),
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;
