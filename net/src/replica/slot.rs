use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use planaria_engine::Database;

/// The database that a node hosts now. A secondary that has to take all run files anew puts another one in its place.
#[derive(Clone, Debug)]
pub struct Slot(Arc<Place>);

#[derive(Debug)]
struct Place {
    database: RwLock<Database>,
    /// How many databases there were before; changes while the database is locked.
    generation: AtomicU64,
}

impl Slot {
    /// A slot with a database in it.
    pub fn new(database: Database) -> Self {
        Self(Arc::new(Place { database: RwLock::new(database), generation: AtomicU64::new(0) }))
    }

    /// The database. It stays open for as long as it is held, but takes no more writes once it is replaced.
    pub fn get(&self) -> Database {
        self.0.database.read().clone()
    }

    /// The database, and the number under which it is here.
    pub fn current(&self) -> (u64, Database) {
        let database = self.0.database.read();
        (self.generation(), database.clone())
    }

    /// The number of the database that is here: for those who keep what they got of it.
    pub fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    /// Closes the database and puts another one in its place; `open` is called in between.
    pub(super) fn replace<E>(&self, open: impl FnOnce() -> Result<Database, E>) -> Result<Database, E> {
        let mut place = self.0.database.write();
        place.close();
        let new = open()?;
        *place = new.clone();
        self.0.generation.fetch_add(1, Ordering::Release);
        Ok(new)
    }
}
