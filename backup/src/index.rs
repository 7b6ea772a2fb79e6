use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt};
use planaria_types::{DatabaseId, InstanceId, Position, Uid};

use crate::catalog::{AT_ONCE, read};
use crate::error::Result;
use crate::manifest::{BACKUPS, Backup};
use crate::plan::reaches;
use crate::store::{Entry, Store};

/// For how many looks a manifest that cannot be read is left alone.
const UNREADABLE_FOR_LOOKS: u64 = 10;

/// A backup, as whoever looks for one sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Brief {
    /// What it is called.
    pub name: String,
    /// The database.
    pub database: DatabaseId,
    /// The last commit that it has.
    pub position: Position,
    /// When it was taken, in milliseconds since 1970.
    pub taken_ms: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// The copy that it was taken of.
    pub instance: InstanceId,
    /// Every state from its own up to here can be restored: the log of this backup and of later ones leads there.
    pub reach: Uid,
}

/// The backups of a store, for whoever looks there again and again: a manifest is never changed, so that each is read once. One that
/// was removed and made anew under its name is another one, by its age or its length.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// By path.
    known: BTreeMap<String, (Entry, Option<Backup>)>,
    /// Looks so far.
    looks: u64,
}

impl Index {
    /// Reads what is new in the store, and forgets what is gone. What was read counts even if this fails later on.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn refresh(&mut self, store: &Store) -> Result<()> {
        let there = store.list(BACKUPS).await?;
        let there: BTreeMap<String, Entry> =
            there.into_iter().map(|entry| (entry.path.clone(), entry)).collect();
        // What could not be read may have been damaged on its way alone.
        self.looks += 1;
        let looks_anew = self.looks.is_multiple_of(UNREADABLE_FOR_LOOKS);
        self.known.retain(|path, (entry, found)| {
            there.get(path) == Some(entry) && (found.is_some() || !looks_anew)
        });
        let new: Vec<Entry> =
            there.into_values().filter(|entry| !self.known.contains_key(&entry.path)).collect();
        let mut coming = futures_util::stream::iter(new)
            .map(|entry| async move { Ok::<_, crate::Error>((read(store, BACKUPS, &entry).await?, entry)) })
            .buffered(AT_ONCE);
        while let Some((found, entry)) = coming.try_next().await? {
            let Some(found) = found else { continue };
            self.known.insert(entry.path.clone(), (entry, found.ok()));
        }
        Ok(())
    }

    /// The backups that can be read, the oldest first.
    pub fn backups(&self) -> Vec<Brief> {
        let mut of: BTreeMap<DatabaseId, Vec<&Backup>> = BTreeMap::new();
        for backup in self.known.values().filter_map(|(_, backup)| backup.as_ref()) {
            of.entry(backup.database).or_default().push(backup);
        }
        let brief = |(backup, reach): (&Backup, Uid)| Brief {
            name: backup.name.clone(),
            database: backup.database,
            position: backup.position,
            taken_ms: backup.taken_ms,
            bytes: backup.bytes,
            instance: backup.instance,
            reach,
        };
        let briefs = of.into_values().flat_map(|backups| {
            let reaches = reaches(&backups);
            backups.into_iter().zip(reaches).map(brief).collect::<Vec<_>>()
        });
        let mut briefs: Vec<Brief> = briefs.collect();
        briefs.sort_by_key(|backup| (backup.position.uid, backup.taken_ms));
        briefs
    }
}
