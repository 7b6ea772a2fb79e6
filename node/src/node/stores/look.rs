//! What a node sees in its stores: one look at a time at each of them, again and again.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use planaria_backup::{Access, Brief, Index, Place, Store};
use planaria_net::wire::stores::{
    KEPT_MAX, KEPT_OF_NODE_MAX, KEPT_OF_STORE_MAX, KeptBackup, STORED_MAX, StoreReport, StoredBackup,
};
use planaria_types::DatabaseId;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{Trouble, told, trouble};

/// When a node looks what its stores have.
#[derive(Clone, Copy)]
pub(super) struct Rhythm {
    /// So long after the last look.
    pub(super) every: Duration,
    /// A store that says nothing for so long is away.
    pub(super) within: Duration,
}

/// The code of a store whose look has not come to its end in time.
const TIMED_OUT: &str = "timed_out";

/// What was seen last in each store. Whoever looks holds nothing else of the node, which does not wait for him.
pub(super) struct Sights {
    seen: Mutex<BTreeMap<String, StoreReport>>,
    /// Something may have changed in a store.
    changed: watch::Sender<()>,
}

impl Sights {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { seen: Mutex::default(), changed: watch::Sender::new(()) })
    }

    /// The stores that were looked at.
    pub(super) fn seen(&self) -> Vec<StoreReport> {
        self.seen.lock().values().cloned().collect()
    }

    /// Has somebody look again now.
    pub(super) fn look_again(&self) {
        self.changed.send_replace(());
    }

    /// Fails where the last look at a store has not come back.
    pub(super) fn answers(&self, place: &str) -> Result<(), Trouble> {
        match self.seen.lock().get(place) {
            Some(report) if report.code == TIMED_OUT => Err(trouble(TIMED_OUT, &*report.what)),
            _ => Ok(()),
        }
    }

    fn tell(&self, place: &str, seen: Result<StoreReport, Trouble>) {
        let report = match seen {
            Ok(report) => report,
            Err((code, what)) => {
                tracing::debug!(store = place, code, what, "a store of backups is away");
                StoreReport { code, what, ..StoreReport::default() }
            }
        };
        self.seen.lock().insert(place.to_owned(), StoreReport { place: place.to_owned(), ..report });
    }

    /// Looks into each of these stores, for as long as the runtime is there. A directory that is not there is made with the first look,
    /// and not later: then it is one whose disk is away.
    pub(super) fn watch<'a>(
        self: &Arc<Self>,
        places: impl ExactSizeIterator<Item = &'a Place>,
        rhythm: Rhythm,
        runtime: &Handle,
    ) {
        let kept_max = KEPT_OF_STORE_MAX.min(KEPT_OF_NODE_MAX / places.len().max(1));
        for place in places {
            let (own, place, name) = (Arc::clone(self), place.clone(), place.to_string());
            let (index, mut is_first) = (Arc::new(tokio::sync::Mutex::new(Index::default())), true);
            let look = move || {
                let (place, index, create) =
                    (place.clone(), Arc::clone(&index), std::mem::take(&mut is_first));
                async move { look(&place, create, kept_max, &mut *index.lock().await).await }
            };
            runtime.spawn(async move { own.look_on(&name, rhythm, look).await });
        }
    }

    /// Looks into a store, again and again. A look that takes long is told of, and waited for all the same: none begins before the one
    /// before has ended.
    async fn look_on<F>(&self, name: &str, rhythm: Rhythm, mut look: impl FnMut() -> F)
    where
        F: Future<Output = Result<StoreReport, Trouble>>,
    {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let mut looking = pin!(look());
            let seen = loop {
                if let Ok(seen) = tokio::time::timeout(rhythm.within, &mut looking).await {
                    break seen;
                }
                let what = format!("{name} gave no answer in {:?}", rhythm.within);
                self.tell(name, Err(trouble(TIMED_OUT, what)));
            };
            self.tell(name, seen);
            // Woken early or not, the next look is due.
            let _ = tokio::time::timeout(rhythm.every, changed.changed()).await;
        }
    }
}

/// Opens the store at a place without keeping whoever waits from anything else.
pub(super) async fn open(place: &Place, create: bool) -> Result<Store, Trouble> {
    let place = place.clone();
    let opened = tokio::task::spawn_blocking(move || place.open(&Access::default(), create)).await;
    opened.map_err(|error| trouble("internal", error.to_string()))?.map_err(|error| told(&error))
}

/// The newest backups of each database in a store, as many as are told of.
async fn look(
    place: &Place,
    create: bool,
    kept_max: usize,
    index: &mut Index,
) -> Result<StoreReport, Trouble> {
    let store = open(place, create).await.inspect_err(|(code, what)| {
        if create {
            tracing::warn!(store = %place, code, what, "a store of backups cannot be opened");
        }
    })?;
    index.refresh(&store).await.map_err(|error| told(&error))?;
    Ok(told_of(&index.backups(), STORED_MAX, kept_max))
}

/// The newest backup of each database: of the databases that were backed up last, as many as are told of. And of those the newest
/// backups, as many of each as there is room for.
fn told_of(backups: &[Brief], databases_max: usize, kept_max: usize) -> StoreReport {
    let mut newest: BTreeMap<DatabaseId, StoredBackup> = BTreeMap::new();
    for backup in backups {
        let count = newest.get(&backup.database).map_or(0, |older| older.count) + 1;
        let stored = StoredBackup {
            database: backup.database,
            name: backup.name.clone(),
            position: backup.position,
            taken_ms: backup.taken_ms,
            bytes: backup.bytes,
            count,
        };
        newest.insert(backup.database, stored);
    }
    let mut newest: Vec<_> = newest.into_values().collect();
    newest.sort_by_key(|backup| (std::cmp::Reverse(backup.taken_ms), backup.database));
    let left_out = newest.len().saturating_sub(databases_max) as u64;
    newest.truncate(databases_max);
    let kept = kept_of(backups, &newest, kept_max);
    StoreReport { backups: newest, kept, left_out, ..StoreReport::default() }
}

/// The newest backup of each of these databases, then the one before it of each, and so on.
fn kept_of(backups: &[Brief], databases: &[StoredBackup], kept_max: usize) -> Vec<KeptBackup> {
    let mut of: BTreeMap<DatabaseId, Vec<&Brief>> = BTreeMap::new();
    for backup in backups.iter().rev() {
        let known = of.entry(backup.database).or_default();
        if known.len() < KEPT_MAX {
            known.push(backup);
        }
    }
    let kept = |backup: &Brief| KeptBackup {
        database: backup.database,
        name: backup.name.clone(),
        instance: backup.instance,
        position: backup.position,
        reach: backup.reach,
        taken_ms: backup.taken_ms,
        bytes: backup.bytes,
    };
    let rounds = 0..KEPT_MAX;
    let found = rounds.flat_map(|round| {
        let of = &of;
        databases.iter().filter_map(move |known| of.get(&known.database)?.get(round).copied())
    });
    found.take(kept_max).map(kept).collect()
}

#[cfg(test)]
#[path = "look_tests.rs"]
mod tests;
