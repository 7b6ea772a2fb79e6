use std::sync::Arc;

use parking_lot::RwLock;
use planaria_engine::Database;

/// The database that a node hosts now. A secondary that has to take all run files anew puts another one in its place.
#[derive(Clone, Debug)]
pub struct Slot(Arc<RwLock<Database>>);

impl Slot {
    /// A slot with a database in it.
    pub fn new(database: Database) -> Self {
        Self(Arc::new(RwLock::new(database)))
    }

    /// The database. It stays open for as long as it is held, but takes no more writes once it is replaced.
    pub fn get(&self) -> Database {
        self.0.read().clone()
    }

    /// Closes the database and puts another one in its place; `open` is called in between.
    pub(super) fn replace<E>(&self, open: impl FnOnce() -> Result<Database, E>) -> Result<Database, E> {
        let mut place = self.0.write();
        place.close();
        let new = open()?;
        *place = new.clone();
        Ok(new)
    }
}
