//! Clones that a node has begun to take from stores, remembered over a restart: what is there of one goes when the control center says that
//! it is not wanted, whoever had stopped working for it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use planaria_engine::os::Os;
use planaria_engine::{Result, SealedFile};
use planaria_net::wire::message::CloneRole;
use planaria_net::wire::stores::RestoreOrder;
use serde::{Deserialize, Serialize};

/// Beside the list of the clones that are taken of other nodes.
const NAME: &str = "RESTORES";
const FORMAT: SealedFile = SealedFile { magic: *b"PLNRRSTR", version: 1, bytes_max: 1 << 20 };

/// A clone that was begun.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Begun {
    /// The job.
    pub(super) job: u64,
    /// What it is called.
    pub(super) name: String,
    /// What it is for.
    pub(super) role: CloneRole,
}

impl From<&RestoreOrder> for Begun {
    fn from(order: &RestoreOrder) -> Self {
        Self { job: order.job, name: order.name.clone(), role: order.role }
    }
}

/// Those that have begun, until it is known what becomes of them.
pub(super) struct Restores {
    /// Where they are remembered; nowhere by a node that hosts nothing, and so has no place for it.
    file: Option<(PathBuf, Arc<dyn Os>)>,
    /// Held while the file is written, so that the last word stays.
    writing: Mutex<()>,
    begun: Mutex<BTreeMap<u64, Begun>>,
}

impl Restores {
    /// Those of the node whose clones are listed in this directory.
    pub(super) fn open(dir: Option<PathBuf>, os: &Arc<dyn Os>) -> Result<Self> {
        let file = dir.map(|dir| (dir.join(NAME), Arc::clone(os)));
        let known = file.as_ref().map(|(path, os)| FORMAT.read::<Vec<Begun>>(os, path)).transpose()?;
        let known = known.flatten().unwrap_or_default();
        let begun = known.into_iter().map(|begun| (begun.job, begun)).collect();
        Ok(Self { file, writing: Mutex::default(), begun: Mutex::new(begun) })
    }

    /// Remembers one, durably.
    pub(super) fn begin(&self, begun: Begun) -> Result<()> {
        let job = begun.job;
        let before = self.begun.lock().insert(job, begun);
        if before.is_some() {
            return Ok(());
        }
        self.save().inspect_err(|_| drop(self.begun.lock().remove(&job)))
    }

    /// Forgets one of which nothing is to be removed any more. One that stays in the file is told of once more after the next start.
    pub(super) fn end(&self, job: u64) {
        if self.begun.lock().remove(&job).is_none() {
            return;
        }
        if let Err(error) = self.save() {
            tracing::warn!(job, %error, "what became of a clone from a store could not be written down");
        }
    }

    pub(super) fn get(&self, job: u64) -> Option<Begun> {
        self.begun.lock().get(&job).cloned()
    }

    pub(super) fn all(&self) -> Vec<Begun> {
        self.begun.lock().values().cloned().collect()
    }

    fn save(&self) -> Result<()> {
        let Some((path, os)) = &self.file else { return Ok(()) };
        let _writing = self.writing.lock();
        make_directory(os, path)?;
        FORMAT.write(os, path, &self.all())
    }
}

/// Makes the directory of a file, if there is none.
fn make_directory(os: &Arc<dyn Os>, path: &Path) -> Result<()> {
    let Some(dir) = path.parent().filter(|dir| !os.exists(dir)) else { return Ok(()) };
    let failed = |what| {
        move |error| planaria_engine::Error::Io { what, path: dir.to_path_buf(), source: Arc::new(error) }
    };
    os.create_dir_all(dir).map_err(failed("create"))?;
    match dir.parent() {
        Some(above) => os.sync_dir(above).map_err(failed("sync the directory of")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use planaria_engine::os::Posix;

    use super::*;

    #[test]
    fn what_was_begun_is_known_after_a_restart_and_has_the_bytes_of_version_1() {
        let dir = tempfile::tempdir().unwrap();
        let os: Arc<dyn Os> = Arc::new(Posix);
        let open = || Restores::open(Some(dir.path().join("clones")), &os).unwrap();
        let begun = |job, name: &str| Begun { job, name: name.into(), role: CloneRole::Detached };
        let restores = open();
        assert_eq!(restores.all(), []);
        restores.begin(begun(7, "copy")).unwrap();
        restores.begin(begun(300, "other")).unwrap();
        restores.begin(begun(7, "copy")).unwrap();
        restores.end(8);
        assert_eq!(open().all(), [begun(7, "copy"), begun(300, "other")]);
        restores.end(300);
        assert_eq!((open().get(300), open().all()), (None, vec![begun(7, "copy")]));
        let written = std::fs::read(dir.path().join("clones").join(NAME)).unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join("restores-1");
        if std::env::var_os("PLANARIA_GOLDEN").is_some_and(|word| word == "write") {
            std::fs::write(&golden, &written).unwrap();
        }
        assert_eq!(written, std::fs::read(golden).unwrap());
    }
}
