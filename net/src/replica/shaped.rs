use std::path::PathBuf;
use std::sync::Arc;

use planaria_engine::Database;
use planaria_engine::os::Os;
use planaria_types::InstanceId;

use crate::wire::message::RemoteError;
use crate::wire::message::Shape;

/// Makes what is given away of a database to somebody who must not have all of it.
pub trait Shaper: Send + Sync {
    /// A database of its own that holds no more than the shape says. One that was made for an interrupted attempt is given again, if it
    /// is still there.
    ///
    /// # Errors
    ///
    /// What is wrong with the shape, and what the disk says.
    fn shape(
        &self,
        db: &Database,
        shape: &Shape,
        resumes: Option<InstanceId>,
    ) -> Result<Arc<ShapedCopy>, RemoteError>;
}

/// A database that was made to be given away. It goes with its directory when nobody holds it any more.
#[derive(Debug)]
pub struct ShapedCopy {
    db: Database,
    dir: PathBuf,
    os: Arc<dyn Os>,
}

impl ShapedCopy {
    /// A database within a directory that was made for it.
    pub fn new(db: Database, dir: PathBuf, os: Arc<dyn Os>) -> Self {
        Self { db, dir, os }
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.db
    }
}

impl Drop for ShapedCopy {
    fn drop(&mut self) {
        self.db.close();
        if let Err(error) = self.os.remove_dir_all(&self.dir) {
            tracing::warn!(path = %self.dir.display(), %error, "what was made for a clone stays behind");
        }
    }
}
