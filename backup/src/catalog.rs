use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt};
use planaria_types::{DatabaseId, InstanceId};

use crate::error::{Error, Result};
use crate::manifest::{BACKUPS, Backup, LATEST, MANIFEST_BYTES_MAX};
use crate::store::{Entry, Store};

/// Objects that are moved side by side. Each is in memory as a whole: at most 16 MiB.
pub(crate) const AT_ONCE: usize = 4;

/// The backups of a store.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Those that can be read, in the order of their update times.
    pub backups: Vec<Backup>,
    /// Manifests that cannot be read, and why.
    pub unreadable: Vec<(String, Error)>,
}

impl Catalog {
    /// Reads all manifests.
    pub async fn load(store: &Store) -> Result<Self> {
        Self::load_from(store, BACKUPS).await
    }

    pub(crate) async fn load_from(store: &Store, folder: &str) -> Result<Self> {
        let entries = store.list(folder).await?;
        let found: Vec<_> = futures_util::stream::iter(entries)
            .map(|entry| async move { Ok::<_, Error>((read(store, folder, &entry).await?, entry.path)) })
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let mut catalog = Self::default();
        for (found, name) in found {
            match found {
                Some(Ok(backup)) => catalog.backups.push(backup),
                Some(Err(error)) => catalog.unreadable.push((name, error)),
                // Removed since it was listed.
                None => {}
            }
        }
        catalog.backups.sort_by_key(|backup| (backup.position.uid, backup.taken_ms));
        Ok(catalog)
    }

    /// The backup of that name.
    pub fn find(&self, name: &str) -> Result<&Backup> {
        if let Some(found) = self.backups.iter().find(|backup| backup.name == name) {
            return Ok(found);
        }
        let path = Backup::path(name);
        match self.unreadable.iter().find(|(own, _)| *own == path) {
            Some((_, error)) => Err(error.clone()),
            None => Err(Error::UnknownBackup { name: name.to_owned() }),
        }
    }

    /// The newest backup of a copy: what the next one of it goes on from.
    pub fn newest_of(&self, instance: InstanceId) -> Option<&Backup> {
        self.backups.iter().rev().find(|backup| backup.instance == instance)
    }

    /// The backups of one database, oldest first: that of the backup of this name, or the only one.
    ///
    /// # Errors
    ///
    /// `UnknownBackup`, `NoBackups`, and `SeveralDatabases` where the name does not tell which one.
    pub fn of_one_database(&self, store: &Store, name: Option<&str>) -> Result<Vec<&Backup>> {
        let named = name.filter(|name| *name != LATEST).map(|name| self.find(name)).transpose()?;
        let database = match named {
            Some(backup) => backup.database,
            None => self.only_database(store)?,
        };
        Ok(self.backups.iter().filter(|backup| backup.database == database).collect())
    }

    fn only_database(&self, store: &Store) -> Result<DatabaseId> {
        let databases: BTreeMap<DatabaseId, &str> =
            self.backups.iter().map(|backup| (backup.database, backup.name.as_str())).collect();
        let mut known = databases.iter();
        match (known.next(), known.next()) {
            (None, _) => match self.unreadable.first() {
                Some((_, error)) => Err(error.clone()),
                None => Err(Error::NoBackups { place: store.place().to_owned() }),
            },
            (Some((database, _)), None) => Ok(*database),
            _ => Err(Error::SeveralDatabases {
                count: databases.len(),
                names: databases.values().map(|name| (*name).to_owned()).collect(),
            }),
        }
    }
}

/// What a manifest says, or what is wrong with it; nothing if there is none any more.
///
/// # Errors
///
/// The store's.
pub(crate) async fn read(store: &Store, folder: &str, entry: &Entry) -> Result<Option<Result<Backup>>> {
    let name = &entry.path;
    let bytes = match store.get(name, MANIFEST_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(Error::Missing { .. }) => return Ok(None),
        Err(error @ Error::Damaged { .. }) => return Ok(Some(Err(error))),
        Err(error) => return Err(error),
    };
    let found = Backup::decode(name, &bytes).and_then(|backup| {
        // A copy under another name would have that one removed in its stead.
        if folder == BACKUPS && Backup::path(&backup.name) != *name {
            let what = format!("it says that it is the backup {:?}", backup.name);
            return Err(Error::Damaged { object: name.clone(), what });
        }
        Ok(backup)
    });
    Ok(Some(found))
}
