//! What a store has met of damage since it was opened.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sync::Mutex;

/// Files that are remembered, at most: the first ones tell as much as all.
const FILES_MAX: usize = 16;

/// The damage that reads have met, whoever made them: it stays until the file has gone, or the store is opened anew.
#[derive(Debug)]
pub(crate) struct Health {
    met: Mutex<Vec<(PathBuf, String)>>,
}

impl Health {
    pub(crate) fn new() -> Self {
        Self { met: Mutex::new(Vec::new()) }
    }

    /// Remembers damage; every other error is somebody else's.
    #[cold]
    pub(crate) fn note(&self, error: &Error) {
        let Error::Damaged { path, .. } = error else { return };
        let mut met = self.met.lock();
        if met.len() < FILES_MAX && met.iter().all(|(known, _)| known != path) {
            met.push((path.clone(), error.to_string()));
        }
    }

    /// Hands a result on, its damage remembered.
    #[inline]
    pub(crate) fn noted<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| self.note(error))
    }

    /// The first damage in a file that is still in use.
    pub(crate) fn damage(&self, is_in_use: impl Fn(&Path) -> bool) -> Option<String> {
        let mut met = self.met.lock();
        met.retain(|(path, _)| is_in_use(path));
        met.first().map(|(_, what)| what.clone())
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use planaria_types::KeyRange;

    use super::*;
    use crate::clone::FileKind;
    use crate::os::{MemOs, Os};
    use crate::sync::Arc;
    use crate::{Database, Options, Table};

    #[test]
    fn damage_is_remembered_once_a_file_until_the_file_has_gone() {
        let health = Health::new();
        assert!(health.noted::<()>(Err(Error::ReadOnly)).is_err());
        assert_eq!(health.damage(|_| true), None);
        for number in 0..40 {
            let path = PathBuf::from(format!("{}.run", number % 20));
            health.note(&Error::damaged(&path, 7, "a checksum does not match"));
        }
        assert_eq!(health.met.lock().len(), FILES_MAX);
        assert!(health.damage(|_| true).is_some_and(|what| what.contains("0.run")));
        assert!(health.damage(|path| path != Path::new("0.run")).is_some_and(|what| what.contains("1.run")));
        assert_eq!(health.damage(|_| false), None);
    }

    #[test]
    fn whoever_meets_damage_in_a_run_tells_the_database() {
        type Meet = fn(&Database, &Table) -> Result<()>;
        let ways: [(&str, Meet); 4] = [
            ("a read", |_, table| table.get(7_u64.to_be_bytes()).map(drop)),
            ("a scan", |db, table| {
                db.snapshot().scan(table.id(), KeyRange::ALL).try_for_each(|row| row.map(drop))
            }),
            ("a merge", |db, table| {
                table.put(7_u64.to_be_bytes(), b"again")?;
                db.compact()
            }),
            ("a clone", |db, _| db.pin_files().and_then(|pin| pin.read(FileKind::Run, 2, 0).map(drop))),
        ];
        for (who, meet) in ways {
            let disk = MemOs::new(1);
            let os: Arc<dyn Os> = Arc::new(disk.clone());
            let options = Options { background: false, os, ..Options::default() };
            let db = Database::open_with("/db", options.clone()).unwrap();
            let table = db.create_raw_table("t").unwrap();
            for key in 0..100_u64 {
                table.put(key.to_be_bytes(), [7; 100]).unwrap();
            }
            db.compact().unwrap();
            let store = db.store().pin().0;
            let references = store.fragments().iter().flat_map(|fragment| fragment.references());
            let damaged = references.max_by_key(|reference| reference.run.meta().records).unwrap();
            let path = damaged.run.path().to_path_buf();
            assert_eq!((damaged.file.0, db.damage()), (2, None), "{who}");
            disk.flip(&path, 100, 1).unwrap();
            assert_eq!(meet(&db, &table).unwrap_err().code(), "damaged", "{who}");
            assert!(
                db.damage().is_some_and(|what| what.contains("0000000002.run")),
                "{who}: {:?}",
                db.damage()
            );
        }
    }
}
