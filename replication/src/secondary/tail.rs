//! Following the live stream: log at once, show and acknowledge what the primary cannot lose.

use planaria_types::{Epoch, History, HistoryEntry, Uid};

use super::action::Action;
use super::replica::{Phase, Replica};
use super::session::{End, breach};
use crate::options::planted;
use crate::{Ack, ByeCode, Commit, Live, Message, Millis};

const EARLY_MESSAGES_MAX: usize = 4_096;

/// A live stream that goes straight to the log.
#[derive(Debug)]
pub(super) struct Tail {
    /// The last commit received.
    pub(super) received: Uid,
    pub(super) epoch: Epoch,
    /// Having shown this makes the copy online.
    pub(super) target: Uid,
    pub(super) online: bool,
    pub(super) received_bytes: u64,
}

impl Tail {
    pub(super) fn new(received: Uid, epoch: Epoch, target: Uid) -> Self {
        Self { received, epoch, target, online: false, received_bytes: 0 }
    }
}

/// Checks that commits follow `last` without a gap, and gives the UID of the last of them.
pub(super) fn follow(commits: &[Commit], last: Uid) -> Result<Uid, End> {
    commits.iter().try_fold(last, |last, commit| {
        if commit.predecessor == last {
            Ok(commit.uid)
        } else {
            let why = format!("commit {} follows {}, not {last}", commit.uid, commit.predecessor);
            Err((ByeCode::Gap, why))
        }
    })
}

impl Replica {
    pub(super) fn on_live(&mut self, live: Live, now: Millis) -> Result<(), End> {
        if let Phase::Checking { early, .. } = &mut self.phase {
            if early.len() >= EARLY_MESSAGES_MAX {
                return Err(breach("too many messages before the round began"));
            }
            early.push(live);
            return Ok(());
        }
        if matches!(self.phase, Phase::Resting(_)) {
            return self.on_news(&live, now);
        }
        let epoch = match &self.phase {
            Phase::Tailing(tail) => tail.epoch,
            Phase::Refreshing(refresh) | Phase::Installing(refresh) => refresh.epoch,
            // A primary that serves run files tells its news too.
            _ => return Ok(()),
        };
        if live.epoch != epoch {
            return Err((ByeCode::OldEpoch, format!("epoch {} in a session of {epoch}", live.epoch)));
        }
        self.begin_epochs(&live.began)?;
        if !live.commits.is_empty() && self.history_of_round().entries().is_empty() {
            return Err(breach("a commit came before the epoch that it belongs to"));
        }
        let (durable, stable, closed) = (live.durable, live.stable, live.closed);
        if matches!(self.phase, Phase::Tailing(_)) {
            self.log(live.commits)?;
        } else {
            self.hold(live.commits)?;
        }
        self.primary_durable = self.primary_durable.max(durable);
        self.stable = self.stable.max(stable);
        self.closed = self.closed.max(closed);
        self.advance(now);
        Ok(())
    }

    /// Takes what came live before the round could begin, unless it did not begin.
    pub(super) fn catch_up(&mut self, early: Vec<Live>, now: Millis) {
        let begun = matches!(
            self.phase,
            Phase::Tailing(_) | Phase::Refreshing(_) | Phase::Installing(_) | Phase::Resting(_)
        );
        if !begun {
            return;
        }
        for live in early {
            if live.round != self.round {
                continue;
            }
            if let Err((code, why)) = self.on_live(live, now) {
                return self.end(code, &why, now);
            }
        }
    }

    /// The history that the copy has, or will have once the refresh is installed.
    fn history_of_round(&self) -> &History {
        match &self.phase {
            Phase::Refreshing(refresh) | Phase::Installing(refresh) => &refresh.history,
            _ => &self.local.history,
        }
    }

    /// Epochs that began on the primary are in the history before their first commit is in the log.
    fn begin_epochs(&mut self, began: &[HistoryEntry]) -> Result<(), End> {
        for entry in began {
            let history = match &mut self.phase {
                Phase::Refreshing(refresh) | Phase::Installing(refresh) => &mut refresh.history,
                _ => &mut self.local.history,
            };
            if history.entries().is_empty() && entry.inherited > Uid::ZERO {
                return Err(breach("the first epoch of a history inherits data of no epoch"));
            }
            history.push(*entry).map_err(|_| breach("an epoch began that does not follow the history"))?;
        }
        if !began.is_empty() && matches!(self.phase, Phase::Tailing(_)) {
            self.actions.push_back(Action::PersistHistory(self.local.history.clone()));
        }
        Ok(())
    }

    /// Gives commits to the log.
    pub(super) fn log(&mut self, commits: Vec<Commit>) -> Result<(), End> {
        let Phase::Tailing(tail) = &mut self.phase else {
            return Ok(());
        };
        tail.received = match follow(&commits, tail.received) {
            Err(_) if planted!(self.options, IgnoreGap) => {
                commits.last().map_or(tail.received, |commit| commit.uid)
            }
            followed => followed?,
        };
        if commits.is_empty() {
            return Ok(());
        }
        self.status.counters.commits += commits.len() as u64;
        for commit in &commits {
            self.status.counters.live_bytes += commit.weight();
            self.appending.push_back((commit.uid, commit.hash, commit.weight()));
        }
        self.actions.push_back(Action::Append(commits));
        Ok(())
    }

    /// What may be shown and acknowledged: durable here, and durable on the primary.
    pub(super) fn ack_durable(&self) -> Uid {
        let held = match &self.phase {
            Phase::Tailing(_) if planted!(self.options, AckBeforeDurable) => self.local.appended,
            Phase::Tailing(_) => self.local.durable,
            Phase::Refreshing(refresh) | Phase::Installing(refresh) => refresh.since,
            _ => return self.local.durable.min(self.primary_durable),
        };
        held.min(self.primary_durable)
    }

    /// The update time: the closed UID, as far as everything up to it is visible.
    pub(super) fn closed_in_full(&self) -> Uid {
        match &self.phase {
            Phase::Tailing(tail) if self.local.visible >= tail.received => {
                self.closed.max(self.local.visible)
            }
            _ => self.local.visible.max(self.closed_in_rounds()).max(self.closed_before),
        }
    }

    /// Notes whether the tail was reached.
    pub(super) fn reach(&mut self) {
        if let Phase::Tailing(tail) = &mut self.phase
            && !tail.online
            && self.local.visible >= tail.target
        {
            tail.online = true;
            self.status.diverged = false;
        }
    }

    pub(super) fn poll_show(&mut self) -> Option<Action> {
        let Phase::Tailing(_) = &self.phase else {
            return None;
        };
        let cut = if planted!(self.options, ShowBeyondPrimaryDurable) {
            self.local.durable
        } else {
            self.local.durable.min(self.primary_durable)
        };
        if cut <= self.local.visible {
            return None;
        }
        self.local.visible = cut;
        Some(Action::Show(cut))
    }

    pub(super) fn poll_ack(&mut self) -> Option<Action> {
        if !self.connected {
            return None;
        }
        let received_bytes = match &self.phase {
            Phase::Tailing(tail) => tail.received_bytes,
            // It says that the round is over: within one there is nothing to say.
            Phase::Resting(_) => 0,
            Phase::Refreshing(_) if self.partial.is_some() => return None,
            Phase::Refreshing(refresh) => refresh.received_bytes(),
            _ => return None,
        };
        let ack = Ack {
            round: self.round,
            epoch: self.promised,
            durable: self.ack_durable(),
            visible: self.local.visible,
            received_bytes,
        };
        if self.acked == Some(ack) {
            return None;
        }
        self.acked = Some(ack);
        Some(Action::Send(Message::Ack(ack)))
    }
}
