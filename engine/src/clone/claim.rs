use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::os::{DirLock, Os};
use crate::sealed::{beside, parent};
use crate::sync::Arc;

/// The end of the name of the file that is locked beside a directory.
const CLAIM: &str = ".lock";

/// The right to change what lies at a clone's place and beside it: no other process, and nobody else in this one, has it
/// meanwhile. Its file goes with it; that of a process which was killed is taken over.
#[derive(Debug)]
pub(super) struct Claim {
    os: Arc<dyn Os>,
    path: PathBuf,
    _lock: Box<dyn DirLock>,
}

impl Claim {
    /// Claims the place of `dir`, whose parent must be there.
    pub(super) fn of(os: &Arc<dyn Os>, dir: &Path) -> Result<Self> {
        let path = beside(dir, CLAIM);
        let lock = os.lock(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => Error::Busy { path: dir.to_path_buf() },
            _ => Error::io("lock", &path, error),
        })?;
        Ok(Self { os: Arc::clone(os), path, _lock: lock })
    }

    /// The same, unless there is not even the directory that `dir` would lie in: nobody can be at work there.
    pub(super) fn of_existing(os: &Arc<dyn Os>, dir: &Path) -> Result<Option<Self>> {
        if os.exists(&parent(dir)) { Self::of(os, dir).map(Some) } else { Ok(None) }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Its name goes before the lock does: whoever locks a file without a name notices.
        // One that stays behind is as good as none.
        let _ = self.os.remove_file(&self.path);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;
    use crate::os::Posix;

    #[test]
    fn one_has_a_place_at_a_time_though_its_lock_is_removed_again_and_again() {
        let root = tempfile::tempdir().unwrap();
        let (is_held, had) = (AtomicBool::new(false), AtomicU32::new(0));
        let os: Arc<dyn Os> = Arc::new(Posix);
        let dir = root.path().join("clone");
        std::thread::scope(|threads| {
            for _ in 0..4 {
                threads.spawn(|| {
                    while had.load(Ordering::Relaxed) < 2_000 {
                        match Claim::of(&os, &dir) {
                            Ok(claim) => {
                                assert!(!is_held.swap(true, Ordering::SeqCst), "two have it");
                                had.fetch_add(1, Ordering::Relaxed);
                                is_held.store(false, Ordering::SeqCst);
                                drop(claim);
                            }
                            Err(error) => assert_eq!(error.code(), "busy", "{error}"),
                        }
                    }
                });
            }
        });
        assert!(os.list(root.path()).unwrap().is_empty());
        assert!(Claim::of_existing(&os, &root.path().join("none/clone")).unwrap().is_none());
    }
}
