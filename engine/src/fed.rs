//! The copies that a secondary feeds: it draws no UIDs, so it cannot register them in the system fragment as a primary does.

use planaria_types::Uid;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::replicas::Registration;
use crate::sealed::SealedFile;

/// The file within a store's directory.
const FED: &str = "FED";
const FORMAT: SealedFile = SealedFile { magic: *b"PLNRFEDS", version: 2, bytes_max: 4 << 20 };
/// The most copies that are fed. Their names are bounded, so that they fit into the file.
const FED_MAX: usize = 4_096;

impl Database {
    /// The copies that this secondary feeds, as they were kept last.
    ///
    /// # Errors
    ///
    /// `Damaged` or `Foreign` if the file that says so is not what was written.
    pub fn fed(&self) -> Result<Vec<Registration>> {
        let fed = FORMAT.read(&self.store().options.os, &self.path().join(FED))?;
        Ok(fed.unwrap_or_default())
    }

    /// Keeps who is fed, durably and as a whole. What is lost with it is what was preserved for them: they are brought up to date
    /// at a higher price then.
    ///
    /// # Errors
    ///
    /// `Invalid` if they are too many.
    pub fn keep_fed(&self, fed: &[Registration]) -> Result<()> {
        if fed.len() > FED_MAX {
            let what =
                "too many copies are fed: forget those that will not come back (`planaria replica forget`)";
            return Err(Error::Invalid(what.into()));
        }
        FORMAT.write(&self.store().options.os, &self.path().join(FED), &fed)
    }

    /// Keeps the delete marks above `position`, the lowest of the copies that are fed; with none there is nobody to keep them for.
    pub fn set_fed_floor(&self, position: Option<Uid>) {
        self.store().floors.lock().fed = position;
    }

    /// The lowest position of a copy that is fed, and for which something is preserved. What cannot be read may need everything.
    pub(crate) fn fed_floor(&self) -> Option<Uid> {
        match self.fed() {
            Ok(fed) => fed.iter().filter(|fed| fed.given_up.is_none()).map(|fed| fed.durable).min(),
            Err(_) => Some(Uid::ZERO),
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::Arc;

    use planaria_types::{InstanceId, Uid};

    use crate::os::{CrashStyle, MemOs, Os};
    use crate::{Batch, Database, Durability, Options, Registration};

    fn open(os: &MemOs) -> Database {
        let os: Arc<dyn Os> = Arc::new(os.clone());
        Database::open_with("/db", Options { os, background: false, ..Options::default() }).unwrap()
    }

    fn fed(durable: Uid) -> Vec<Registration> {
        vec![Registration::new(InstanceId(7), "third", durable)]
    }

    #[test]
    fn who_is_fed_outlives_a_power_cut_and_the_marks_that_it_needs_outlive_a_merge() {
        let os = MemOs::new(1);
        let db = open(&os);
        let table = db.create_raw_table("t").unwrap();
        table.put("a", "row").unwrap();
        table.put("b", "row").unwrap();
        db.compact().unwrap();
        let behind = db.visible();
        assert!(db.fed().unwrap().is_empty());
        db.keep_fed(&fed(behind)).unwrap();
        let mut batch = Batch::new();
        batch.delete(table.id(), "a");
        db.write(batch, Durability::Synced).unwrap();
        drop((table, db));
        let os = os.crash(CrashStyle::PowerCutClean, 1);
        let db = open(&os);
        assert_eq!(db.fed().unwrap(), fed(behind));
        db.compact().unwrap();
        assert!(db.mark_floor() <= behind, "the mark of `a` is kept");
        db.set_fed_floor(None);
        db.table("t").unwrap().put("c", "row").unwrap();
        db.compact().unwrap();
        assert!(db.mark_floor() > behind, "nobody needs it any more");
    }
}
