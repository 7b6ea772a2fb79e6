//! Whose place a directory has taken: a secondary that takes run files anew becomes another instance, and whoever counts the one
//! before has to know that it will never come back.

use std::path::Path;

use planaria_types::InstanceId;

use crate::database::Database;
use crate::error::Result;
use crate::sealed::SealedFile;

/// The most of them that are remembered, newest first. Those before were told of by each that came after them.
pub const FORMER_MAX: usize = 8;

/// The file within a store's directory.
const FORMER: &str = "FORMER";
const FORMAT: SealedFile = SealedFile { magic: *b"PLNRFORM", version: 1, bytes_max: 1 << 10 };

impl Database {
    /// The instances that this one has taken the place of in its directory, newest first; at most [`FORMER_MAX`].
    ///
    /// # Errors
    ///
    /// `Damaged` or `Foreign` if the file that says so is not what was written.
    pub fn former_instances(&self) -> Result<Vec<InstanceId>> {
        let former: Option<Vec<InstanceId>> =
            FORMAT.read(&self.store().options.os, &self.path().join(FORMER))?;
        let mut former = former.unwrap_or_default();
        former.truncate(FORMER_MAX);
        Ok(former)
    }

    /// Notes in the database at `next`, which nobody has open, that it takes the place of this one, durably. That must come
    /// before it does: what is known of this one's promises and acknowledgements holds for the next one from then on.
    ///
    /// # Errors
    ///
    /// `Io`.
    pub fn hand_place_to(&self, next: &Path) -> Result<()> {
        // A list that cannot be read costs an operator a word to the primary, and nothing else.
        let before = self.former_instances().unwrap_or_default();
        let former: Vec<_> = std::iter::once(self.instance()).chain(before).take(FORMER_MAX).collect();
        FORMAT.write(&self.store().options.os, &next.join(FORMER), &former)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::FORMER_MAX;
    use crate::os::{CrashStyle, MemOs, Os};
    use crate::{Database, Options};

    #[test]
    fn the_last_instances_of_a_directory_are_known_newest_first() {
        let os = MemOs::new(1);
        let dyn_os: Arc<dyn Os> = Arc::new(os.clone());
        let options = Options { os: dyn_os, background: false, ..Options::default() };
        let mut expected = Vec::new();
        let mut db = Database::open_with("/db0", options.clone()).unwrap();
        assert!(db.former_instances().unwrap().is_empty());
        for number in 1..12 {
            expected.insert(0, db.instance());
            expected.truncate(FORMER_MAX);
            let dir = format!("/db{number}");
            drop(Database::open_with(&dir, options.clone()).unwrap());
            db.hand_place_to(Path::new(&dir)).unwrap();
            db = Database::open_with(&dir, options.clone()).unwrap();
            assert_eq!(db.former_instances().unwrap(), expected);
        }
        drop(db);
        let os: Arc<dyn Os> = Arc::new(os.crash(CrashStyle::PowerCutClean, 1));
        let db = Database::open_with("/db11", Options { os, ..options }).unwrap();
        assert_eq!(db.former_instances().unwrap(), expected);
    }
}
