//! Backups in stores as sources of clones: which of them gives the state that is asked for.

use planaria_net::wire::message::{AsOf, Shape, VERSION_MAX, VERSION_MIN};
use planaria_net::wire::stores::{KeptBackup, StoreReport, StoredBackup};
use planaria_replication::control::{
    InstanceRole, QueuedSource, SourceCopy, StoreAccess, StoredState, WhyNoState, choose_stored,
};
use planaria_types::{DatabaseId, InstanceId, Position, Uid};

use super::Center;
use super::live::LiveCopy;
use super::stores::newest_of;
use crate::catalog::{CloneRecord, StoreRecord};

/// What a clone asks of a source.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    /// The state that it is to have.
    pub(super) as_of: AsOf,
    /// It asks for nothing else that a store cannot give: no time after which it goes, no filter, no mask, nothing left out.
    pub(super) is_as_it_is: bool,
}

impl Asked {
    pub(super) fn by(clone: &CloneRecord) -> Self {
        let as_of = clone.shape.as_of;
        let rest = Shape { as_of: AsOf::Newest, ..clone.shape.clone() };
        Self { as_of, is_as_it_is: rest.is_whole() && clone.ttl_s.is_none() }
    }

    /// Up to where a source must have everything; none for the newest.
    pub(super) fn uid(self) -> Option<Uid> {
        match self.as_of {
            AsOf::Newest => None,
            AsOf::Position(uid) => Some(uid),
            // The last one that can have been drawn then.
            AsOf::Time(millis) => Some(Uid::from_millis(millis.saturating_add(1)).prev()),
        }
    }
}

/// What a store has for a clone.
struct Offer {
    access: StoreAccess,
    is_on_history: bool,
    /// The backup that gives the state, or else the newest, to be shown.
    backup: Option<KeptBackup>,
}

impl Center {
    /// The backups in stores, for a clone to a node: as that node itself sees them. A store gives what it has as it is.
    pub(super) fn stored_sources(
        &self,
        to: &str,
        database: DatabaseId,
        leader: Option<&LiveCopy>,
        asked: Asked,
    ) -> Vec<QueuedSource> {
        let source = |known: &StoreRecord| {
            let Offer { access, is_on_history, backup } = self.offer_of(known, to, leader, asked);
            let update = backup.as_ref().map_or(Uid::ZERO, |backup| backup.position.uid);
            let copy = SourceCopy {
                instance: known.instance(),
                role: InstanceRole::Backup,
                labels: known.labels.clone(),
                // It has all of the state that it gives.
                update: asked.uid().filter(|_| access == StoreAccess::Open).unwrap_or(update),
                is_on_history,
                is_reachable: true,
                is_sound: true,
                is_whole: true,
                versions: (VERSION_MIN, VERSION_MAX),
                clones: 0,
                clones_max: 0,
                free_bytes_per_s: 0,
                bytes: backup.map_or(0, |backup| backup.bytes),
                round_trip_us: None,
                store: access,
            };
            QueuedSource { node: known.place.clone(), copy }
        };
        self.stores_of(database).map(source).collect()
    }

    /// The backup in a store from which a clone is taken, as things are now: its name and its bytes.
    pub(super) fn backup_for(&self, clone: &CloneRecord, store: InstanceId) -> Option<(String, u64)> {
        let known = self.stores_of(clone.database).find(|known| known.instance() == store)?;
        let leader = self.leader_of(clone.database);
        let offer = self.offer_of(known, &clone.node, leader, Asked::by(clone));
        let gives = offer.access == StoreAccess::Open && offer.is_on_history;
        offer.backup.filter(|_| gives).map(|backup| (backup.name, backup.bytes))
    }

    fn offer_of(&self, known: &StoreRecord, to: &str, leader: Option<&LiveCopy>, asked: Asked) -> Offer {
        let seen = self.seen_by(to, &known.place);
        let kept = kept_in(known, seen.as_ref().ok().copied());
        let state = |backup: &KeptBackup| StoredState {
            instance: backup.instance,
            uid: backup.position.uid,
            reach: backup.reach,
            taken_ms: backup.taken_ms,
            is_on_history: is_on_history(backup.position, leader),
        };
        let states: Vec<StoredState> = kept.iter().map(state).collect();
        let chosen = choose_stored(asked.uid(), &states);
        let (given, shown) = match chosen {
            Ok(at) => (StoreAccess::Open, kept.get(at)),
            Err(WhyNoState::Empty) => (StoreAccess::Empty, None),
            Err(WhyNoState::OffHistory) => (StoreAccess::Open, kept.first()),
            Err(WhyNoState::OutsideKept) => (StoreAccess::OutsideKept, kept.first()),
        };
        let access = match seen {
            Err(access) => access,
            Ok(_) if !asked.is_as_it_is => StoreAccess::AsItIs,
            Ok(_) => given,
        };
        let is_on_history = chosen != Err(WhyNoState::OffHistory);
        Offer { access, is_on_history, backup: shown.cloned() }
    }
}

/// The backups of a database in a store, the newest first, as the node sees it that is to speak to the store. What it has no room to tell
/// of it can take all the same: the newest, as others have seen it.
fn kept_in(known: &StoreRecord, report: Option<&StoreReport>) -> Vec<KeptBackup> {
    let of_database = |backup: &&KeptBackup| backup.database == known.database;
    let told: Vec<KeptBackup> =
        report.map(|report| report.kept.iter().filter(of_database).cloned().collect()).unwrap_or_default();
    if !told.is_empty() {
        return told;
    }
    let newest = match report {
        Some(report) if report.left_out == 0 || newest_of(report, known.database).is_some() => {
            newest_of(report, known.database)
        }
        _ => known.newest.as_ref(),
    };
    newest.map(alone).into_iter().collect()
}

/// A backup of which nothing more is known than that it is there.
fn alone(backup: &StoredBackup) -> KeptBackup {
    KeptBackup {
        database: backup.database,
        name: backup.name.clone(),
        instance: InstanceId::default(),
        position: backup.position,
        reach: backup.position.uid,
        taken_ms: backup.taken_ms,
        bytes: backup.bytes,
    }
}

/// Whether a backup is part of the leader's history, as far as that is told: its epoch is one of those, and its last commit lies
/// before the next one began. Without a leader that was heard of nothing is known against it.
fn is_on_history(position: Position, leader: Option<&LiveCopy>) -> bool {
    let Some(leader) = leader else { return true };
    let entries = leader.report.history.entries();
    let at = entries.iter().position(|entry| entry.epoch == position.epoch);
    position.uid == Uid::ZERO
        || at.is_some_and(|at| {
            let begins = entries.get(at).is_some_and(|entry| entry.inherited <= position.uid);
            begins && entries.get(at + 1).is_none_or(|next| position.uid <= next.inherited)
        })
}
