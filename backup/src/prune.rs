//! Removing backups, and the objects that nobody needs any more.
//!
//! A backup may be made at the same time, and nothing keeps others out of a store. So nothing goes at once: a backup that is
//! removed leaves a note with its manifest, and an object goes only if it is older than the grace period, and named by no
//! backup and by no note that is younger. Whoever makes a backup relies on objects that a backup names, or that are younger
//! than half the grace period, and sends all others again; before its manifest is written it looks whether everything is there.

use std::collections::{BTreeMap, HashSet};

use futures_util::{StreamExt, TryStreamExt};
use planaria_types::DatabaseId;

use crate::catalog::{AT_ONCE, Catalog};
use crate::contents::Contents;
use crate::error::{Error, Result};
use crate::manifest::Backup;
use crate::object::{Address, OBJECTS};
use crate::store::{Entry, Store};

/// How long what is not named any more is kept, in milliseconds, unless somebody says otherwise: a day.
pub(crate) const GRACE_MS: u64 = 24 * 3_600_000;
/// Objects up to this age are relied upon though no backup names them yet.
pub(crate) const YOUNG_MS: u64 = GRACE_MS / 2;
/// The folder of the notes on backups that were removed.
const REMOVED: &str = "removed";

/// Which backups stay: those that any of both rules keeps. Without rules all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kept {
    /// The rules are about this database; none has them be about all of them, each by itself.
    pub of: Option<DatabaseId>,
    /// So many of each database, the newest.
    pub last: Option<u64>,
    /// Those that are no older than so many milliseconds.
    pub within_ms: Option<u64>,
}

/// What was removed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pruned {
    /// Backups.
    pub backups: Vec<String>,
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Objects that no backup names and that stay for the grace period.
    pub waiting_objects: u64,
    /// Backups that stay.
    pub kept: u64,
}

impl Kept {
    /// The names of the backups that go.
    fn expired<'a>(&self, backups: &'a [Backup], now_ms: u64) -> Vec<&'a Backup> {
        if self.last.is_none() && self.within_ms.is_none() {
            return Vec::new();
        }
        let mut newer: BTreeMap<DatabaseId, u64> = BTreeMap::new();
        let mut expired = Vec::new();
        // In the order of their update times, the newest first.
        for backup in backups.iter().rev().filter(|backup| self.of.is_none_or(|of| of == backup.database)) {
            let newer = newer.entry(backup.database).or_default();
            let is_young = |within: u64| backup.taken_ms.saturating_add(within) >= now_ms;
            if self.last.is_none_or(|last| *newer >= last) && !self.within_ms.is_some_and(is_young) {
                expired.push(backup);
            }
            *newer += 1;
        }
        expired
    }
}

/// Removes one backup. Its objects go with a later prune, if no other backup names them.
pub async fn delete(store: &Store, backup: &Backup) -> Result<()> {
    let note = format!("{REMOVED}/{}-{:032x}", backup.name, backup.id);
    store.put(&note, backup.encode()?.into()).await?;
    store.delete(&Backup::path(&backup.name)).await
}

/// Removes the backups that the rules do not keep, and the objects that nobody has named for the grace period.
///
/// # Errors
///
/// `Invalid` for a grace period in which backups that are being made rely on what would be removed. None at all is for who knows that
/// nobody makes one: it takes everything, and such a backup fails. Where a manifest or its list cannot be read nothing is removed
/// at all: it is not known what it names.
pub async fn prune(store: &Store, kept: &Kept, grace_ms: Option<u64>, dry_run: bool) -> Result<Pruned> {
    let grace_ms = grace_ms.unwrap_or(GRACE_MS);
    if grace_ms > 0 && grace_ms < YOUNG_MS {
        return Err(Error::Invalid(format!(
            "backups that are being made rely on objects that are up to {} hours old, and would lose them: give a grace period of that \
             or longer, or 0s where nobody makes a backup meanwhile",
            YOUNG_MS / 3_600_000
        )));
    }
    let now_ms = store.now_ms().await?;
    let catalog = readable(Catalog::load(store).await?)?;
    let expired = kept.expired(&catalog.backups, now_ms);
    let mut pruned = Pruned {
        backups: expired.iter().map(|backup| backup.name.clone()).collect(),
        kept: (catalog.backups.len() - expired.len()) as u64,
        ..Pruned::default()
    };
    let going: HashSet<u128> = expired.iter().map(|backup| backup.id).collect();
    // What cannot be read of those that stay ends this before anything goes.
    let (mut needed, mut waits) = (HashSet::new(), HashSet::new());
    for backup in &catalog.backups {
        match going.contains(&backup.id) {
            false => needed.extend(names(store, backup).await?),
            true if grace_ms > 0 => waits.extend(names(store, backup).await?),
            true => {}
        }
    }
    if !dry_run {
        for backup in &expired {
            delete(store, backup).await?;
        }
    }
    let notes = store.list(REMOVED).await?;
    // Without a grace period nothing is waited for, not even what was put since the clock was looked at.
    let is_old = |entry: &Entry| grace_ms == 0 || entry.modified_ms.saturating_add(grace_ms) <= now_ms;
    let old: Vec<&Entry> = notes.iter().filter(|note| is_old(note)).collect();
    let removed = readable(Catalog::load_from(store, REMOVED).await?)?;
    for backup in &removed.backups {
        let ends = format!("/{}-{:032x}", backup.name, backup.id);
        if !old.iter().any(|note| note.path.ends_with(&ends)) {
            waits.extend(names(store, backup).await?);
        }
    }
    // Backups that were completed while this one looked.
    for backup in &readable(Catalog::load(store).await?)?.backups {
        if !catalog.backups.iter().any(|known| known.id == backup.id) {
            needed.extend(names(store, backup).await?);
        }
    }
    let mut going = Vec::new();
    for entry in store.list(OBJECTS).await? {
        let address = entry.path.rsplit('/').next().and_then(Address::parse);
        if address.is_some_and(|address| needed.contains(&address)) {
            continue;
        }
        if is_old(&entry) && address.is_none_or(|address| !waits.contains(&address)) {
            going.push(entry);
        } else {
            pruned.waiting_objects += 1;
        }
    }
    pruned.objects = going.len() as u64;
    pruned.bytes = going.iter().map(|entry| entry.len).sum();
    if !dry_run {
        let paths = going.into_iter().map(|entry| entry.path);
        remove(store, paths.chain(old.into_iter().map(|note| note.path.clone())).collect()).await?;
    }
    Ok(pruned)
}

async fn remove(store: &Store, paths: Vec<String>) -> Result<()> {
    let removing = futures_util::stream::iter(paths)
        .map(|path| async move { store.delete(&path).await })
        .buffered(AT_ONCE);
    removing.try_collect().await
}

fn readable(catalog: Catalog) -> Result<Catalog> {
    match catalog.unreadable.first() {
        Some((_, error)) => Err(error.clone()),
        None => Ok(catalog),
    }
}

/// The objects that a backup names.
async fn names(store: &Store, backup: &Backup) -> Result<Vec<Address>> {
    let contents = Contents::load(store, backup).await?;
    let parts = contents.parts().chain(backup.contents.parts());
    Ok(parts.map(|part| part.address).collect())
}
