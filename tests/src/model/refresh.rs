use planaria_types::{Position, Uid};

use super::copy::{CopyId, CopyState, Refresh, Registration, Stage, Way};
use super::ledger::{KeySet, Kind, Row};
use super::op::{Outcome, Planted, Refused};
use super::stack::{Gap, Record, Rectangle};
use super::{Key, Model};

impl Model {
    /// The primary answers for one key at its current snapshot. Only what lies at or below the start of the live stream
    /// is taken: everything above comes live.
    pub(crate) fn chunk(&mut self, id: CopyId) -> Result<Outcome, Refused> {
        let copy = self.copy(id)?;
        let refresh =
            copy.refresh().filter(|refresh| refresh.cursor.0 < self.keys).ok_or(Refused::NotConnected)?;
        let session = copy.session.as_ref().ok_or(Refused::NotConnected)?;
        let primary = self.copy(session.primary)?;
        let key = refresh.cursor;
        let above = match refresh.way {
            Way::Delta { rewind } if rewind.contains(key) => Uid::ZERO,
            Way::Delta { .. } => refresh.fork.uid,
            Way::Replace => Uid::ZERO,
        };
        let delta = matches!(refresh.way, Way::Delta { .. });
        if delta && primary.mark_floor > refresh.fork.uid && !self.has(Planted::DeltaBelowMarkFloor) {
            return Err(Refused::BelowMarkFloor);
        }
        let newest = primary.newest(key, primary.appended());
        let record = newest.filter(|record| above < record.uid() && record.uid() <= refresh.start.uid);
        let (snapshot, mark_floor) = (primary.appended(), primary.mark_floor);
        let refresh = self.copy_mut(id)?.refresh_mut().ok_or(Refused::NotConnected)?;
        refresh.records.extend(record);
        refresh.snapshot = refresh.snapshot.max(snapshot);
        refresh.mark_floor = refresh.mark_floor.max(mark_floor);
        refresh.cursor = Key(key.0 + 1);
        Ok(Outcome::Chunk(key))
    }

    /// Moves a copy from its old position to the highest chunk snapshot in one step.
    pub(crate) fn install(&mut self, id: CopyId) -> Result<Outcome, Refused> {
        let copy = self.copy(id)?;
        let mut refresh = copy.refresh().ok_or(Refused::NotConnected)?.clone();
        let to = copy.session.as_ref().ok_or(Refused::NotConnected)?.primary;
        if self.has(Planted::InstallBelowSnapshot) {
            refresh.snapshot = refresh.start.uid;
        }
        let heard = refresh.cursor.0 >= self.keys || (self.has(Planted::InstallHalf) && refresh.cursor.0 > 0);
        let primary = self.copy(to)?;
        let cut = refresh.snapshot;
        if !heard || cut > refresh.passed().uid || cut > primary.durable {
            return Err(Refused::NotComplete);
        }
        let (history, durable) = (primary.history.clone(), primary.durable);
        let answered = self.answered(&refresh);
        let (keys, gapless) = (self.keys, self.has(Planted::DeltaWithoutGap));
        let copy = self.copy_mut(id)?;
        match refresh.way {
            Way::Delta { rewind } => {
                copy.take_down_to(refresh.fork, keys);
                copy.stack_delta(&refresh, rewind.intersection(answered), keys, gapless);
                if !rewind.is_empty() {
                    // The fork may lie inside a sparse interval. What was asked again ends it, and the version floor
                    // takes its place: nothing below the new cut is readable.
                    copy.stack.fill_gaps();
                    copy.snapshots.clear();
                    copy.version_floor = cut;
                    copy.mark_floor = copy.mark_floor.max(refresh.mark_floor);
                }
            }
            Way::Replace => {
                copy.take_down_to(Position::default(), keys);
                copy.stack.add(Rectangle::new(
                    Uid::ZERO,
                    refresh.start.uid,
                    (0, keys),
                    refresh.records.clone(),
                ));
                copy.snapshots.clear();
                copy.version_floor = cut;
                copy.mark_floor = refresh.mark_floor;
            }
        }
        copy.base = refresh.start.uid;
        copy.log.clone_from(&refresh.live);
        copy.adopt(&history, copy.appended());
        copy.durable = copy.appended();
        copy.visible = cut;
        copy.primary_durable = durable.min(copy.appended());
        if let Some(session) = copy.session.as_mut() {
            session.stage = Stage::Live;
        }
        if self.has(Planted::SecondaryDrawsUid) {
            self.invent_marks(id, &refresh)?;
        }
        self.register_installed(id, to)?;
        Ok(Outcome::Installed(cut))
    }

    /// Keys that the install may trust to be as the refresh says: all of them, unless absence is planted to be lost.
    fn answered(&self, refresh: &Refresh) -> KeySet {
        let told = refresh.records.iter().map(|record| record.key);
        let live = |key: &Key| refresh.live.iter().any(|commit| commit.changes.kind_of(*key).is_some());
        if self.has(Planted::RewindWithoutAbsence) {
            told.chain(self.keys().filter(live)).collect()
        } else {
            self.keys().collect()
        }
    }

    fn register_installed(&mut self, id: CopyId, to: CopyId) -> Result<(), Refused> {
        let durable = self.copy(id)?.durable.min(self.copy(to)?.durable);
        if let Some(entry) = self.copy_mut(to)?.registered.get_mut(usize::from(id.0)) {
            *entry = Some(Registration { durable, promotable: false });
        }
        let registered = self.copy(to)?.registered.clone();
        self.copy_mut(id)?.registered = registered;
        Ok(())
    }

    /// The planted fault: delete marks under UIDs that no primary drew.
    fn invent_marks(&mut self, id: CopyId, refresh: &Refresh) -> Result<(), Refused> {
        let Way::Delta { rewind } = refresh.way else {
            return Ok(());
        };
        let absent: Vec<Key> =
            rewind.iter().filter(|key| !refresh.records.iter().any(|record| record.key == *key)).collect();
        let copy = self.copy_mut(id)?;
        let row = Row { uid: copy.base, nonce: copy.accepted.nonce };
        for key in absent {
            let keys = (key.0, key.0 + 1);
            copy.stack.carve(keys);
            let mark = Record { key, row, kind: Kind::Delete };
            copy.stack.add(Rectangle::new(Uid::ZERO, copy.base, keys, [mark]));
        }
        Ok(())
    }
}

impl CopyState {
    /// Everything above the fork goes; what is left of the log becomes a run, so that a delta can be stacked on it.
    fn take_down_to(&mut self, fork: Position, keys: u8) {
        self.log.retain(|commit| commit.uid() <= fork.uid);
        self.flush(fork.uid, keys);
        self.stack.clip(fork.uid);
        self.history.truncate(&fork);
        self.mark_floor = self.mark_floor.min(fork.uid);
    }

    /// Stacks a delta on the keys that were not rewound, and replaces those that were.
    fn stack_delta(&mut self, refresh: &Refresh, rewound: KeySet, keys: u8, gapless: bool) {
        let records = || refresh.records.iter().copied();
        let (low, high) = (refresh.fork.uid, refresh.start.uid);
        for key in (0..keys).map(Key) {
            let own = (key.0, key.0 + 1);
            if rewound.contains(key) {
                self.stack.carve(own);
                self.stack.add(Rectangle::new(Uid::ZERO, high, own, records()));
            }
        }
        let mut from = 0;
        for key in (0..=keys).map(Key) {
            if key.0 == keys || rewound.contains(key) {
                let mut delta = Rectangle::new(low, high, (from, key.0), records());
                let gap = Gap { from: low, to: refresh.snapshot };
                delta.gaps.extend((!gapless).then_some(gap));
                self.stack.add(delta);
                from = key.0 + 1;
            }
        }
    }
}
