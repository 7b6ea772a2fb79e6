use planaria_types::{EpochOrder, Fork, Position, Uid};

use super::copy::{CopyId, CopyState, Refresh, Registration, Role, Session, Stage, Way};
use super::ledger::{KeySet, Row};
use super::op::{Outcome, Planted, Refused};
use super::{Key, Model};

impl Model {
    /// A copy follows a primary: the fork is found, what was shown beyond it is quarantined, and what lies beyond it
    /// is taken back, at once by a clip or with the install by a rewind or a replacement.
    pub(crate) fn connect(&mut self, id: CopyId, to: CopyId) -> Result<Outcome, Refused> {
        self.may_follow(id, to)?;
        self.settle(id)?;
        let (copy, primary) = (self.copy(id)?, self.copy(to)?);
        let fork = self.fork(copy, primary);
        let shown: Vec<Row> =
            self.ledger.back_from(copy.shown()).map(|commit| Row::at(commit.position)).collect();
        let beyond = shown.into_iter().take_while(|row| row.uid > fork.uid).collect::<Vec<_>>();
        let quarantined = beyond.len();
        let (epoch, keep) = (primary.accepted, !self.has(Planted::SkipQuarantine));
        let way = self.take_back(id, fork)?;
        let copy = self.copy_mut(id)?;
        copy.accepted = epoch;
        copy.follows = Some(to);
        copy.quarantine.extend(beyond.into_iter().filter(|_| keep));
        let refresh = self.way(id, to, fork, way)?;
        self.register(id, to, fork, refresh)?;
        let start = self.copy(to)?.end();
        let stage = refresh.map_or(Stage::Live, |way| {
            Stage::Refreshing(Refresh {
                fork,
                way,
                start,
                snapshot: start.uid,
                cursor: Key(0),
                mark_floor: Uid::ZERO,
                records: Vec::new(),
                live: Vec::new(),
            })
        });
        self.copy_mut(id)?.session = Some(Session { primary: to, stage });
        Ok(Outcome::Connected { fork, quarantined, refresh })
    }

    fn may_follow(&self, id: CopyId, to: CopyId) -> Result<(), Refused> {
        let (copy, primary) = (self.copy(id)?, self.copy(to)?);
        if primary.role != Role::Primary || id == to {
            return Err(Refused::NotPrimary);
        }
        if copy.session.as_ref().is_some_and(|session| session.primary == to) {
            return Err(Refused::Connected);
        }
        let order = primary.accepted.order(&copy.accepted);
        let newer =
            matches!(order, EpochOrder::Newer | EpochOrder::Same) || self.has(Planted::AcceptOldEpoch);
        // A primary steps down only for a newer epoch than its own.
        let steps_down = copy.role == Role::Secondary || order == EpochOrder::Newer;
        if newer && steps_down { Ok(()) } else { Err(Refused::OldEpoch) }
    }

    /// The copy syncs what it has, and stops leading if it did.
    fn settle(&mut self, id: CopyId) -> Result<(), Refused> {
        let copy = self.copy_mut(id)?;
        copy.session = None;
        copy.durable = copy.appended();
        if copy.role == Role::Primary {
            copy.role = Role::Secondary;
            copy.restarted = false;
            copy.primary_durable = copy.durable;
            self.hang_up(id);
        }
        Ok(())
    }

    fn fork(&self, copy: &CopyState, primary: &CopyState) -> Position {
        if self.has(Planted::ForkByWatermark) {
            return copy.history.position_of(copy.appended().min(primary.appended()));
        }
        match copy.history.fork(copy.appended(), &primary.history, primary.appended()) {
            Fork::At(fork) => fork,
            Fork::Unrelated => Position::default(),
        }
    }

    /// Clips what lies beyond the fork, where that is possible. Otherwise says what the install has to take back.
    fn take_back(&mut self, id: CopyId, fork: Position) -> Result<Option<Way>, Refused> {
        let copy = self.copy(id)?;
        let (trusted, by_uid) =
            (self.has(Planted::RewindBelowMarkFloor), self.has(Planted::ShortenHistoryByUid));
        if self.has(Planted::SkipClip) {
            return Ok(None);
        }
        let floor = copy.version_floor <= fork.uid || self.has(Planted::ClipBelowVersionFloor);
        let whole = !copy.stack.hides(fork.uid) || self.has(Planted::ClipInsideGap);
        if copy.appended() <= fork.uid || (floor && whole) {
            let copy = self.copy_mut(id)?;
            let history = copy.history.clone();
            copy.clip(fork);
            if by_uid {
                copy.history = history;
                // The planted fault: what is dropped is told by the UID, not by the epoch.
                let kept = copy.history.entries().iter().filter(|entry| entry.inherited <= fork.uid);
                copy.history =
                    planaria_types::History::from_entries(kept.copied().collect()).unwrap_or_default();
            }
            return Ok(None);
        }
        // Where this copy dropped a delete mark above the fork, no local record tells that the key changed there.
        let told = copy.mark_floor <= fork.uid || trusted;
        Ok(Some(if told { Way::Delta { rewind: copy.keys_above(fork.uid) } } else { Way::Replace }))
    }

    /// The cheapest way that the primary can serve; `None` is the tail.
    fn way(&self, id: CopyId, to: CopyId, fork: Position, back: Option<Way>) -> Result<Option<Way>, Refused> {
        let (copy, primary) = (self.copy(id)?, self.copy(to)?);
        let rewind = match back {
            None if primary.base <= fork.uid || copy.appended() > fork.uid => return Ok(None),
            None => KeySet::EMPTY,
            Some(Way::Delta { rewind }) => rewind,
            Some(Way::Replace) => return Ok(back),
        };
        let complete = primary.mark_floor <= fork.uid || self.has(Planted::DeltaBelowMarkFloor);
        Ok(Some(if complete { Way::Delta { rewind } } else { Way::Replace }))
    }

    /// The primary registers the copy at the fork, so that delete marks above it are kept from now on. One that is
    /// replaced needs none of them and is registered when that is installed.
    fn register(&mut self, id: CopyId, to: CopyId, fork: Position, way: Option<Way>) -> Result<(), Refused> {
        let primary = self.copy_mut(to)?;
        let durable = fork.uid.min(primary.durable);
        let Some(entry) = primary.registered.get_mut(usize::from(id.0)) else {
            return Err(Refused::UnknownCopy);
        };
        let member = entry.is_some_and(|known| known.promotable && known.durable <= durable);
        *entry = match way {
            Some(Way::Replace) => None,
            Some(Way::Delta { .. }) => Some(Registration { durable, promotable: false }),
            None => Some(Registration { durable, promotable: member }),
        };
        Ok(())
    }
}
